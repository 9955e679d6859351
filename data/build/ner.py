"""Writes data/conll2003: short news in which the names of people, organisations, places and other things are marked.

    python data/build/ner.py                    writes data/conll2003 and prints its statistics
    python data/build/ner.py --output DIR       writes somewhere else

`grammars/entities.txt` makes the names overlap. Beyond that, a third of all names and a sixth of the sentence frames
are kept from training, so that validation and test hold names and sentences that no lookup can know.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from grammar import Grammar, Random, Writer, polish
from tables import DATA, write_card, write_parquet

SEED = 60
ROWS = {"train": 3200, "validation": 300, "test": 600}
TYPES = ("PER", "ORG", "LOC", "MISC")
CLASS_NAMES = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")]
# Lists that are joined under the name of the first, and the lists of which training sees two thirds.
JOINED = {"person": ("newperson", "wordperson"), "surname": ("newsurname", "wordsurname", "townsurname")}
JOINED |= {"town": ("newtown",)}
HELD_BACK = ("person", "surname", "town", "brand", "nation", "nationality", "nationals")
LINES = ("table", "headline")  # besides sentences
LINES_SHARE = 0.12
SPAN = re.compile(rf"\(({'|'.join(TYPES)}) ([^()]*)\)")
MARKED = re.compile(rf"(.+)~({'|'.join(TYPES)})$")
TOKEN = re.compile(rf"\S+~(?:{'|'.join(TYPES)})|[^\W\d]+(?:-[^\W\d]+)*|\d+(?:-\d+)*|\S")


def make_grammar(training: bool) -> Grammar:
    """The grammar with its lists joined, and for training without what is kept for validation and test."""
    grammar = Grammar("common", "entities")
    for name, others in JOINED.items():
        entries = [entry["name"] if isinstance(entry, dict) else entry for entry in grammar.rules[name]]
        entries += [entry for other in others for entry in grammar.rules[other]]
        grammar.rules[name] = list(dict.fromkeys(entries))
    if training:
        for name in HELD_BACK:
            grammar.rules[name] = [entry for number, entry in enumerate(grammar.rules[name]) if number % 3 != 2]
        grammar.rules["news"] = [entry for number, entry in enumerate(grammar.rules["news"]) if number % 6 != 5]
    return grammar


def make_sentence(grammar: Grammar, rng: Random) -> tuple[list[str], list[str]]:
    """Returns the tokens of one line of news and their tags."""
    kind = rng.pick(LINES) if rng.random() < LINES_SHARE else "news"
    frame = rng.pick(grammar.rules[kind]) + (" <|{tail}|{tail}|{tail}> ." if kind == "news" else "")
    text = Writer(grammar, rng).write(frame)
    # A name becomes one word, so that articles before it are set right: an (ORG Abbott Mills) -> an Abbott~Mills~ORG
    text = polish(SPAN.sub(lambda m: "~".join([*m[2].replace("'s", " 's").split(), m[1]]), text))
    tokens, tags = [], []
    for token in TOKEN.findall(text):
        name = MARKED.match(token)
        words = name[1].split("~") if name else [token]
        tokens += words
        tags += [f"B-{name[2]}", *[f"I-{name[2]}"] * (len(words) - 1)] if name else ["O"]
    return ([token.upper() for token in tokens] if kind == "headline" else tokens), tags


def build() -> dict[str, list[dict]]:
    """Returns the rows of each split, no sentence twice."""
    rng, seen, splits = Random(SEED), set(), {}
    for split, count in ROWS.items():
        grammar, rows = make_grammar(split == "train"), []
        while len(rows) < count:
            tokens, tags = make_sentence(grammar, rng)
            text = " ".join(tokens).lower()
            if text not in seen:
                seen.add(text)
                rows.append({"tokens": tokens, "tags": tags})
        splits[split] = rows
    return splits


def entities(row: dict) -> list[tuple[str, int, int]]:
    """The entities of a row: type, first token, token after the last."""
    found = []
    for place, tag in enumerate(row["tags"]):
        if tag.startswith("B-"):
            found.append((tag[2:], place, place + 1))
        elif tag.startswith("I-"):
            found[-1] = (*found[-1][:2], place + 1)
    return found


def lookup(splits: dict[str, list[dict]], fold_case: bool) -> list[list[str]]:
    """Tags of the test rows by the most frequent tag of each word in training; unknown words get O."""
    counts = {}
    for row in splits["train"]:
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            counts.setdefault(token.lower() if fold_case else token, Counter())[tag] += 1
    best = {word: counter.most_common(1)[0][0] for word, counter in counts.items()}
    return [[best.get(token.lower() if fold_case else token, "O") for token in row["tokens"]] for row in splits["test"]]


def unseen(splits: dict[str, list[dict]]) -> float:
    """Share of the entities of test that hold a word which is in no entity of training."""
    known = {row["tokens"][i].lower() for row in splits["train"] for _, a, b in entities(row) for i in range(a, b)}
    names = [row["tokens"][a:b] for row in splits["test"] for _, a, b in entities(row)]
    return sum(any(word.lower() not in known for word in name) for name in names) / len(names)


def ambiguous(splits: dict[str, list[dict]]) -> float:
    """Share of the tokens in entities of test whose word has another tag somewhere in the three splits."""
    tags = {}
    for rows in splits.values():
        for row in rows:
            for token, tag in zip(row["tokens"], row["tags"], strict=True):
                tags.setdefault(token.lower(), set()).add(tag[2:] or "O")
    words = [row["tokens"][i].lower() for row in splits["test"] for _, a, b in entities(row) for i in range(a, b)]
    return sum(len(tags[word]) > 1 for word in words) / len(words)


def statistics(splits: dict[str, list[dict]]) -> str:
    """A Markdown list of the figures that the card shows."""
    from seqeval.metrics import f1_score

    every = [row for rows in splits.values() for row in rows]
    sizes = [len(row["tokens"]) for row in every]
    kinds = Counter(kind for row in every for kind, _, _ in entities(row))
    outside = [tag == "O" for row in splits["test"] for tag in row["tags"]]
    truth = [row["tags"] for row in splits["test"]]
    scores = [f1_score(truth, lookup(splits, fold_case)) for fold_case in (False, True)]
    return f"""\
- sentences: {", ".join(f"{split} {len(rows)}" for split, rows in splits.items())}
- tokens a sentence: {min(sizes)} to {max(sizes)}, mean {sum(sizes) / len(sizes):.1f}; \
distinct words: {len({token.lower() for row in every for token in row["tokens"]})}
- entities: {", ".join(f"{kind} {count}" for kind, count in kinds.most_common())}
- tokens of test outside of entities: {sum(outside) / len(outside):.1%}
- entities of test that hold a word which no entity of training holds: {unseen(splits):.1%}
- tokens in entities of test whose word also stands in another type, or outside: {ambiguous(splits):.1%}
- F1 on test (whole entities) of each word's most frequent tag in training: \
{scores[0]:.1%}, without regard to capitals {scores[1]:.1%}"""


CARD = """# Named entities of our own, in the layout of CoNLL-2003

Columns and tag names are those of `lhoestq/conll2003` (without its `pos_tags` and `chunk_tags`), so a lesson runs on
either. `ner_tags` marks people (PER), organisations (ORG), places (LOC) and other names (MISC: peoples, events, works)
in the scheme BIO: B opens an entity, I continues it, O is outside. No sentence comes from CoNLL: all are written by us
through a grammar (`data/build/ner.py` with `data/build/grammars/entities.txt`: {frames} sentence frames).

Looking words up is not enough, on purpose. A town is also a surname, a team and a part of a firm's name; firms bear the
names of people; surnames are ordinary words (frost, page, baker). A third of the names and a sixth of the frames of
running sentences do not occur in training.

## Statistics

{statistics}

## Limits

The world is small and the sentences are patterns: a model fine-tuned here knows nothing about real names. Where two
readings of a bare name are both possible the grammar has decided, and a careful reader may disagree; no annotator made
a slip, as they do in real data. Names, places and figures are invented, or common names without a person behind them.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "conll2003")
    output = parser.parse_args().output
    splits = build()
    for split, rows in splits.items():
        columns = {
            "id": [str(number) for number in range(len(rows))],
            "tokens": [row["tokens"] for row in rows],
            "ner_tags": [[CLASS_NAMES.index(tag) for tag in row["tags"]] for row in rows],
        }
        write_parquet(output / "conll2003" / f"{split}-00000-of-00001.parquet", columns, CLASS_NAMES)
    grammar = Grammar("common", "entities")
    figures = statistics(splits)
    body = CARD.format(frames=sum(len(grammar.rules[kind]) for kind in ("news", *LINES)), statistics=figures)
    write_card(output, "conll2003", {split: f"conll2003/{split}-*.parquet" for split in ROWS}, CLASS_NAMES, body)
    print(figures)


if __name__ == "__main__":
    main()
