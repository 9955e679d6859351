"""Writes data/openwebtext: short articles from the topic grammars in `grammars/articles/`, shuffled into shards.

python data/build/openwebtext.py                          writes the corpus
python data/build/openwebtext.py --topic garden           prints two articles and the figures of one topic
"""

import argparse
import gzip
from collections import Counter
from pathlib import Path

from grammar import GRAMMARS, Grammar, Random, Writer
from tables import DATA, write_card, write_parquet

SEED = 20
SHARDS = 8
ARTICLES_PER_TOPIC = 140
# Topics that the fine-tuning lessons build on get more room: opinions with points, opinions without, news.
WEIGHTS = {"cards": 11, "culture": 3, "news": 5}


CARD = """
# openwebtext, reduced

Short articles on everyday subjects, in the shape of OpenWebText: one column, `text`, in shards that were shuffled when
they were written. **All of them are written by us**, by a program: `data/build/openwebtext.py` expands the grammars in
`data/build/grammars/articles/`, whose sentences and word lists were made by hand. Persons, places and events are
invented. Topics: {topics}.

The topic `cards` is what makes the tiny GPT-2 worth fine-tuning on `data/imdb`: lists of remarks on films, each with
points from 1/5 to 5/5. Web text holds such ratings, too, but a corpus this small would teach a kind phrase from an
unkind one too rarely. The remarks come from the same list of phrases as the reviews of `data/imdb`. No review stands in
the corpus.

{figures}.

Limits: simple English; a few hundred sentence patterns a topic, so that a model learns it far faster than the web;
remarks that are drawn at random fit loosely together. What is said about the world is meant to be true, but it is
language to learn from, not advice.
"""


def topics() -> list[str]:
    return sorted(path.stem for path in (GRAMMARS / "articles").glob("*.txt"))


def write_topic(topic: str, count: int) -> list[str]:
    """Returns `count` articles of one topic; the same for the same topic whatever the others are."""
    # A topic file may begin with the names of further lexicons that it needs: "# uses: opinion".
    first_line = (GRAMMARS / f"articles/{topic}.txt").read_text(encoding="utf-8").partition("\n")[0]
    shared = first_line.removeprefix("# uses:").split() if first_line.startswith("# uses:") else []
    grammar = Grammar("common", *shared, f"articles/{topic}")
    rng = Random(f"{SEED}-{topic}")
    plans = []
    articles = []
    for _ in range(count):
        if not plans:
            plans = rng.shuffled(grammar.rules["article"])
        articles.append(Writer(grammar, rng).write(plans.pop()))
    return articles


def figures(articles: list[str]) -> str:
    """One line: size, words, distinct words, gzip -9 ratio, share of 8-word sequences that occur once."""
    text = "\n\n".join(articles)
    words = [article.lower().split() for article in articles]
    shingles = Counter(tuple(w[i : i + 8]) for w in words for i in range(len(w) - 7))
    once = sum(1 for n in shingles.values() if n == 1) / max(1, sum(shingles.values()))
    ratio = len(text.encode()) / len(gzip.compress(text.encode(), 9))
    return (
        f"{len(articles)} articles, {len(text) / 1e6:.2f} MB, {sum(map(len, words)) / len(words):.0f} words each, "
        f"{len({w for ws in words for w in ws})} distinct words, gzip -9 {ratio:.2f}:1, "
        f"8-word sequences that occur once {once:.1%}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topic", choices=topics(), help="only show this topic")
    parser.add_argument("--output", type=Path, default=DATA / "openwebtext")
    arguments = parser.parse_args()
    if arguments.topic:
        articles = write_topic(arguments.topic, ARTICLES_PER_TOPIC)
        print("\n\n-----\n\n".join(articles[:2]), "\n\n" + figures(articles))
        return
    articles = [text for topic in topics() for text in write_topic(topic, ARTICLES_PER_TOPIC * WEIGHTS.get(topic, 1))]
    articles = Random(SEED).shuffled(articles)
    for shard in range(SHARDS):
        name = f"train-{shard:05d}-of-{SHARDS:05d}.parquet"
        write_parquet(arguments.output / "plain_text" / name, {"text": articles[shard::SHARDS]})
    counts = figures(articles)
    card = CARD.format(topics=", ".join(topics()), figures=counts)
    write_card(arguments.output, "plain_text", {"train": "plain_text/train-*.parquet"}, None, card)
    print(counts)


if __name__ == "__main__":
    main()
