"""Checks of lesson 10: domain adaptation."""

import math
from collections.abc import Callable

from helpers.checks.judging import exercise, expect


@exercise
def lesson_10_bits_per_character(function: Callable) -> str:
    """`function(loss, tokens, characters)` returns bits per character, given the mean loss in nats a token."""
    for loss, tokens, characters in ((2.0, 300, 900), (3.5, 1000, 4200), (1.2, 50, 40)):
        expected = loss * tokens / characters / math.log(2)
        hints = (
            (loss * tokens / characters, "These are nats; a bit is ln 2 nats."),
            (loss * tokens / characters * math.log(2), "A nat is more than a bit: divide by ln 2."),
            (loss / math.log(2), "These are bits a token; a text has more characters than tokens, or fewer."),
            (
                loss * characters / tokens / math.log(2),
                "All tokens together cost loss times tokens, whatever the characters.",
            ),
        )
        given = f"a loss of {loss}, {tokens} tokens, {characters} characters"
        expect(function(loss, tokens, characters), expected, given, hints)
    return "the whole text costs the same bits, however it is cut."


@exercise
def lesson_10_old_tokens(function: Callable) -> str:
    """`function(field_tokens, share)` returns how many old tokens make up that share of the whole mixture."""
    for field_tokens, share in ((900, 0.1), (3000, 0.25), (500, 0.5), (800, 0.0)):
        expected = field_tokens * share / (1 - share)
        hints = (
            (field_tokens * share, "That is the share of the field's tokens; the mixture is larger than the field."),
            (field_tokens * (1 - share), "That much of the field would be left if the mixture kept its size."),
            (field_tokens / (1 - share), "That is the whole mixture; take the field away from it."),
        )
        expect(function(field_tokens, share), expected, f"{field_tokens} tokens and a share of {share}", hints)
    return "the share is of the mixture."


@exercise
def lesson_10_choose(function: Callable) -> str:
    """`function(runs, limit)`: of the runs that lose at most `limit`, the name of the one that gains most, or ""."""
    cases = (
        ({"as it is": (1.4, 0.8), "lower rate": (0.9, 0.2), "mixed": (1.3, 0.3)}, 0.4, "mixed"),
        ({"as it is": (1.4, 0.8), "lower rate": (0.9, 0.2), "mixed": (1.3, 0.3)}, 0.3, "mixed"),
        ({"as it is": (1.4, 0.8), "lower rate": (0.9, 0.2), "mixed": (1.3, 0.3)}, 0.25, "lower rate"),
        ({"as it is": (1.4, 0.8), "one epoch": (1.1, 0.6)}, 2.0, "as it is"),
        ({"as it is": (1.4, 0.8), "one epoch": (1.1, 0.6)}, 0.1, ""),
    )
    for runs, limit, expected in cases:
        below = [name for name, (_, loss) in runs.items() if loss < limit]
        hints = (
            (
                max(below, key=lambda name: runs[name][0], default=""),
                "A run that loses exactly the limit is within it.",
            ),
            (max(runs, key=lambda name: runs[name][0]), "It gains most, and loses more than the limit."),
            (min(runs, key=lambda name: runs[name][1]), "It loses least. Filter by the limit, then ask for the gain."),
        )
        expect(function(dict(runs), limit), expected, f"the runs {runs} and a limit of {limit}", hints)
    return "first what must not be lost, then what is won."
