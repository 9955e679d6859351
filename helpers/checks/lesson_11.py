"""Checks of lesson 11: question answering."""

from collections import Counter
from collections.abc import Callable

from helpers.checks.judging import exercise, expect

# "who sang?" and "so Ada Hill sang." as one row of tokens
OFFSETS = [(0, 0), (0, 3), (4, 8), (8, 9), (0, 0), (0, 2), (3, 6), (7, 9), (9, 11), (12, 16), (16, 17), (0, 0)]
SEQUENCES = [None, 0, 0, 0, None, 1, 1, 1, 1, 1, 1, None]


@exercise
def lesson_11_answer_tokens(function: Callable) -> str:
    """`function(offsets, sequence_ids, start, end)` gives the first and the last token of an answer, or (0, 0)."""
    whole = list(zip(OFFSETS, SEQUENCES, strict=True))
    for row, start, end, right in (
        (whole, 3, 11, (6, 8)),  # Ada Hill
        (whole, 0, 2, (5, 5)),  # so
        (whole, 12, 16, (9, 9)),
        (whole[:8] + whole[-1:], 3, 11, (0, 0)),  # the window ends within the answer
        (whole[:5] + whole[7:], 3, 11, (0, 0)),  # or begins within it
        (whole[:5] + whole[9:], 0, 2, (0, 0)),  # or later
    ):
        offsets, sequences = (list(part) for part in zip(*row, strict=True))
        touched = [n for n, (a, b) in enumerate(offsets) if a < end and b > start]
        own = [n for n in touched if sequences[n] == 1]
        hints = (
            ((touched[0], touched[-1]) if touched else right, "Only tokens with the sequence id 1 are in the context."),
            ((own[0], own[-1]) if own else right, "If a part of the answer is outside of this window, return (0, 0)."),
            ((right[0], right[1] + 1), "The last token itself, not the one behind it."),
            ((0, 0), "The answer is whole in this window. Do tokens of the question disturb?"),
        )
        hints = [(value, hint) for value, hint in hints if value != right]
        expect(function(offsets, sequences, start, end), right, f"the characters {start} to {end} of {offsets}", hints)
    return "characters of the context, and only an answer that is whole."


@exercise
def lesson_11_best_ends(function: Callable) -> str:
    """`function(start_logits, end_logits, longest)` gives the best start and end that make an answer."""
    for starts, ends, longest in (
        ([0.0, 5.0, 1.0, 0.0], [0.0, 1.0, 4.0, 0.0], 4),
        ([1.0, 0.0, 6.0, 0.0], [0.0, 5.0, 1.0, 2.0], 4),  # the two best logits are the wrong way round
        ([4.0, 0.0, 0.0, 3.0, 0.0], [0.0, 1.0, 0.0, 0.0, 4.0], 3),  # and here too far from each other
        ([4.0, 0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 4.0, 2.0], 3),  # too far by one
        ([4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], 3),  # just short enough
        ([0.0, 3.0, 0.0], [0.0, 3.0, 0.0], 1),  # one token
    ):
        places = range(len(starts))
        pairs = {(s, e): starts[s] + ends[e] for s in places for e in places}
        ordered = {pair: score for pair, score in pairs.items() if pair[0] <= pair[1]}
        right = max((pair for pair in ordered if pair[1] - pair[0] < longest), key=ordered.get)
        loose = max(pairs, key=pairs.get)
        hints = (
            (
                loose if loose[1] < loose[0] else None,
                "These are the two largest logits, but the end must not come before the start.",
            ),
            (
                max(ordered, key=ordered.get),
                "This answer is too long: from start to end, both counted, `longest` tokens.",
            ),
            ((right[1], right[0]), "First the start, then the end."),
            (pairs[right], "Return the two places, not their score."),
        )
        hints = [(value, hint) for value, hint in hints if value != right]
        expect(function(list(starts), list(ends), longest), right, f"{starts}, {ends} and at most {longest}", hints)
    return "two good ends are an answer only together."


@exercise
def lesson_11_word_f1(function: Callable) -> str:
    """`function(said, right)` gives the F1 of the words of two texts."""
    for said, right in (
        ("Ada Hill", "Ada Hill"),
        ("it is Ada Hill", "ada hill"),
        ("very very old", "very old mill"),
        ("the red the red", "the the house"),
        ("no idea", "Ada Hill"),
        ("", "Ada"),
        ("", ""),
    ):
        a, b = said.lower().split(), right.lower().split()
        f1 = _f1(sum((Counter(a) & Counter(b)).values()), len(a), len(b)) if a and b else float(a == b)
        shared = sum((Counter(a) & Counter(b)).values())
        hints = (
            (0.0 if not a and not b else None, "Two empty texts are the same answer: none."),
            (_f1(sum(word in b for word in a), len(a), len(b)), "A word counts as often as both texts have it."),
            (_f1(len(set(a) & set(b)), len(set(a)), len(set(b))), "A word counts as often as both texts have it."),
            (_f1(len(set(a) & set(b)), len(a), len(b)), "A word counts as often as both texts have it."),
            (_f1(len(set(said.split()) & set(right.split())), len(a), len(b)), "Capitals do not count."),
            (shared / max(len(a), 1), "That is the precision: F1 is the harmonic mean of precision and recall."),
            (shared / max(len(b), 1), "That is the recall: F1 is the harmonic mean of precision and recall."),
        )
        expect(function(said, right), f1, f"{said!r} for {right!r}", [hint for hint in hints if hint[0] != f1])
    return "half an answer is worth half, and no answer is all or nothing."


def _f1(shared: int, of_one: int, of_other: int) -> float:
    return 2 * shared / max(of_one + of_other, 1)


def _without_sorting(rows: list[tuple[float, float, float]]) -> float:
    total = best = sum(none for *_, none in rows)
    threshold = 0.0
    for probability, answered, none in rows:
        total += answered - none
        if total > best:
            best, threshold = total, probability
    return threshold


@exercise
def lesson_11_best_threshold(function: Callable) -> str:
    """`function(probabilities, f1_answered, f1_none)` gives the threshold with the largest mean F1."""
    for probabilities, answered, none in (
        ([0.1, 0.2, 0.6, 0.9], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]),
        ([0.7, 0.2, 0.9, 0.4], [1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]),  # not in order
        ([0.5, 0.3, 0.1, 0.9], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]),  # nor here
        ([0.3, 0.1, 0.2], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
        ([0.3, 0.8], [1.0, 0.5], [0.0, 0.0]),
    ):
        levels = [0.0, *sorted(probabilities)]
        rows = list(zip(probabilities, answered, none, strict=True))
        totals = [sum(yes if p <= level else no for p, yes, no in rows) for level in levels]
        right = levels[max(range(len(levels)), key=totals.__getitem__)]
        below = [sum(yes if p < level else no for p, yes, no in rows) for level in levels]
        hints = (
            (levels[max(range(len(levels)), key=below.__getitem__)], "The question at the threshold is answered, too."),
            (max(totals) / len(rows), "Return the threshold, not the F1 that it gives."),
            (max(levels), "To answer everything costs the questions that have no answer."),
            (min(probabilities), "To answer none of them is possible, too: 0.0."),
            (_without_sorting(rows), "Go through the questions in the order of their probabilities."),
            (0.5, "Nothing says that a half is right: try each of the probabilities."),
        )
        hints = [(value, hint) for value, hint in hints if value != right]
        given = f"{probabilities}, answered {answered}, not answered {none}"
        expect(function(list(probabilities), list(answered), list(none)), right, given, hints)
    return "the threshold is where the next answer would cost more than it brings."
