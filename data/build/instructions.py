"""Writes data/instructions: small tasks with words, as conversations, each with a rule that tells a right answer.

    python data/build/instructions.py               writes the data set and prints its figures
    python data/build/instructions.py --show 3      prints three conversations of each kind instead

A row has `messages` (turns of user and assistant), `kind`, `rule`, and what the rule needs: `answer`, the only right
one, or `word`, which a sentence must hold. A fifth of the words are in no training row, and one of them is in every
other row. The kinds of the split `new_kinds` are in no other split.
"""

import argparse
from collections import Counter
from pathlib import Path

from grammar import Random
from tables import DATA, write_card, write_parquet
from worksheets import NUMBERS, lexicon

SEED = 120
SIZES = {"train": 300, "validation": 20, "test": 30, "new_kinds": 30}  # rows of each kind
CALLED = {
    "animal": "an animal",
    "food": "something to eat",
    "clothing": "something to wear",
    "tool": "a tool",
    "place": "a place",
    "vehicle": "a vehicle",
    "instrument": "an instrument",
}
# What is asked, in several wordings. {list} are words with spaces between them, {word} is one of them.
WORDINGS = {
    "repeat": (
        "Say the word {word} {number} times.",
        "Write {word} {number} times.",
        "Repeat the word {word} {number} times.",
    ),
    "commas": (
        "Write these words with commas: {list}",
        "Put commas between these words: {list}",
        "With commas, please: {list}",
    ),
    "list": (
        "Make a list of these words: {list}",
        "Write a list, one word on each line: {list}",
        "These words as a list, please: {list}",
    ),
    "first": (
        "Which word comes first: {list}",
        "What is the first of these words: {list}",
        "Give me only the first word: {list}",
    ),
    "last": (
        "Which word comes last: {list}",
        "What is the last of these words: {list}",
        "Give me only the last word: {list}",
    ),
    "kind": (
        "Which of these words is {called}: {list}",
        "One of these words is {called}. Which one: {list}",
        "Find the word that is {called}: {list}",
    ),
    "yes_no": (
        "Is {word} one of these words: {list}",
        "Answer yes or no. Is {word} here: {list}",
        "Do you see the word {word} here: {list}",
    ),
    "sentence": (
        "Write a sentence with the word {word}.",
        "Use the word {word} in a sentence.",
        "Write one sentence about {word}.",
    ),
    "second": ("Which word comes second: {list}", "What is the second of these words: {list}"),
    "backwards": ("Write these words backwards: {list}", "Backwards, please: {list}"),
    "without": ("Write these words without {word}: {list}", "Say these words, but leave out {word}: {list}"),
    "repeat_commas": (
        "Say the word {word} {number} times, with commas.",
        "Write {word} {number} times and put commas between.",
    ),
}
NEW_KINDS = ("second", "backwards", "without", "repeat_commas")
# A second question in the same conversation; its answer needs the words of the first.
FOLLOW_UPS = {
    "first": ("And the first one?", "Which word comes first?"),
    "last": ("And the last one?", "Which word comes last?"),
    "commas": ("Now with commas.", "Write them with commas."),
    "list": ("Now as a list.", "Make a list of them."),
}
SENTENCES = (
    "The {word} is here.",
    "I like the {word}.",
    "This is about the {word}.",
    "We saw the {word} near the old bridge.",
    "My aunt talked about the {word} all evening.",
    "Nobody in our town knew anything about the {word}.",
    "After supper the children asked their teacher about the {word}.",
)
FOLLOW_UP = "follow_up"
KINDS = (*(kind for kind in WORDINGS if kind not in NEW_KINDS), FOLLOW_UP)


def held_out(words_of: dict[str, list[str]]) -> set[str]:
    """Every fifth word of each list."""
    return {word for words in words_of.values() for word in words[4::5]}


class Asking:
    """Writes rows from words that may be used; with `new` words, each row has one of them."""

    def __init__(self, rng: Random, words_of: dict[str, list[str]], new: set[str], training: bool):
        self.rng, self.training = rng, training
        self.kind_of = {word: kind for kind, words in words_of.items() for word in words}
        self.old = [word for word in self.kind_of if word not in new]
        self.new = [word for word in self.kind_of if word in new]

    def words(self, count: int) -> list[str]:
        """Different words, in random order."""
        chosen = [self.rng.pick(self.old if self.training else self.new)]
        while len(chosen) < count:
            word = self.rng.pick(self.old if self.training else self.old + self.new)
            if word not in chosen:
                chosen.append(word)
        return self.rng.shuffled(chosen)

    def one_of_a_kind(self) -> tuple[list[str], str]:
        """Words of which exactly one is of the kind that is asked for."""
        while True:
            words = self.words(3)
            counts = Counter(self.kind_of[word] for word in words)
            single = [word for word in words if counts[self.kind_of[word]] == 1 and self.kind_of[word] in CALLED]
            if single:
                return words, self.rng.pick(single)

    def answer(self, kind: str, words: list[str], word: str, number: str) -> str:
        """The only right answer; of a sentence, one of many."""
        if kind == "sentence":
            return self.rng.pick(SENTENCES).format(word=word)
        return {
            "repeat": " ".join([word] * NUMBERS[number]),
            "repeat_commas": ", ".join([word] * NUMBERS[number]),
            "commas": ", ".join(words),
            "list": "\n".join(f"- {one}" for one in words),
            "first": words[0],
            "second": words[1],
            "last": words[-1],
            "kind": word,
            "yes_no": "yes" if word in words else "no",
            "backwards": " ".join(reversed(words)),
            "without": " ".join(one for one in words if one != word),
        }[kind]

    def exchange(self, kind: str) -> tuple[str, str, list[str], str]:
        """A question, its answer, and the words that it is about."""
        words = self.words(3)
        word = self.rng.pick(words)
        if kind == "kind":
            words, word = self.one_of_a_kind()
        elif kind == "yes_no" and self.rng.random() < 0.5:
            word, *words = self.words(4)
        elif kind in ("repeat", "repeat_commas", "sentence"):
            (word,) = self.words(1)
        number = self.rng.pick(list(NUMBERS))
        wording = self.rng.pick(WORDINGS[kind])
        asked = wording.format(
            list=" ".join(words), word=word, number=number, called=CALLED.get(self.kind_of[word], "")
        )
        return asked, self.answer(kind, words, word, number), words, word

    def row(self, kind: str) -> dict:
        turns, rule_kind = [], kind
        if kind == FOLLOW_UP:
            before, rule_kind = self.rng.shuffled(FOLLOW_UPS)[:2]
            asked, answer, words, word = self.exchange(before)
            turns = [("user", asked), ("assistant", answer)]
            asked, answer = self.rng.pick(FOLLOW_UPS[rule_kind]), self.answer(rule_kind, words, word, "two")
        else:
            asked, answer, words, word = self.exchange(kind)
        turns += [("user", asked), ("assistant", answer)]
        free = kind == "sentence"
        return {
            "messages": [{"role": role, "content": content} for role, content in turns],
            "kind": kind,
            "rule": "sentence" if free else "exact",
            "answer": "" if free else answer,
            "word": word if free else "",
        }


def build() -> dict[str, list[dict]]:
    """Returns the rows of each split, no question twice."""
    rng, words_of, seen, splits = Random(SEED), lexicon(), set(), {}
    new = held_out(words_of)
    for split, count in SIZES.items():
        asking, rows = Asking(rng, words_of, new, training=split == "train"), []
        for kind in NEW_KINDS if split == "new_kinds" else KINDS:
            have = 0
            while have < count:
                row = asking.row(kind)
                asked = " / ".join(turn["content"] for turn in row["messages"][:-1])
                if asked not in seen:
                    seen.add(asked)
                    rows.append(row)
                    have += 1
        splits[split] = rng.shuffled(rows)
    return splits


def statistics(splits: dict[str, list[dict]]) -> dict[str, str]:
    rows = [row for split in splits.values() for row in split]
    words = [len(" ".join(turn["content"] for turn in row["messages"]).split()) for row in rows]
    answers = {kind: Counter(row["answer"] for row in splits["test"] if row["kind"] == kind) for kind in KINDS}
    frequent = sum(
        answers[row["kind"]].most_common(1)[0][0] == row["answer"] for row in splits["test"] if row["rule"] == "exact"
    )
    return {
        "conversations": ", ".join(f"{split} {len(some)}" for split, some in splits.items()),
        "kinds": f"{', '.join(KINDS)}; only in new_kinds: {', '.join(NEW_KINDS)}",
        "words a conversation": f"{min(words)} to {max(words)}, mean {sum(words) / len(words):.1f}",
        "test answers that are the most frequent one of their kind": f"{frequent / len(splits['test']):.1%}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "instructions")
    parser.add_argument("--show", type=int, metavar="N", help="only print N conversations of each kind")
    arguments = parser.parse_args()
    splits = build()
    if arguments.show:
        for kind in (*KINDS, *NEW_KINDS):
            split = "new_kinds" if kind in NEW_KINDS else "train"
            for row in [row for row in splits[split] if row["kind"] == kind][: arguments.show]:
                print(f"[{kind}]", *(f"{turn['role']}: {turn['content']!r}" for turn in row["messages"]), sep="\n   ")
        return
    files = {}
    for split, rows in splits.items():
        files[split] = f"data/{split}-00000-of-00001.parquet"
        write_parquet(arguments.output / files[split], {name: [row[name] for row in rows] for name in rows[0]})
    shown = statistics(splits)
    table = "\n".join(f"- {name}: {value}" for name, value in shown.items())
    write_card(arguments.output, "default", files, None, CARD.format(statistics=table))
    print(table)


CARD = """# Instructions of our own

Conversations in the columns of the Hub's sets for instructing a model: `messages`, a list of turns with `role` and
`content`. All are written by us, by `data/build/instructions.py`, from the words of
`data/build/grammars/instructions.txt`. A few have two questions.

Each row says how a program tells a right answer. `rule` is `exact` (the answer must be `answer`, to the letter) or
`sentence` (one sentence that holds `word`, begins with a capital and ends with a full stop). `kind` names the task.

A fifth of the words are in no training row, and every row of the other splits has at least one of them. The split
`new_kinds` has tasks that are in no other split. What they need is on the pages of the workbook that
`data/models/llama` has read, but never as an instruction.

## Statistics

{statistics}

## Limits

Tasks with words, in a few wordings, from a list of 166 nouns. A model that does them all can do nothing else: it knows
no facts, refuses nothing and holds no conversation. It shows how instructing works, and not what a useful set of
instructions has to hold.
"""


if __name__ == "__main__":
    main()
