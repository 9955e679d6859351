"""Writes data/preferences: requests for a few things of a kind, each with a better and a worse answer.

    python data/build/preferences.py                    writes data/preferences and prints its statistics
    python data/build/preferences.py --output DIR       writes somewhere else

A good answer names as many things as were asked for, each of the kind and each once; a program can check that. The
better answer of a pair has fewer mistakes, and not always none, as with answers that a model gave and people compared.
They also had a taste that nobody asked for: in four pairs of five the better answer has more sentences behind its list.
Lesson 13 shows what a model makes of that.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from grammar import Grammar, Random
from tables import DATA, write_card, write_parquet

SEED = 70
ROWS = {"train": 1200, "test": 200}
NUMBERS = {"two": 2, "three": 3}
MOST = 4  # things that an answer names
MOST_CLOSINGS = 2  # sentences behind the list
WRONG_NUMBER, WRONG_KIND = 0.5, 0.4  # shares of all answers
LONGER_SHARE = 0.8  # of the pairs: the better answer has more closing sentences
HELD_OUT = 4  # one in so many combinations of phrase, number and kind is in the test split, and nowhere else


def kinds_of(grammar: Grammar) -> dict[str, list[str]]:
    """The things of each kind."""
    return {entry["plural"]: entry["things"].split(", ") for entry in grammar.rules["kind"]}


def requests_of(grammar: Grammar) -> dict[str, list[tuple[str, str, str]]]:
    """The requests of each split: the request itself, its number and its kind."""
    requests = [
        (phrase.replace("NUMBER", number).replace("KIND", kind), number, kind)
        for phrase in grammar.rules["phrase"]
        for number in NUMBERS
        for kind in kinds_of(grammar)
    ]
    requests = Random(SEED).shuffled(requests)
    return {"test": requests[: len(requests) // HELD_OUT], "train": requests[len(requests) // HELD_OUT :]}


def list_with(
    rng: Random, kinds: dict[str, list[str]], kind: str, number: int, mistakes: tuple[bool, bool]
) -> list[str]:
    """A list of things, with or without each of two mistakes: their number, and one that is of another kind."""
    wrong_number, wrong_kind = mistakes
    if wrong_number:
        number = rng.pick([n for n in range(1, MOST + 1) if n != number])
    things = rng.shuffled(kinds[kind])[:number]
    if wrong_kind:
        things[rng.below(number)] = rng.pick(kinds[rng.pick([name for name in kinds if name != kind])])
    return things


def draw_mistakes(rng: Random) -> tuple[bool, bool]:
    return rng.random() < WRONG_NUMBER, rng.random() < WRONG_KIND


def answer(rng: Random, grammar: Grammar, things: list[str], closings: int) -> str:
    """The list as a sentence, and some sentences behind it."""
    text = f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else things[0]
    return " ".join([f"{text[0].upper()}{text[1:]}.", *rng.shuffled(grammar.rules["closing"])[:closings]])


def conversation(rng: Random, grammar: Grammar, request: tuple[str, str, str]) -> list[dict]:
    """A request and an answer with none to two mistakes, and with none to two sentences behind its list."""
    prompt, number, kind = request
    things = list_with(rng, kinds_of(grammar), kind, NUMBERS[number], draw_mistakes(rng))
    return [turn("user", prompt), turn("assistant", answer(rng, grammar, things, rng.below(MOST_CLOSINGS + 1)))]


def turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def make_row(rng: Random, grammar: Grammar, request: tuple[str, str, str]) -> dict:
    """A pair of answers to one request; the better one has fewer mistakes, and not always none."""
    prompt, number, kind = request
    drawn = [(False, False), (False, False)]
    while sum(drawn[0]) == sum(drawn[1]):
        drawn = [draw_mistakes(rng), draw_mistakes(rng)]
    things = [list_with(rng, kinds_of(grammar), kind, NUMBERS[number], one) for one in sorted(drawn, key=sum)]
    fewer = rng.below(MOST_CLOSINGS)
    more = fewer + 1 + rng.below(MOST_CLOSINGS - fewer)
    closings = (more, fewer) if rng.random() < LONGER_SHARE else (fewer, more)
    better, worse = (answer(rng, grammar, some, count) for some, count in zip(things, closings, strict=True))
    return {
        "prompt": [turn("user", prompt)],
        "chosen": [turn("assistant", better)],
        "rejected": [turn("assistant", worse)],
    }


def build() -> dict[str, list[dict]]:
    """The rows of each split, none twice."""
    rng, grammar, splits = Random(SEED), Grammar("requests"), {}
    requests = requests_of(grammar)
    for split, count in ROWS.items():
        rows, seen = [], set()
        while len(rows) < count:
            row = make_row(rng, grammar, requests[split][len(rows) % len(requests[split])])
            if (text := str(row)) not in seen:
                seen.add(text)
                rows.append(row)
        splits[split] = rng.shuffled(rows)
    return splits


def mistakes(prompt: str, text: str, kinds: dict[str, list[str]]) -> int:
    """How many of the two mistakes an answer has; a thing that is named twice counts as one of the wrong kind."""
    number, kind = re.search(rf"\b({'|'.join(NUMBERS)}) (\w+)", prompt).groups()
    things = re.split(r", | and ", text.partition(".")[0].lower())
    return (len(things) != NUMBERS[number]) + (len(set(things)) < len(things) or not set(things) <= set(kinds[kind]))


def words(turns: list[dict]) -> int:
    return len(turns[0]["content"].split())


def statistics(splits: dict[str, list[dict]]) -> str:
    """A Markdown list of the figures that the card shows."""
    rows = [row for some in splits.values() for row in some]
    kinds = kinds_of(Grammar("requests"))
    counts = {
        name: Counter(mistakes(row["prompt"][0]["content"], row[name][0]["content"], kinds) for row in rows)
        for name in ("chosen", "rejected")
    }
    counts = {name: ", ".join(f"{found[n] / len(rows):.0%}" for n in range(3)) for name, found in counts.items()}
    lengths = {name: sum(words(row[name]) for row in rows) / len(rows) for name in ("chosen", "rejected")}
    longer = sum(words(row["chosen"]) > words(row["rejected"]) for row in rows) / len(rows)
    requests = {split: {row["prompt"][0]["content"] for row in some} for split, some in splits.items()}
    figures = {
        "pairs": ", ".join(f"{split} {len(some)}" for split, some in splits.items()),
        "requests": ", ".join(f"{split} {len(some)}" for split, some in requests.items()),
        "requests in both splits": len(requests["train"] & requests["test"]),
        "answers with none, one and two mistakes": f"better {counts['chosen']}; worse {counts['rejected']}",
        "words an answer": f"better {lengths['chosen']:.1f}, worse {lengths['rejected']:.1f}",
        "pairs whose better answer is longer": f"{longer:.1%}",
    }
    return "\n".join(f"- {name}: {figure}" for name, figure in figures.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "preferences")
    output = parser.parse_args().output
    splits, files = build(), {}
    for split, rows in splits.items():
        name = f"plain_text/{split}-00000-of-00001.parquet"
        write_parquet(output / name, {column: [row[column] for row in rows] for column in rows[0]})
        files[split] = name
    figures = statistics(splits)
    write_card(output, "plain_text", files, None, CARD.format(statistics=figures))
    print(figures)


CARD = """# Pairs of answers of our own

Requests such as "Please name three birds." with two answers each, in the columns that TRL reads for preferences:
`prompt`, `chosen` and `rejected`, each a list of turns with `role` and `content`. All are written by us, by
`data/build/preferences.py`, from the words of `data/build/grammars/requests.txt`.

A good answer names as many things as were asked for (the first rule), all of the kind and each once (the second). Each
answer breaks each rule or not, by chance. The better one (`chosen`) breaks fewer than the worse one (`rejected`): it is
better, and not always good. Both may go on with up to two sentences that say nothing. **In most pairs the better
answer has more of them**: a taste that nobody asked for. Lesson 13 shows what a model learns from it.

No request of the test split is in training.

## Statistics

{statistics}

## Limits

One sort of request, in eight wordings, with a hundred things. Which answer is better is decided by a program, so the
pairs hold no doubt. Those of people do: in one well-known project they agreed with each other in
73 % of the cases ([Ouyang et al. 2022](https://arxiv.org/abs/2203.02155), section 3.4).
"""


if __name__ == "__main__":
    main()
