"""Checks of lesson 01: the loop, memory and curves."""

import math
from collections.abc import Callable

from helpers.checks.judging import exercise, expect


@exercise
def lesson_01_optimizer_steps(function: Callable) -> str:
    """`function(num_examples, batch_size, gradient_accumulation_steps, num_train_epochs)` counts optimizer steps."""
    for examples, batch, accumulation, epochs in ((1600, 16, 1, 3), (1600, 16, 4, 2), (1601, 16, 1, 2), (100, 8, 4, 1)):
        batches = math.ceil(examples / batch)
        given = f"{examples} examples in batches of {batch}, {accumulation} to a step, {epochs} times over"
        hints = (
            (batches * epochs, "One step follows several batches when gradients accumulate."),
            (math.ceil(batches / accumulation), "An epoch is only one pass over the data."),
            (examples // (batch * accumulation) * epochs, "The last batch is smaller, but it is trained on too."),
        )
        answer = function(examples, batch, accumulation, epochs)
        expect(answer, math.ceil(batches / accumulation) * epochs, given, hints)
    return "batches round up, steps round up, and every epoch repeats them."


@exercise
def lesson_01_whole_batch_loss(function: Callable) -> str:
    """`function(losses, sizes)` returns the mean loss of all examples, given the means and sizes of the parts."""
    for losses, sizes in (([1.0, 3.0], [8, 8]), ([1.0, 3.0], [15, 1]), ([0.2, 0.4, 0.9], [13, 2, 1])):
        expected = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        hints = (
            (
                sum(losses) / len(losses),
                "That is the mean of the means: a part of one counts as much as one of fifteen.",
            ),
            (expected * sum(sizes), "That is the sum over all examples; a mean is divided by how many there are."),
            (sum(losses), "Each mean has to be weighed by its part's size."),
        )
        expect(function(losses, sizes), expected, f"losses {losses} of parts of {sizes}", hints)
    return "every example counts once, whichever part it came in."


@exercise
def lesson_01_static_bytes(function: Callable) -> str:
    """`function(parameters, trained)` counts the bytes of weights, gradients and AdamW's state in fp32."""
    for parameters, trained in ((1_000_000, 1_000_000), (124_439_808, 294_912), (1000, 0)):
        hints = (
            (16 * parameters, "Frozen parameters have no gradient and no optimizer state."),
            (4 * parameters + 4 * trained, "AdamW keeps two means for each trained parameter."),
            (4 * parameters + 8 * trained, "Gradients take 4 bytes each, and AdamW's two means 8."),
            (16 * trained, "The frozen weights take memory, too."),
        )
        given = f"{parameters:,} parameters, {trained:,} of them trained"
        expect(function(parameters, trained), 4 * parameters + 12 * trained, given, hints)
    return "4 bytes for every weight, and 12 more for each that is trained."


@exercise
def lesson_01_epoch_to_keep(function: Callable) -> str:
    """`function(history)` returns the epoch with the lowest validation loss."""
    for eval_losses in ((0.69, 0.5, 0.4), (0.69, 0.45, 0.6, 0.9), (0.69, 0.8, 0.9)):
        history = []
        for epoch, eval_loss in enumerate(eval_losses):
            history += [{"epoch": epoch - 0.5, "loss": 0.6 - 0.2 * epoch}] if epoch else []
            history += [{"epoch": float(epoch), "eval_loss": eval_loss}]
        hints = (
            (float(len(eval_losses) - 1), "That is the last epoch; has the validation loss turned before?"),
            (min(eval_losses), "That is the lowest loss; at which epoch was it?"),
        )
        given = f"validation losses {', '.join(map(str, eval_losses))}"
        expect(function(history), float(eval_losses.index(min(eval_losses))), given, hints)
    return "the lowest validation loss decides, wherever it stands."
