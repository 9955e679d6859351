"""Writes data/glue (config "mrpc"): pairs of sentences that do, or do not, tell the same event.

    python data/build/mrpc.py                    writes data/glue and prints its statistics
    python data/build/mrpc.py --output DIR       writes somewhere else

Both classes are made alike: draw an event of `grammars/events.txt`, two of its frames, and its facts. In an
equivalent pair both sentences state these facts. In the others one fact that both sentences state is changed in the
second one, so no length, frame or word belongs to one class alone.
"""

import argparse
from collections import Counter
from pathlib import Path

from grammar import Grammar, Random, Writer
from tables import DATA, write_card, write_parquet

SEED = 30
ROWS = {"train": 1600, "validation": 400, "test": 500}
CLASS_NAMES = ["not_equivalent", "equivalent"]
POSITIVE_SHARE = 0.67
WORDS = range(12, 29)
PEOPLE = [("p", "s"), ("q", "t")]
# What the names of facts in events.txt mean when they change, and how often each kind of change is wanted.
KINDS = {"n": "number", "m": "number", "score": "number", "turn": "opposite", "whether": "negation"}
KINDS |= dict.fromkeys(("p", "q", "a", "b", "org"), "who")
WEIGHTS = {"number": 24, "who": 30, "opposite": 70, "negation": 100, "detail": 9}


def draw_facts(grammar: Grammar, rng: Random, event: str) -> dict:
    writer = Writer(grammar, rng)
    writer.write(f"{{{event}.facts}}")
    return writer.facts


def changes(facts: dict, other: dict) -> list[tuple[str, str, dict]]:
    """All single changes of the facts, as (kind, name, changed facts), with new values taken from `other`."""
    found = []
    for name in facts:
        if name in ("s", "t", "r", "u"):  # a surname changes with its first name; who reports it is no part of an event
            continue
        together = next((pair for pair in PEOPLE if name in pair), (name,))
        changed = facts | {key: other[key] for key in together}
        if all(facts[key] != other[key] for key in together):
            found.append((KINDS.get(name, "detail"), name, changed))
    for first, second in [("a", "b"), ("p", "q"), ("s", "t")]:
        if second in facts and first != "s":
            swapped = facts | {first: facts[second], second: facts[first]}
            if first == "p":
                swapped |= {"s": facts["t"], "t": facts["s"]}
            found.append(("who", f"{first} and {second} swapped", swapped))
    return found


def make_pair(grammar: Grammar, rng: Random, event: str, equivalent: bool):
    """Returns (sentence1, sentence2, kind of change, name of the change), or None where the draw does not fit."""
    facts = draw_facts(grammar, rng, event)
    frames = rng.shuffled(grammar.rules[event])[:2]
    seeds = [rng.random(), rng.random()]

    def sentence(side: int, facts: dict) -> str:
        return Writer(grammar, Random(seeds[side]), facts).write(frames[side] + ".")

    first, second, kind, name = sentence(0, facts), sentence(1, facts), "", ""
    possible = changes(facts, draw_facts(grammar, rng, event))
    # A change counts only if both frames state the fact; otherwise it would be a detail that is merely left out.
    possible = [c for c in possible if sentence(0, c[2]) != first and sentence(1, c[2]) != second]
    kinds = [kind for kind in WEIGHTS if any(kind == c[0] for c in possible)]
    if not kinds:
        return None
    if not equivalent:
        point = rng.random() * sum(WEIGHTS[kind] for kind in kinds)
        for kind in kinds:
            point -= WEIGHTS[kind]
            if point < 0:
                break
        kind, name, changed = rng.pick([c for c in possible if c[0] == kind])
        second = sentence(1, changed)
    if any(len(text.split()) not in WORDS for text in (first, second)):
        return None
    return first, second, kind, name


def build() -> dict[str, list[dict]]:
    """Returns the rows of each split, with the kind of change that the data set itself does not hold."""
    grammar, rng = Grammar("common", "events"), Random(SEED)
    events = [name[: -len(".facts")] for name in grammar.rules if name.endswith(".facts")]
    seen, splits = set(), {}
    for split, count in ROWS.items():
        positives = round(count * POSITIVE_SHARE)
        labels = rng.shuffled([1] * positives + [0] * (count - positives))
        rows = splits[split] = []
        while len(rows) < count:
            event, label = events[len(rows) % len(events)], labels[len(rows)]
            pair = make_pair(grammar, rng, event, bool(label))
            if pair is None or pair[0] in seen or pair[1] in seen or pair[0] == pair[1]:
                continue
            seen.update(pair[:2])
            rows.append(
                {"sentence1": pair[0], "sentence2": pair[1], "label": label, "event": event, "kind": pair[2]}
                | {"change": pair[3]}
            )
        # The events came in turn.
        splits[split] = rng.shuffled(rows)
    return splits


def words(text: str) -> list[str]:
    return text.lower().replace(",", " ").replace(".", " ").replace(":", " ").replace(";", " ").split()


MEASURES = ("jaccard", "shared of shorter", "shared of longer", "length ratio", "tf-idf cosine")


def overlap_measures(splits: dict[str, list[dict]]) -> dict[str, dict[str, list[float]]]:
    """Word-overlap measures of each pair, all between 0 and 1: {measure: {split: values}}."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer().fit([row[side] for row in splits["train"] for side in ("sentence1", "sentence2")])
    measures = {name: {split: [] for split in splits} for name in MEASURES}
    for split, rows in splits.items():
        for row in rows:
            first, second = words(row["sentence1"]), words(row["sentence2"])
            a, b = set(first), set(second)
            measures["jaccard"][split].append(len(a & b) / len(a | b))
            measures["shared of shorter"][split].append(len(a & b) / min(len(a), len(b)))
            measures["shared of longer"][split].append(len(a & b) / max(len(a), len(b)))
            measures["length ratio"][split].append(min(len(first), len(second)) / max(len(first), len(second)))
        first, second = (vectorizer.transform(row[side] for row in rows) for side in ("sentence1", "sentence2"))
        measures["tf-idf cosine"][split] = first.multiply(second).sum(axis=1).A1.tolist()
    return measures


def accuracy(values: list[float], threshold: float, above: bool, labels: list[int]) -> float:
    """Accuracy of calling a pair equivalent where its value is (or, with `above` false, is not) over the threshold."""
    hits = sum(((value >= threshold) == above) == bool(label) for value, label in zip(values, labels, strict=True))
    return hits / len(labels)


def threshold_accuracy(measure: dict[str, list[float]], labels: dict[str, list[int]]) -> float:
    """Accuracy on test of the threshold and direction that are best on train."""
    candidates = [(threshold, above) for threshold in [*sorted(set(measure["train"])), 2.0] for above in (True, False)]
    best = max(candidates, key=lambda candidate: accuracy(measure["train"], *candidate, labels["train"]))
    return accuracy(measure["test"], *best, labels["test"])


def shingles(row: dict, size: int = 5) -> set:
    both = [words(row["sentence1"]), words(row["sentence2"])]
    return {tuple(text[i : i + size]) for text in both for i in range(len(text) - size + 1)}


def near_copies(splits: dict[str, list[dict]]) -> float:
    """Share of test pairs that share half of their 5-word shingles with one training pair."""
    where = {}
    for number, row in enumerate(splits["train"]):
        for shingle in shingles(row):
            where.setdefault(shingle, []).append(number)
    copies = 0
    for row in splits["test"]:
        own = shingles(row)
        hits = Counter(number for shingle in own for number in where.get(shingle, []))
        copies += bool(hits) and 2 * max(hits.values()) >= len(own)
    return copies / len(splits["test"])


def word_count_accuracy(splits: dict[str, list[dict]]) -> float:
    """Accuracy on test of TF-IDF and logistic regression on the two sentences written one after the other."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = {split: [f"{row['sentence1']} {row['sentence2']}" for row in rows] for split, rows in splits.items()}
    labels = {split: [row["label"] for row in rows] for split, rows in splits.items()}
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    return model.fit(texts["train"], labels["train"]).score(texts["test"], labels["test"])


def statistics(splits: dict[str, list[dict]]) -> str:
    """A Markdown list of the figures that the card shows."""
    labels = {split: [row["label"] for row in rows] for split, rows in splits.items()}
    sentences = [row[side] for rows in splits.values() for row in rows for side in ("sentence1", "sentence2")]
    sizes = [len(sentence.split()) for sentence in sentences]
    distinct = len({word for sentence in sentences for word in words(sentence)})
    accuracies = {name: threshold_accuracy(m, labels) for name, m in overlap_measures(splits).items()}
    kinds = Counter(row["kind"] for rows in splits.values() for row in rows if row["kind"])
    changed = ", ".join(f"{kind} {count / kinds.total():.0%}" for kind, count in kinds.most_common())
    overlap = ", ".join(f"{name} {value:.1%}" for name, value in accuracies.items())
    positive = ", ".join(f"{sum(values) / len(values):.1%}" for values in labels.values())
    return f"""\
- pairs: {", ".join(f"{split} {len(rows)}" for split, rows in splits.items())}; equivalent: {positive}
- words a sentence: {min(sizes)} to {max(sizes)}, mean {sum(sizes) / len(sizes):.1f}; distinct words: {distinct}
- what differs in the pairs that are not equivalent: {changed}
- accuracy on test of the best threshold of a word-overlap measure, chosen on train: {overlap}
- accuracy on test of TF-IDF and logistic regression on both sentences: {word_count_accuracy(splits):.1%}
- test pairs that share half of their 5-word shingles with a training pair: {near_copies(splits):.1%}"""


CARD = """# Paraphrase pairs of our own, in the layout of GLUE

Config `mrpc`: two sentences, and whether they tell the same event (`equivalent`) or not (`not_equivalent`); column
names, label names and balance are those of the Microsoft Research Paraphrase Corpus, so a lesson runs on either.
No sentence comes from that corpus: all pairs are written by us through a grammar (`data/build/mrpc.py` with
`data/build/grammars/events.txt`: {events} kinds of event in a small invented world, {frames} sentence frames).
An equivalent pair states the same facts in two frames; a small detail may be left out. In the other pairs one fact
that both sentences state differs: a number, a person or organisation, two roles exchanged, the opposite direction,
a negation, or a day, place, thing or reason.

## Statistics

{statistics}

## Limits

The world is small and the sentences are simple: a model fine-tuned here knows nothing about real paraphrases.
Every pair that is not equivalent differs in exactly one fact, which is stated in both sentences; real pairs are
also unlike because one sentence says more. Names, places and figures are invented.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "glue")
    output = parser.parse_args().output
    splits = build()
    for split, rows in splits.items():
        columns = {name: [row[name] for row in rows] for name in ("sentence1", "sentence2", "label")}
        columns["idx"] = list(range(len(rows)))
        write_parquet(output / "mrpc" / f"{split}-00000-of-00001.parquet", columns, CLASS_NAMES)
    grammar = Grammar("common", "events")
    events = [name[: -len(".facts")] for name in grammar.rules if name.endswith(".facts")]
    figures = statistics(splits)
    frames = sum(len(grammar.rules[event]) for event in events)
    body = CARD.format(events=len(events), frames=frames, statistics=figures)
    write_card(output, "mrpc", {split: f"mrpc/{split}-*.parquet" for split in ROWS}, CLASS_NAMES, body)
    print(figures)


if __name__ == "__main__":
    main()
