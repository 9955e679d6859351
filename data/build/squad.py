"""Writes data/squad: short notices with questions about them, in the layout of SQuAD 2.

    python data/build/squad.py                    writes data/squad and prints its statistics
    python data/build/squad.py --output DIR       writes somewhere else

Each notice states some facts, and names other people, houses, days and prices beside them. So the kind of the question
and the words around a name decide together. A question has no answer if its fact is missing, and then there is nearly
always something that looks like one.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from grammar import Grammar, Random, Writer
from tables import DATA, write_card, write_parquet

SEED = 110
ROWS = {"train": 7200, "validation": 399, "test": 600}
KINDS = ("leader", "place", "day", "price")
FACTS = 3  # of the four kinds
OTHERS = 0.4  # how often a kind that is stated has something of the same sort beside it
MISSING_OTHERS = 0.75  # and a kind that is missing
ASKED = 3  # questions about each notice
UNANSWERABLE = 0.75  # how often one of them asks for a kind that is missing
LONG = 0.08  # share of the notices that have many sentences without a fact
NAME = re.compile(r"[A-Z][\w'-]*(?: [A-Z][\w'-]*)+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Notice:
    """One text. Values are drawn so that none of them occurs twice in it."""

    def __init__(self, grammar: Grammar, rng: Random, surnames: list[str]):
        self.grammar, self.rng, self.surnames = grammar, rng, surnames
        self.writer = Writer(grammar, rng)
        self.used: set[str] = set()

    def value(self, kind: str) -> str:
        """A new name, house, day or price, of which no word but the month occurs in the text yet."""
        rng = self.rng
        while True:
            if kind == "leader":
                value = f"{rng.pick(self.grammar.rules['person'])['name']} {rng.pick(self.surnames)}"
            elif kind == "place":
                value = f"{rng.pick(self.surnames)} {rng.pick(self.grammar.rules['house'])}"
            elif kind == "day":
                value = f"{1 + rng.below(28)} {rng.pick(self.grammar.rules['month'])}"
            else:
                value = str(3 + rng.below(96))
            words = set(value.split()) - set(self.grammar.rules["house"])
            if not words & self.used:
                self.used |= words
                return value

    def sentence(self, rule: str, value: str = "") -> str:
        text = self.writer.write(self.writer.draw(rule).replace("VALUE", value))
        return text if not value else text[0].upper() + text[1:]


def surnames(grammar: Grammar, training: bool) -> list[str]:
    """Two thirds of the names are for training, the others for validation and test."""
    names = [start + end for start in grammar.rules["start"] for end in grammar.rules["end"]]
    return [name for number, name in enumerate(names) if (number % 3 != 2) == training]


def make_notice(grammar: Grammar, rng: Random, names: list[str]) -> list[dict]:
    """The rows of one notice: its text, and questions with their answers."""
    notice = Notice(grammar, rng, names)
    kinds = rng.shuffled(KINDS)
    stated = kinds[:FACTS]
    facts = {kind: notice.value(kind) for kind in stated}
    sentences = [notice.sentence(f"{kind}.say", value) for kind, value in facts.items()]
    for kind in kinds:
        if rng.random() < (OTHERS if kind in facts else MISSING_OTHERS):
            sentences.append(notice.sentence(f"{kind}.other", notice.value(kind)))
    extra = 7 + rng.below(5) if rng.random() < LONG else 0
    sentences = rng.shuffled(sentences + [notice.sentence("plain") for _ in range(extra)])
    context = " ".join([notice.sentence("opening"), *sentences])
    asked = stated[:ASKED]
    if rng.random() < UNANSWERABLE:
        asked[-1] = kinds[-1]  # which is missing
    return [question(grammar, rng, context, kind, facts.get(kind)) for kind in rng.shuffled(asked)]


def question(grammar: Grammar, rng: Random, context: str, kind: str, answer: str | None) -> dict:
    text = [answer] if answer else []
    start = [re.search(rf"\b{answer}\b", context).start()] if answer else []
    asked = rng.pick(grammar.rules[f"{kind}.ask"])
    return {"title": kind, "context": context, "question": asked, "answers": {"text": text, "answer_start": start}}


def build() -> dict[str, list[dict]]:
    """Returns the rows of each split, no text twice."""
    grammar, rng, seen, splits = Grammar("common", "notices"), Random(SEED), set(), {}
    for split, count in ROWS.items():
        names, rows = surnames(grammar, split == "train"), []
        while len(rows) < count:
            notice = make_notice(grammar, rng, names)
            if notice[0]["context"] not in seen:
                seen.add(notice[0]["context"])
                rows += notice
        splits[split] = [{"id": f"{split}-{number}", **row} for number, row in enumerate(rows)]
    return splits


# ------------------------------------------------------------- tricks that should not work


def first_name(text: str) -> str:
    """The first two or more capitalised words in a row."""
    found = NAME.search(text)
    return found[0] if found else ""


def closest_sentence(row: dict) -> str:
    """The sentence that has most words in common with the question."""
    asked = set(re.findall(r"\w+", row["question"].lower()))
    return max(SENTENCE.split(row["context"]), key=lambda part: len(set(re.findall(r"\w+", part.lower())) & asked))


def of_the_form(row: dict) -> str:
    """The first date, number or name, as the first words of the question ask for."""
    asked = row["question"].lower()
    if "how much" in asked or "cost" in asked:
        found = re.search(r"\d+\b(?! [A-Z])", row["context"])
    else:
        found = (re.compile(r"\d+ [A-Z]\w+") if "when" in asked or "day" in asked else NAME).search(row["context"])
    return found[0] if found else ""


TRICKS = {
    "no answer": lambda row: "",
    "the first name": lambda row: first_name(row["context"]),
    "the closest sentence": closest_sentence,
    "the first name of that sentence, or its number": lambda row: name_or_number(closest_sentence(row)),
    "the first thing of the form that is asked for": of_the_form,
}


def name_or_number(sentence: str) -> str:
    """What a person would pick who looks at the form of the words alone."""
    found = re.search(r"\d+ [A-Z]\w+", sentence) or NAME.search(sentence) or re.search(r"\d+", sentence)
    return found[0] if found else ""


def f1(said: str, right: str) -> float:
    a, b = said.lower().strip(".").split(), right.lower().split()
    if not a or not b:
        return float(a == b)
    return 2 * sum((Counter(a) & Counter(b)).values()) / (len(a) + len(b))


def score(rows: list[dict], trick) -> float:
    """The mean F1 of a trick."""
    return sum(f1(trick(row), (row["answers"]["text"] or [""])[0]) for row in rows) / len(rows)


def unseen(splits: dict[str, list[dict]]) -> float:
    """Share of the names of people and houses among the answers of test that hold a word that training lacks."""
    known = {word for row in splits["train"] for word in re.findall(r"\w+", row["context"])}
    names = [row["answers"]["text"][0] for row in splits["test"] if row["answers"]["text"]]
    names = [name for name in names if NAME.fullmatch(name)]
    return sum(bool(set(name.split()) - known) for name in names) / len(names)


def statistics(splits: dict[str, list[dict]]) -> str:
    """A Markdown list of the figures that the card shows."""
    every = [row for rows in splits.values() for row in rows]
    sizes = [len(row["context"].split()) for row in every]
    none = {split: sum(not row["answers"]["text"] for row in rows) / len(rows) for split, rows in splits.items()}
    tricks = ", ".join(f"{name} {score(splits['test'], trick):.1%}" for name, trick in TRICKS.items())
    return f"""\
- questions: {", ".join(f"{split} {len(rows)}" for split, rows in splits.items())}; \
texts: {len({row["context"] for row in every})}
- words a text: {min(sizes)} to {max(sizes)}, mean {sum(sizes) / len(sizes):.1f}
- questions without an answer: {", ".join(f"{split} {share:.1%}" for split, share in none.items())}
- names of people and houses among the answers of test with a word that training lacks: {unseen(splits):.1%}
- F1 on test of: {tricks}"""


CARD = """# Questions about notices of our own, in the layout of SQuAD 2

Columns are those of `rajpurkar/squad_v2`, so a lesson runs on either. Each text is a notice of a village group; its
questions ask who leads the group, where and when it meets, and what a ticket costs. All is written by us through a
grammar (`data/build/squad.py` with `data/build/grammars/notices.txt`). `title` is the kind of question.

A trick is not enough, on purpose. Beside the facts stand other people, houses, days and prices: of last year, of
another thing, or refused. Their sentences often repeat the words of the question. Surnames and houses are put together
from a beginning and an end, and those of validation and test do not occur in training. A question without an answer is
one whose fact is missing; most of these texts hold something that looks like it.

## Statistics

{statistics}

## Limits

There are few kinds of facts in three or four wordings each, and all wordings occur in training: a model fine-tuned here
reads these notices and nothing else. Each question has one accepted answer, where SQuAD often has several. Nobody
marked an answer by hand, so there are none of the disagreements about ends that real data has. Names are invented, or
common names without a person behind them.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "squad")
    output = parser.parse_args().output
    splits = build()
    for split, rows in splits.items():
        columns = {key: [row[key] for row in rows] for key in ("id", "title", "context", "question", "answers")}
        write_parquet(output / "plain_text" / f"{split}-00000-of-00001.parquet", columns)
    figures = statistics(splits)
    patterns = {split: f"plain_text/{split}-*.parquet" for split in ROWS}
    write_card(output, "plain_text", patterns, None, CARD.format(statistics=figures))
    print(figures)


if __name__ == "__main__":
    main()
