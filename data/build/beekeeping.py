"""Writes data/beekeeping: short notes of beekeepers, for lesson 10. Most have no label, a few hundred have one.

python data/build/beekeeping.py            writes the data set
python data/build/beekeeping.py --show 3   only prints some notes
"""

import argparse
import re
from pathlib import Path

from grammar import Grammar, Random, Writer
from imdb import bag_of_words_score, near_share
from tables import DATA, write_card, write_parquet

SEED = 10
CONFIG = "ledgar"  # as in the data set of the Hub that it stands in for
LABELS = ["disease", "hunger", "queen", "swarm"]
FEW = 16  # labelled notes with which lesson 10 begins
UNLABELLED = -1  # as the Hub writes it where a label is unknown
SIZES = {"unsupervised": 1200, "train": 400, "test": 400}
# What a note is made of. Only notes without a label have two signs and tell what was done: who reads many of them
# learns which signs belong together. A labelled note has one sign.
WHOLE = (
    "{open} {sign} {sign} {remedy}",
    "{open} {sign} {sign} {remedy}",
    "{open} {fact} {sign} {sign} {remedy}",
)
LABELLED = (
    "{open} {fact} {sign} {fact}",
    "{open} {sign} {fact}",
    "{open} {fact} {fact} {sign}",
    "{open} {fact} {sign}",
    "{open} {sign} {fact} {fact}",
)


def note(grammar: Grammar, rng: Random, label: int, plans: tuple[str, ...]) -> str:
    """A note whose signs and remedy are those of the label."""
    plan = re.sub("{(sign|remedy)}", rf"{{{LABELS[label]}.\1}}", rng.pick(plans))
    return Writer(grammar, rng).write(plan)


def write_notes(count: int, seed: str, plans: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """Returns `count` different notes in random order, and their labels, each equally often."""
    grammar, rng, seen = Grammar("common", "beekeeping"), Random(seed), {}
    while len(seen) < count:
        label = len(seen) % len(LABELS)
        seen.setdefault(note(grammar, rng, label, plans), label)
    texts = rng.shuffled(seen)
    return texts, [seen[text] for text in texts]


def figures(splits: dict[str, tuple[list[str], list[int]]]) -> dict[str, float]:
    """Sizes, lengths, overlap, and what a word counter scores with few labelled notes and with all."""
    train, test = splits["train"], splits["test"]
    shown = {}
    for split, (texts, _) in splits.items():
        shown[f"notes in {split}"] = len(texts)
        shown[f"words per note in {split}, mean"] = round(sum(len(text.split()) for text in texts) / len(texts), 1)
    shown["distinct words"] = len(
        {word.strip(".,:").lower() for t, _ in splits.values() for n in t for word in n.split()}
    )
    shown["share of labelled test notes near a labelled training note"] = round(near_share(test[0], train[0]), 4)
    for rows in (FEW, len(train[0])):
        score = bag_of_words_score((train[0][:rows], train[1][:rows]), test, (1, 2))
        shown[f"TF-IDF of 1 to 2 words, logistic regression, {rows} labelled notes"] = round(score, 4)
    return shown


def build() -> dict[str, tuple[list[str], list[int]]]:
    """The texts and labels of each split."""
    plans = {"unsupervised": WHOLE, "train": LABELLED, "test": LABELLED}
    return {split: write_notes(size, f"{SEED}-{split}", plans[split]) for split, size in SIZES.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "beekeeping")
    parser.add_argument("--show", type=int, metavar="N", help="only print N notes of each split")
    arguments = parser.parse_args()
    splits, files = build(), {}
    if arguments.show:
        for split, (texts, labels) in splits.items():
            for text, label in zip(texts[: arguments.show], labels, strict=False):
                print(f"[{split}, {LABELS[label]}] {text}\n")
        return
    for split, (texts, labels) in splits.items():
        files[split] = f"{CONFIG}/{split}-00000-of-00001.parquet"
        known = [UNLABELLED] * len(texts) if split == "unsupervised" else labels
        write_parquet(arguments.output / files[split], {"text": texts, "label": known}, LABELS)
    shown = figures(splits)
    table = "\n".join(f"| {name} | {value:,} |" for name, value in shown.items())
    write_card(arguments.output, CONFIG, files, LABELS, CARD + f"\n| | |\n|---|---:|\n{table}\n")
    print("\n".join(f"{name:60} {value:,}" for name, value in shown.items()))


CARD = """# beekeeping

Short notes of beekeepers: a hive, what was seen in it, and what was done. `data/openwebtext`, which the checkpoints
were pretrained on, hardly has the words of this craft. It is a field of its own, for lesson 10. All notes are written
by us: `data/build/beekeeping.py` joins sentences of `data/build/grammars/beekeeping.txt`.

It stands in for `coastalcph/lex_glue`, config `ledgar`, on the Hub: provisions of contracts. Columns and config have
those names: `text` and `label`. A split `unsupervised` without labels (-1) comes on top, as IMDB has one. The labels of
`train` and `test` say what is wrong in the hive: 0 `disease`, 1 `hunger`, 2 `queen`, 3 `swarm`.

**Made so that reading without labels can help.** A labelled note tells one of eight signs of its label, and says
nothing about what was done. A note of `unsupervised` tells two signs of one kind and a remedy, and so it shows which
signs belong together. Whoever has a few labelled notes has not seen all signs: a word counter gets the scores below.

Limits: the English is a telegram's, and the notes are made of about ninety sentence patterns, so a model learns them
from some thousand tokens; a real field needs far more. The signs and remedies are meant to be true, but sentences are
drawn at random and fit loosely together. They are language to learn from, not advice on bees.
"""


if __name__ == "__main__":
    main()
