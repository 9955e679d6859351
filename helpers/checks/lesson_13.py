"""Checks of lesson 13: preferences and rewards."""

import math
import statistics
from collections.abc import Callable

from helpers.checks.judging import Wrong, exercise, expect


@exercise
def lesson_13_margins(function: Callable) -> str:
    """`function(chosen, rejected, beta)` returns the share of pairs that are ordered right, and the mean margin."""
    for chosen, rejected, beta in (
        ([1.0, -2.0, 0.5], [-1.0, -4.0, 1.5], 0.1),
        ([-3.0, -1.0], [-8.0, 2.0], 0.5),
        ([0.0, 4.0], [0.0, 1.0], 0.2),  # not ordered at all is not ordered right
    ):
        gaps = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
        share = sum(gap > 0 for gap in gaps) / len(gaps)
        margin = beta * sum(gaps) / len(gaps)
        hints = (
            ((share, margin / beta), "A margin is beta times the difference."),
            ((sum(gap >= 0 for gap in gaps) / len(gaps), margin), "Two equal numbers are not an order."),
            ((sum(ratio > 0 for ratio in chosen) / len(gaps), margin), "Compare the two of a pair, not one with 0."),
            ((share, -margin), "Chosen minus rejected."),
            ((sum(gap > 0 for gap in gaps), margin), "A share, not a count: divide by the number of pairs."),
        )
        given = f"chosen {chosen}, rejected {rejected}, beta {beta}"
        expect(function(list(chosen), list(rejected), beta), (share, margin), given, hints)
    return "only the difference counts, so both may fall while the margin grows."


@exercise
def lesson_13_reward(function: Callable) -> str:
    """`function(named, number, known)`: 1.0 if exactly `number` different things were named, all of them known."""
    known = ["robin", "wren", "owl", "crow"]
    for named, number in (
        (["robin", "owl"], 2),
        (["robin", "robin"], 2),
        (["wren", "owl", "wren"], 2),
        (["owl", "crow", "wren"], 2),
        (["owl", "spade", "wren"], 3),
        ([], 2),
    ):
        right = len(named) == number and len(set(named)) == number and set(named) <= set(known)
        hints = (
            (right, "A number, 1.0 or 0.0, and not True or False."),
            (float(len(named) == number), "Counting alone pays for “robin, robin”, and for spades among the birds."),
            (float(len(set(named)) == number), "A thing named twice is a mistake, also if the rest is enough."),
        )
        expect(function(list(named), number, list(known)), float(right), f"{named}, of which {number} wanted", hints)
    return "whatever a reward does not ask for, a model may leave out."


@exercise
def lesson_13_advantages(function: Callable) -> str:
    """`function(rewards)` returns for each answer of a group how far it is above the mean, in standard deviations."""
    for rewards in ([1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.5, 1.0]):
        mean, spread = statistics.mean(rewards), statistics.stdev(rewards)
        centred = [reward - mean for reward in rewards]
        expected = [gap / spread if spread else 0.0 for gap in centred]
        narrow = statistics.pstdev(rewards)
        hints = (
            (rewards, "A reward says nothing before it is compared with those of the group."),
            (centred, "Divide by the standard deviation, too."),
            ([gap / narrow if narrow else 0.0 for gap in centred], "The deviation of a sample: divide by n - 1."),
            ([-gap for gap in expected], "Above the mean is more than 0."),
        )
        answer = function(list(rewards))
        if isinstance(answer, list) and any(isinstance(one, float) and math.isnan(one) for one in answer):
            raise Wrong(f"for the rewards {rewards}, {answer}. All are equal, so the deviation is 0: return zeros.")
        expect(answer, expected, f"the rewards {rewards}", hints, tolerance=1e-3)
    return "a group in which all answers are worth the same teaches nothing."


@exercise
def lesson_13_balanced(function: Callable) -> str:
    """`function(lengths)` lists the pairs to keep: of each gap as many as of its opposite, the first ones of each."""
    for lengths in (
        [(9, 5), (8, 6), (5, 9), (6, 6), (7, 3)],
        [(3, 5), (2, 9), (8, 1), (9, 2), (7, 5), (4, 4)],
        [(5, 4), (6, 2)],
    ):
        gaps = [better - worse for better, worse in lengths]
        kept = [place for place, gap in enumerate(gaps) if gaps[:place].count(gap) < gaps.count(-gap) or gap == 0]
        longer = [place for place, gap in enumerate(gaps) if gap > 0]
        shorter = [place for place, gap in enumerate(gaps) if gap < 0]
        few = min(len(longer), len(shorter))
        by_sign = longer[:few] + shorter[:few]
        same = [place for place, gap in enumerate(gaps) if gap == 0]
        in_turn = sorted(kept, key=lambda place: (gaps[place] < 0, place))
        hints = (
            ([place for place in kept if gaps[place]], "A pair of equal length teaches no length: keep it."),
            (sorted(by_sign + same), "By how much, too: one pair of +4 needs one of -4."),
            (sorted(by_sign), "By how much, too: one pair of +4 needs one of -4."),
            (longer, "These are the pairs that teach the length."),
            (in_turn, "In their order, please: sort the places."),
        )
        expect(function(list(lengths)), kept, f"the lengths {lengths}", hints)
    return "length now says nothing about which answer is better."
