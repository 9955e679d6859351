"""Checks of lesson 02: GPT-2 as a classifier."""

from collections.abc import Callable

from helpers.checks.judging import exercise, expect


@exercise
def lesson_02_padded_tokens(function: Callable) -> str:
    """`function(lengths, batch_size)` counts the tokens of batches in this order, each padded to its longest."""
    for lengths, size in (([5, 9, 2, 7, 4], 2), ([5, 9, 2, 7], 4), ([3, 3, 8], 1), ([2, 4, 5, 7, 9], 2)):
        batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
        hints = (
            (sum(lengths), "Those are the real tokens; the rectangle also holds padding."),
            (max(lengths) * len(lengths), "That pads to the longest of all; each batch has a longest of its own."),
            (sum(size * max(batch) for batch in batches), "The last batch has fewer rows."),
            (sum(len(batch) * max(batch) for batch in batches if len(batch) == size), "The last batch counts, too."),
        )
        given = f"lengths {lengths} in batches of {size}"
        expect(function(lengths, size), sum(len(batch) * max(batch) for batch in batches), given, hints)
    return "a batch costs its rows times its longest, so batches of similar length cost least."


@exercise
def lesson_02_last_real_token(function: Callable) -> str:
    """`function(attention_mask)` finds the last real token of each row, whichever side is padded."""
    import torch

    right, left = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    for mask, side in ((right, "on the right"), (left, "on the left"), ([[1, 1, 0], [0, 1, 1]], "on either side")):
        expected = [max(i for i, real in enumerate(row) if real) for row in mask]
        hints = (
            ([sum(row) for row in mask], "That counts the real tokens; positions begin at 0."),
            ([sum(row) - 1 for row in mask], "With padding on the left, the count is not the position."),
            ([len(row) - 1 for row in mask], "The last position of a row may be padding."),
            ([row.index(1) for row in mask], "Those are the first real tokens: argmax stops at the first maximum."),
        )
        given = f"the mask {mask}, padded {side}"
        expect(function(torch.tensor(mask)), expected, given, hints)
    return "the model reads the right token, wherever the padding stands."


@exercise
def lesson_02_batch_and_accumulation(function: Callable) -> str:
    """`function(batch_size, largest_that_fits)` returns per_device_train_batch_size and gradient_accumulation_steps."""
    for size, limit in ((16, 4), (12, 5), (16, 100), (32, 24), (7, 3), (8, 1)):
        best = max(part for part in range(1, min(size, limit) + 1) if size % part == 0)
        given = f"{size} reviews, of which {limit} fit"
        answer = function(size, limit)
        hints = (
            ((size // best, best), "First the batch size, then the steps."),
            ((limit, size // limit), f"Together they make {limit * (size // limit)} reviews, at the most {limit} fit."),
            ((limit, -(-size // limit)), f"{limit} times {-(-size // limit)} is not {size}."),
            ((1, size), "One at a time always fits, but fewer and larger batches are faster."),
        )
        expect(answer, (best, size // best), given, hints)
    return "the update stays the same, and memory decides only how it is cut."
