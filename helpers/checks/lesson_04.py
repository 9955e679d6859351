"""Checks of lesson 04: pairs, scores and early stopping."""

import math
from collections.abc import Callable

from helpers.checks.judging import Wrong, exercise, expect, show


@exercise
def lesson_04_pair_row(function: Callable) -> str:
    """`function(first_ids, second_ids, length)` returns the row that BERT reads for a pair, padded to a length."""
    for first, second, length in (([10, 11, 12], [20, 21], 10), ([10], [20, 21, 22, 23], 8), ([7, 8], [9], 6)):
        row = [2, *first, 3, *second, 3]
        types, padding = [0] * (len(first) + 2) + [1] * (len(second) + 1), [0] * (length - len(row))
        expected = {"input_ids": row, "token_type_ids": types, "attention_mask": [1] * len(row)}
        expected = {key: values + padding for key, values in expected.items()}
        answer = function(first, second, length)
        if not isinstance(answer, dict) or answer.keys() != expected.keys():
            raise Wrong(f"return a dict with the keys {', '.join(expected)}, got {show(answer)}.")
        given = f"the sentences {first} and {second} and length {length}"
        ids = (([2, *first, 3, *second, *padding, 0], "Each of the two sentences ends with [SEP]."),)
        early = [0] * (len(first) + 1) + [1] * (len(second) + 2) + padding
        late = [0] * (len(first) + 2) + [1] * (length - len(first) - 2)
        kinds = ((early, "The first [SEP] belongs to the first sentence."), (late, "Padding is of type 0."))
        masks = (([1] * length, "Padding is 0 in the mask, or the model reads it."),)
        for key, hints in zip(expected, (ids, kinds, masks), strict=True):
            expect(answer[key], expected[key], f"{given}, in {key}", hints)
    return "that is what the tokenizer makes of a pair."


@exercise
def lesson_04_accuracy_and_f1(function: Callable) -> str:
    """`function(predictions, labels)` returns accuracy and F1 of class 1."""
    cases = ([1, 1, 0, 0, 1], [1, 0, 0, 1, 1]), ([1, 1, 1, 1], [1, 1, 0, 0]), ([0, 0, 1], [1, 1, 1]), ([0, 0], [0, 0])
    for predictions, labels in cases:
        pairs = list(zip(predictions, labels, strict=True))
        right, errors = pairs.count((1, 1)), pairs.count((1, 0)) + pairs.count((0, 1))
        accuracy = 1 - errors / len(pairs)
        f1, other = (2 * hits / (2 * hits + errors) if hits + errors else 0.0 for hits in (right, pairs.count((0, 0))))
        hints = (
            ((f1, accuracy), "First the accuracy, then F1."),
            ((accuracy, other), "That is the F1 of class 0."),
            ((accuracy, accuracy), "F1 leaves out the pairs that are rightly called 0."),
            ((accuracy, right / (right + errors) if right + errors else 0.0), "The true positives count twice."),
        )
        expect(function(predictions, labels), (accuracy, f1), f"predictions {predictions} and labels {labels}", hints)
    return "F1 never looks at the pairs that are rightly called 0, which is why always 1 scores so well."


@exercise
def lesson_04_evaluations_seen(function: Callable) -> str:
    """`function(eval_losses, patience)` says after how many evaluations early stopping ends a run."""
    losses = [0.7, 0.6, 0.65, 0.55, 0.56, 0.57, 0.5]
    for eval_losses, patience in ((losses, 1), (losses, 2), (losses, 3), ([0.6, 0.6, 0.6], 2), ([0.9, 0.8, 0.7], 1)):
        best, bad, seen, since, others = math.inf, 0, len(eval_losses), 0, []
        for number, loss in enumerate(eval_losses, 1):
            best, bad = (loss, 0) if loss < best else (best, bad + 1)
            if bad == patience:
                seen = number
                break
        for number, loss in enumerate(eval_losses, 1):  # the usual mistakes, in one pass
            since += number > 1 and loss >= eval_losses[number - 2]
            others += [number] if since == patience else []
        hints = (
            (seen - patience, "That is the best one; the run goes on until the patience is over."),
            (seen + 1, "The callback stops at once when the patience is over."),
            (others[0] if others else -1, "A loss below the best so far resets the count."),
        )
        expect(function(eval_losses, patience), seen, f"losses {eval_losses} and a patience of {patience}", hints)
    return "it stops that many evaluations after the best one, and keeps the best only if it was told to."


@exercise
def lesson_04_linear_rate(function: Callable) -> str:
    """`function(step, learning_rate, warmup_steps, total_steps)` returns the rate of the linear schedule."""
    for step, rate, warmup, total in ((0, 1e-3, 10, 100), (5, 1e-3, 10, 100), (55, 2e-4, 10, 100), (30, 1e-3, 0, 90)):
        down = rate * (total - step) / (total - warmup)
        hints = (
            (rate * (1 - step / total), "That goes down from the first step on, not from the end of the warm-up."),
            (rate * (step + 1) / max(1, warmup), "The first step is number 0, with a rate of 0."),
            (down, "During the warm-up the line goes up."),
        )
        given = f"step {step} of {total} with {warmup} of warm-up and a rate of {rate:g}"
        expect(function(step, rate, warmup, total), rate * step / warmup if step < warmup else down, given, hints)
    return "up, then down, and the rate that you chose is reached in a single step."
