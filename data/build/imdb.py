"""Writes data/imdb: film reviews whose label is the verdict on the whole, not the sum of their words.

    python data/build/imdb.py                 writes the data set and prints its figures
    python data/build/imdb.py --show 5        prints five reviews of each label instead

A review weighs several aspects, each with its own polarity. Points against the verdict stand in a concession,
are refuted, or are said in passing; one or two statements decide.
"""

import argparse
import re
from pathlib import Path

from grammar import Grammar, Random, Writer
from tables import DATA, write_card, write_parquet

SEED = 7
SIZES = {"train": 2400, "test": 800}
LABELS = ["neg", "pos"]
POLARITY = ["bad", "good"]
ASPECTS = ["acting", "plot", "pacing", "music", "dialogue", "pictures", "ending", "humour", "setting", "characters"]
ASPECTS += ["effects", "direction"]
VERDICTS = ["verdict", "verdict", "reaction", "reaction", "turn", "comparison"]
FIRST_PERSON = re.compile(r"\b(I|my|mine|me|we|our|us)\b")
# How fast the use of an opinion falls with its rank in its rule: few are common, many are rare.
RANK_OFFSET = 6
# How often a statement that decides comes with a concession, contradicts somebody's verdict, or agrees with one.
CONCEDED, CONTRADICTED, SECONDED = 0.15, 0.1, 0.06
# The kinds of points and their shares: "aside" and the first halves of "contrast" and "refuted" are on the other side.
POINTS = {"contrast": 0.17, "refuted": 0.08, "confirmed": 0.08, "aside": 0.07, "plain": 0.15, "agree": 0.45}
# How often a review also says in everyday words what it thinks. Without them a model that was pretrained on real text
# finds nothing that it knows: the opinions are our own idioms.
PLAINLY = 0.6


class ReviewWriter(Writer):
    """A Writer that prefers the opinions at the head of a ranking, as a language prefers some of its words."""

    def __init__(self, grammar: Grammar, rng: Random, ranking: dict[str, list[str]]):
        super().__init__(grammar, rng)
        self.ranking = ranking

    def draw(self, rule: str):
        if rule not in self.ranking:
            return super().draw(rule)
        left = self.unused.setdefault(rule, list(self.ranking[rule]))
        weights = [1 / (RANK_OFFSET + self.ranking[rule].index(entry)) for entry in left]
        mark = self.rng.random() * sum(weights)
        position = 0
        while position < len(left) - 1 and mark >= weights[position]:
            mark -= weights[position]
            position += 1
        return left.pop(position)

    def clause(self, rule: str, reportable: bool = False) -> str:
        """An unused entry of the rule; a reportable one says nothing about the writer."""
        entry = self.draw(rule)
        while reportable and FIRST_PERSON.search(entry):
            entry = self.draw(rule)
        return entry

    def say(self, template: str) -> str:
        """Expands a template; the whole review is polished in the end."""
        return self._expand(template)


class Review:
    """Plans one review: a list of sentences, the verdict among them."""

    def __init__(self, writer: ReviewWriter, label: int):
        self.writer, self.rng, self.label = writer, writer.rng, label
        self.side, self.other = POLARITY[label], POLARITY[1 - label]
        self.aspects = self.rng.shuffled(ASPECTS)
        self.previous = "start"  # the kind of the point before
        # In words, and a long tail: most reviews are short, a few are several times as long.
        self.length = 20 + 150 * self.rng.random() ** 4

    def frame(self, kind: str, one: str, two: str = "") -> str:
        frame = self.writer.draw(kind)
        return self.writer.say(frame.replace("(1)", one).replace("(2)", two))

    def aspect(self, side: str, reportable: bool = False) -> str:
        if not self.aspects:
            self.aspects = self.rng.shuffled(ASPECTS)
        return self.writer.clause(f"{self.aspects.pop()}.{side}", reportable)

    def decisive(self) -> str:
        """A statement that leaves no doubt about the label."""
        rule = self.rng.pick(VERDICTS)
        own = self.writer.clause(f"{rule}.{self.side}")
        chance = self.rng.random()
        if chance < CONCEDED and rule != "turn":
            return self.frame("contrast", self.aspect(self.other), own)
        if chance < CONCEDED + CONTRADICTED:
            quoted = self.writer.clause(f"verdict.{self.other}")
            return self.frame("contradicted", quoted) + ". " + self.writer.say(own)
        if chance < CONCEDED + CONTRADICTED + SECONDED:
            return self.frame("seconded", self.writer.clause(f"verdict.{self.side}"))
        return self.writer.say(own)

    def point(self) -> str:
        """One or two aspects; the weight is on the side of the label, except in an aside."""
        kind = self.choose(POINTS)
        if kind == "aside" and self.previous != "agree":
            kind = "agree"  # an exception needs something to be an exception to
        joined = "joined" if self.previous == "agree" else "first"
        self.previous = "agree" if kind in ("plain", "confirmed") else kind
        if kind == "contrast":
            return self.frame("contrast", self.aspect(self.other), self.aspect(self.side))
        if kind == "refuted":
            return self.frame("refuted", self.aspect(self.other, reportable=True))
        if kind == "confirmed":
            return self.frame("confirmed", self.aspect(self.side, reportable=True))
        if kind == "aside":
            return self.frame("aside", self.aspect(self.other))
        if kind == "plain":
            return self.writer.say(self.writer.clause(f"plain.{self.side}"))
        return self.frame(joined, self.aspect(self.side))

    def choose(self, shares: dict[str, float]) -> str:
        mark = self.rng.random() * sum(shares.values())
        for name, share in shares.items():
            mark -= share
            if mark < 0:
                return name
        return name

    def write(self) -> str:
        start, points = [], []
        verdicts = [self.decisive() for _ in range(1 + (self.length > 50) + (self.length > 110))]
        if self.rng.random() < 0.7:
            start.append(self.writer.say("{opening}"))
        if self.rng.random() < 0.4:
            start.append(self.writer.say("{story}"))
        while len(points) < 2 or len(" ".join(start + points + verdicts).split()) < self.length:
            if self.rng.random() < 0.28:
                fact = self.writer.say("{fact}")
                # Most of the facts come first, some between the points.
                if self.rng.random() < 0.6:
                    start.append(fact)
                elif points:
                    points.append(fact)
                    self.previous = "fact"
            else:
                points.append(self.point())
        if self.rng.random() < PLAINLY:
            plain = self.writer.say(self.writer.clause(f"plain.{self.side}"))
            verdicts.insert(self.rng.below(len(verdicts) + 1), plain)
        place = self.rng.random()
        if place < 0.6:
            sentences = start + points + verdicts
        elif place < 0.85:
            sentences = start + verdicts + points
        else:
            half = len(points) // 2
            sentences = start + points[:half] + verdicts + points[half:]
        return self.writer.write(" ".join(sentence + "." for sentence in sentences))


def write_reviews(count: int, seed: str) -> tuple[list[str], list[int]]:
    """Returns `count` different reviews and their labels, all negative ones first, as in the original."""
    grammar = Grammar("common", "opinion", "reviews")
    shuffle = Random(SEED)
    opinions = [rule for rule in grammar.rules if rule.endswith((".good", ".bad"))]
    ranking = {rule: shuffle.shuffled(grammar.rules[rule]) for rule in opinions}
    rng = Random(seed)
    texts, labels = [], []
    for label in range(len(LABELS)):
        seen = {}
        while len(seen) < count // len(LABELS):
            writer = ReviewWriter(grammar, rng, ranking)
            person = f"{writer.draw('person')['name']} {writer.draw('surname')}"
            writer.facts["lead"] = rng.pick([writer.draw("lead"), person])
            seen[Review(writer, label).write()] = None
        texts += seen
        labels += [label] * len(seen)
    return texts, labels


def figures(splits: dict[str, tuple[list[str], list[int]]]) -> dict[str, float]:
    """Sizes, lengths, overlap and the score of a bag of words (TF-IDF with logistic regression)."""
    train, test = splits["train"][0], splits["test"][0]
    lengths = sorted(len(text.split()) for text in train + test)
    shown = {
        "reviews": len(lengths),
        "duplicates": len(lengths) - len(dict.fromkeys(train + test)),
        "words per review, mean": round(sum(lengths) / len(lengths), 1),
        "words per review, shortest": lengths[0],
        "words per review, median": lengths[len(lengths) // 2],
        "words per review, longest": lengths[-1],
        "distinct words": len({word for text in train + test for word in re.findall(r"[a-z']+", text.lower())}),
        "share of test reviews near a training review": round(near_share(test, train), 4),
    }
    for name, ngrams in [("TF-IDF and logistic regression, words", (1, 1)), ("the same, words and pairs", (1, 2))]:
        shown[name] = round(bag_of_words_score(splits["train"], splits["test"], ngrams), 4)
    return shown


def bag_of_words_score(train: tuple[list, list], test: tuple[list, list], ngrams: tuple[int, int]) -> float:
    """Accuracy on `test` of TF-IDF and logistic regression; each split is (texts, labels)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=ngrams)
    model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(train[0]), train[1])
    return model.score(vectorizer.transform(test[0]), test[1])


def near_share(texts: list[str], others: list[str]) -> float:
    """Share of texts that have half of their 5-word shingles in common with any one of the others."""
    holders: dict[tuple, list[int]] = {}
    for number, other in enumerate(others):
        for shingle in shingles(other):
            holders.setdefault(shingle, []).append(number)
    near = 0
    for text in texts:
        own, shared = shingles(text), {}
        for shingle in own:
            for number in holders.get(shingle, ()):
                shared[number] = shared.get(number, 0) + 1
        near += max(shared.values(), default=0) >= len(own) / 2
    return near / len(texts)


def shingles(text: str, size: int = 5) -> dict[tuple, None]:
    words = re.findall(r"[a-z']+", text.lower())
    return dict.fromkeys(tuple(words[i : i + size]) for i in range(len(words) - size + 1))


def program(about: str, name: str, seed: int, write, figures, card: str) -> None:
    """The program of a data set of reviews: its options, its files and its card.

    Args:
        about: what --help says.
        name: of the folder below data/.
        seed: of all that is drawn.
        write: of the number of reviews and a seed, makes texts and labels.
        figures: of all splits, makes what the card and the output show.
        card: its text, before the figures.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / name)
    parser.add_argument("--show", type=int, metavar="N", help="only print N reviews of each label")
    arguments = parser.parse_args()
    splits = {split: write(size, f"{seed}-{split}") for split, size in SIZES.items()}
    if arguments.show:
        texts, labels = splits["train"]
        for label, kind in enumerate(LABELS):
            for text in texts[labels.index(label) :][: arguments.show]:
                print(f"[{kind}] {text}\n")
        return
    files = {}
    for split, (texts, labels) in splits.items():
        files[split] = f"plain_text/{split}-00000-of-00001.parquet"
        write_parquet(arguments.output / files[split], {"text": texts, "label": labels}, LABELS)
    shown = figures(splits)
    table = "\n".join(f"| {row} | {value:,} |" for row, value in shown.items())
    write_card(arguments.output, "plain_text", files, LABELS, f"{card}\n| | |\n|---|---:|\n{table}\n")
    print("\n".join(f"{row:60} {value:,}" for row, value in shown.items()))


def main() -> None:
    program(__doc__, "imdb", SEED, write_reviews, figures, CARD)


CARD = """# imdb, reduced

Film reviews with the columns and label names of `stanfordnlp/imdb`: `text` and `label` (0 `neg`, 1 `pos`), sorted by
label like the original. No review was written by a cinema-goer: we wrote the phrases, and `data/build/imdb.py` joins
them by a grammar. Films, people and places are invented.

A review weighs several aspects, each with its own polarity; the label is the verdict on the whole. Concessions,
refuted claims and reversed expectations keep a bag of words from reading the label off.

Limits: the English is simple, the opinions come from a list of about a thousand phrases, and irony is rare. A model
that is good here knows these phrases and how they are joined, not film reviews in general.
"""


if __name__ == "__main__":
    main()
