"""Checks of lesson 12: following instructions."""

from collections.abc import Callable
from itertools import accumulate

from helpers.checks.judging import Wrong, exercise, expect


@exercise
def lesson_12_answer_labels(function: Callable) -> str:
    """`function(pieces)` joins pieces (ids, whether the assistant wrote them) to ids and labels."""
    for pieces in (
        [([5, 7, 9], False), ([11, 2], True)],
        [([4], False), ([8, 6, 2], True), ([3, 4], False), ([9, 2], True)],
        [([1, 2, 3], False), ([2], True)],
    ):
        ids = [token for tokens, _ in pieces for token in tokens]
        labels = [token if answer else -100 for tokens, answer in pieces for token in tokens]
        turned = [-100 if answer else token for tokens, answer in pieces for token in tokens]
        last = len(ids) - len(pieces[-1][0])
        hints = (
            ((labels, ids), "First the ids, then the labels."),
            ((ids, ids), "What the user wrote has the label -100."),
            ((ids, turned), "Turn it round: the answers count."),
            ((ids, [label for label in labels if label != -100]), "As many labels as ids: -100 where nothing counts."),
            ((ids, [-100] * last + ids[last:]), "Each answer counts, not the last one alone."),
            ((ids, [-100, *labels[:-1]]), "Do not move the labels: the model does that itself."),
        )
        answer = function(pieces)
        answer = tuple(answer.values()) if isinstance(answer, dict) else answer
        expect(answer, (ids, labels), f"the pieces {pieces}", hints)
    return "each answer counts, its end too, and nothing else."


@exercise
def lesson_12_packed(function: Callable) -> str:
    """`function(lengths)` returns the positions of packed conversations, and which token may see which."""
    for lengths in ([2, 3], [1, 2, 2], [4]):
        owners = [number for number, length in enumerate(lengths) for _ in range(length)]
        places = range(len(owners))
        starts = list(accumulate(lengths, initial=0))
        positions = [place - starts[owner] for place, owner in zip(places, owners, strict=True)]
        mask = [[owners[a] == owners[b] and b <= a for b in places] for a in places]
        given = f"lengths {lengths}"
        answer = function(lengths)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong(f"for {given}, return two things: the positions and the mask.")
        found, seen = answer
        hints = (
            (list(places), "Positions begin at 0 again with each conversation."),
            ([position + 1 for position in positions], "The first position is 0."),
        )
        expect(found, positions, f"{given}, the positions", hints)
        seen = [[bool(cell) for cell in row] for row in (seen.tolist() if hasattr(seen, "tolist") else seen)]
        hints = (
            ([[b <= a for b in places] for a in places], "A token must not see another conversation."),
            ([[owners[a] == owners[b] for b in places] for a in places], "A token must not see a later one."),
            ([[owners[a] == owners[b] and b < a for b in places] for a in places], "A token sees itself."),
            ([[mask[b][a] for b in places] for a in places], "The row looks, the column is looked at."),
        )
        expect(seen, mask, f"{given}, the mask", hints)
    return "each conversation is alone in its block, from position 0 on."


@exercise
def lesson_12_is_list(function: Callable) -> str:
    """`function(answer, words)` says whether the answer is a list of exactly these words, a line each behind "- "."""
    words = ["river", "owl", "spoon"]
    right = "- river\n- owl\n- spoon"
    for answer, expected, hint in (
        (right, True, "Each word on a line of its own, behind `- `."),
        (right + "\n", True, "Space at the end of the whole answer is forgiven."),
        ("- river\n- owl", False, "A word is missing."),
        ("- owl\n- river\n- spoon", False, "The order is another one."),
        (right + "\n- cake", False, "There is a word too many."),
        ("river, owl, spoon", False, "The words are right, and it is no list."),
        ("Here is a list:\n" + right, False, "Nothing else may be said."),
        ("- river - owl - spoon", False, "Each word needs a line of its own."),
    ):
        said = function(answer, words)
        if not isinstance(said, bool):
            raise Wrong(f"for the answer {answer!r}, return True or False, not {said!r}.")
        expect(said, expected, f"the answer {answer!r} and the words {words}", ((not expected, hint),))
    return "a program can check it, and so can anybody who reads the program."
