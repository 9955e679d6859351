"""Pages of a school workbook about words: what the tiny Llama reads besides the articles before it is instructed.

    python data/build/worksheets.py          prints three pages

A page names some words and says things about them: which comes first, what they are with commas, which are animals.
No page tells anybody to do anything, and none has turns or an answer to a question. The pages are written while the
checkpoint is trained, from a seed, and are stored nowhere.
"""

from grammar import Grammar, Random

SEED = 41
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
PLACES = ("first", "second", "third")
KINDS = {
    "animal": "animals",
    "food": "foods",
    "clothing": "clothes",
    "tool": "tools",
    "place": "places",
    "vehicle": "vehicles",
    "instrument": "instruments",
    "nature": "nature",
}


def lexicon() -> dict[str, list[str]]:
    """The words by their kind."""
    return Grammar("instructions").rules


def line(words: list[str], kinds: dict[str, str], rng: Random) -> str:
    """One true line about the words."""
    plain, word = " ".join(words), rng.pick(words)
    number = rng.pick(list(NUMBERS))
    place = rng.below(min(len(words), len(PLACES)))
    kind = kinds[word]
    copies = (
        f"Again: {plain}",
        f"Commas: {', '.join(words)}",
        "List:\n" + "\n".join(f"- {one}" for one in words),
    )
    others = (
        f"Backwards: {' '.join(reversed(words))}",
        f"{PLACES[place].capitalize()}: {words[place]}",
        f"Last: {words[-1]}",
        f"{number.capitalize()} times {word}: {' '.join([word] * NUMBERS[number])}",
        f"{KINDS[kind].capitalize()}: {', '.join(one for one in words if kinds[one] == kind)}",
        f"Without {word}: {' '.join(one for one in words if one != word)}",
        f"How many: {len(words)}",
    )
    return rng.pick(copies if rng.random() < 0.4 else others)


def page(rng: Random, words_of: dict[str, list[str]]) -> str:
    kinds = {word: kind for kind, words in words_of.items() for word in words}
    everything = list(kinds)
    parts = []
    for _ in range(3):
        chosen = []
        while len(chosen) < 2 + rng.below(4):
            word = rng.pick(everything)
            if word not in chosen:
                chosen.append(word)
        lines = [line(chosen, kinds, rng) for _ in range(4)]
        parts.append("\n".join([f"Words: {' '.join(chosen)}", *dict.fromkeys(lines)]))
    return "\n\n".join(parts)


def pages(count: int) -> list[str]:
    rng, words_of = Random(SEED), lexicon()
    return [page(rng, words_of) for _ in range(count)]


if __name__ == "__main__":
    print("\n\n-----\n\n".join(pages(3)))
