"""Writes data/documents.csv: short office documents with the class that each belongs to.

    python data/build/documents.py                    writes data/documents.csv and prints its statistics
    python data/build/documents.py --output FILE      writes somewhere else

The class is the purpose of a document; its subject is drawn without regard to the class, so that a bill from a doctor
is financial and a letter about a lease is personal. The classes are unbalanced on purpose.
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

from grammar import Grammar, Random, Writer
from tables import DATA

SEED = 40
ROWS = {"personal": 200, "news": 160, "financial": 130, "legal": 100, "technical": 80, "medical": 50}
WORDS = range(25, 121)


def build() -> list[tuple[str, str]]:
    """Returns (text, label) rows in shuffled order, no text twice."""
    grammar, rng = Grammar("common", "documents"), Random(SEED)
    rows, seen = [], set()
    for label, count in ROWS.items():
        written = 0
        while written < count:
            text = Writer(grammar, rng).write(f"{{facts}}{{{label}}}")
            if len(text.split()) in WORDS and text not in seen:
                seen.add(text)
                rows.append((text, label))
                written += 1
    return rng.shuffled(rows)


def macro_f1(rows: list[tuple[str, str]]) -> float:
    """Macro-F1 of TF-IDF and logistic regression, mean of a stratified 5-fold cross-validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    texts, labels = zip(*rows, strict=True)
    return float(cross_val_score(model, texts, labels, cv=folds, scoring="f1_macro").mean())


def statistics(rows: list[tuple[str, str]]) -> str:
    """A Markdown list of the figures of the data set."""
    sizes = [len(text.split()) for text, _ in rows]
    classes = ", ".join(f"{label} {count}" for label, count in Counter(label for _, label in rows).most_common())
    distinct = len({word.strip(".,:;?!“”").lower() for text, _ in rows for word in text.split()})
    return f"""\
- documents: {len(rows)}; {classes}
- words a document: {min(sizes)} to {max(sizes)}, mean {sum(sizes) / len(sizes):.1f}; distinct words: {distinct}
- macro-F1 of TF-IDF and logistic regression, 5 stratified folds: {macro_f1(rows):.2f}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "documents.csv")
    output = parser.parse_args().output
    rows = build()
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    print(statistics(rows))


if __name__ == "__main__":
    main()
