"""Exact match and F1 of answers that were marked in a text, as SQuAD counts them: lesson 11's metric, and fine_tune.py.

Both ignore capitals, punctuation and the articles a, an, the. An answer counts with the accepted one that it fits best.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """The text without capitals, punctuation, articles and superfluous spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
    """1 if both say the same, after `normalise`."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str) -> float:
    """The harmonic mean of precision and recall, counted in words; of "no answer" it is all or nothing."""
    said, right = normalise(prediction).split(), normalise(answer).split()
    if not said or not right:
        return float(said == right)
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))


def best(score: Callable[[str, str], float], prediction: str, answers: list[str]) -> float:
    """The score with the answer that it fits best; no answer in the list means that there is none in the text."""
    return max(score(prediction, answer) for answer in [text for text in answers if normalise(text)] or [""])


def best_threshold(scores: list[float], rows: list[tuple[str, float, bool]]) -> tuple[float, float]:
    """The best total if every question above a threshold counts as unanswered, in percent, and that threshold.

    `rows` are (prediction, no-answer probability, whether there is an answer).
    """
    total = highest = sum(not has_answer for *_, has_answer in rows)  # nothing is answered
    threshold = 0.0
    for score, (prediction, probability, has_answer) in sorted(
        zip(scores, rows, strict=True), key=lambda pair: pair[1][1]
    ):
        total += score if has_answer else -bool(prediction)
        if total > highest:
            highest, threshold = total, probability
    return 100 * highest / len(rows), threshold
