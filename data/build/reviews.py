"""Writes data/reviews: film reviews whose label hangs on how sentences are put together, not on their words.

    python data/build/reviews.py                 writes the data set and prints its figures
    python data/build/reviews.py --show 5        prints five reviews of each label instead

Every statement of a review agrees with its label. But "the songs are dull" may be what somebody else says; it may be
granted before a "but"; it may be true of the book. The same clause serves both labels.
"""

from grammar import Grammar, Random
from imdb import ASPECTS, LABELS, POLARITY, ReviewWriter, bag_of_words_score, near_share, program

SEED = 11
# The kinds of statements and their shares; grammars/composed.txt has the sentences of each.
KINDS = {"holds": 0.42, "conceded": 0.28, "afterthought": 0.03, "compared": 0.15, "disputed": 0.12}
# In words. A long tail: most reviews are short, a few are several times as long.
SHORTEST, LONGER = 26, 140
FACT_LAST = 0.35  # the last sentence of a review is not always an opinion


class Statements:
    """Writes statements that are for a film (side 1) or against it (side 0), with aspects that take turns."""

    def __init__(self, grammar: Grammar, rng: Random, ranking: dict, kinds: dict[str, float]):
        self.writer, self.rng, self.kinds = ReviewWriter(grammar, rng, ranking), rng, kinds
        person = f"{self.writer.draw('person')['name']} {self.writer.draw('surname')}"
        self.writer.facts["lead"] = rng.pick([self.writer.draw("lead"), person])
        self.aspects: list[str] = []

    def clause(self, side: int, reportable: bool = False) -> str:
        if not self.aspects:
            self.aspects = self.rng.shuffled(ASPECTS)
        return self.writer.clause(f"{self.aspects.pop()}.{POLARITY[side]}", reportable)

    def kind(self) -> str:
        mark = self.rng.random() * sum(self.kinds.values())
        for name, share in self.kinds.items():
            mark -= share
            if mark < 0:
                return name
        return name

    def statement(self, side: int) -> str:
        kind = self.kind()
        frame = self.writer.draw(kind)
        if "(1)" in frame:
            # What somebody else says cannot be about the writer.
            frame = frame.replace("(1)", self.clause(1 - side, reportable=kind == "disputed"))
        return self.writer.say(frame.replace("(2)", self.clause(side)))

    def write(self, sentences: list[str]) -> str:
        return self.writer.write(" ".join(sentence + "." for sentence in sentences))


def lexicon() -> tuple[Grammar, dict[str, list[str]]]:
    """The grammar, and for each rule of opinions an order: a few are common, many are rare."""
    grammar, shuffle = Grammar("common", "opinion", "reviews", "composed"), Random(SEED)
    opinions = [rule for rule in grammar.rules if rule.endswith((".good", ".bad"))]
    return grammar, {rule: shuffle.shuffled(grammar.rules[rule]) for rule in opinions}


def review(statements: Statements, label: int) -> str:
    """What the film is, then statements with some facts among them, until the review is long enough."""
    rng, say = statements.rng, statements.writer.say
    length = SHORTEST + LONGER * rng.random() ** 5
    start = [say("{opening}")] if rng.random() < 0.4 else []
    start += [say("{story}")] if rng.random() < 0.1 else []
    body = [statements.statement(label) for _ in range(2)]
    while len(" ".join(start + body).split()) < length:
        if rng.random() < 0.5:
            body.append(statements.statement(label))
        else:
            body.insert(rng.below(len(body)), say("{fact}"))
    if rng.random() < FACT_LAST:
        body.append(say("{fact}"))
    return statements.write(start + body)


def write_reviews(count: int, seed: str) -> tuple[list[str], list[int]]:
    """Returns `count` different reviews and their labels, all negative ones first, as in the original."""
    grammar, ranking = lexicon()
    rng, texts, labels = Random(seed), [], []
    for label in range(len(LABELS)):
        seen = {}
        while len(seen) < count // len(LABELS):
            seen[review(Statements(grammar, rng, ranking, KINDS), label)] = None
        texts += seen
        labels += [label] * len(seen)
    return texts, labels


def figures(splits: dict[str, tuple[list[str], list[int]]]) -> dict[str, float]:
    """Sizes, lengths, overlap and the scores of word counters."""
    train, test = splits["train"][0], splits["test"][0]
    lengths = sorted(len(text.split()) for text in train + test)
    shown = {
        "reviews": len(lengths),
        "duplicates": len(lengths) - len(dict.fromkeys(train + test)),
        "words per review, mean": round(sum(lengths) / len(lengths), 1),
        "words per review, shortest": lengths[0],
        "words per review, median": lengths[len(lengths) // 2],
        "words per review, longest": lengths[-1],
        "share of test reviews near a training review": round(near_share(test, train), 4),
    }
    for longest in (1, 2, 3):
        name = f"TF-IDF of up to {longest} words in a row, logistic regression"
        shown[name] = round(bag_of_words_score(splits["train"], splits["test"], (1, longest)), 4)
    return shown


def main() -> None:
    program(__doc__, "reviews", SEED, write_reviews, figures, CARD)


CARD = """# reviews

Film reviews with the columns and label names of `stanfordnlp/imdb`: `text` and `label` (0 `neg`, 1 `pos`), sorted by
label like the original. No review was written by a cinema-goer: we wrote the phrases, and `data/build/reviews.py` joins
them by a grammar. Films, people and places are invented.

**Made so that counting words is not enough.** The same clause serves both labels: as what the writer thinks, as what
somebody else says, as granted before a "but", or as true of the book. Whoever counts words or short sequences of words
gets the scores below from all 2,400 training reviews. On real reviews the gap between counting and a fine-tuned model
is much smaller: there the words themselves tell most of it. So the gap here shows what a model can do that a counter
cannot, and not how much that is worth elsewhere.

Limits: the English is simple, the opinions come from a list of about a thousand phrases, and there is no irony. A model
that is good here knows these phrases and how they are joined, not film reviews in general.
"""


if __name__ == "__main__":
    main()
