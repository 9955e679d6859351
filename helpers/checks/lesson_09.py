"""Checks of lesson 09: LoRA and QLoRA."""

from collections.abc import Callable

from helpers.checks.judging import Wrong, exercise, expect


@exercise
def lesson_09_lora_parameters(function: Callable) -> str:
    """`function(shapes, rank)` counts what LoRA trains beside linear layers of these (inputs, outputs)."""
    for shapes, rank in (([(128, 384)] * 3, 8), ([(768, 2304)], 1), ([(64, 64), (64, 256), (256, 64)], 4)):
        sides = [sum(shape) for shape in shapes]
        hints = (
            (sum(inputs * outputs for inputs, outputs in shapes), "That is W, which stays frozen."),
            (rank * sum(inputs for inputs, _ in shapes), "That is A alone; B turns rank features into the outputs."),
            (rank * sum(outputs for _, outputs in shapes), "That is B alone; A turns the inputs into rank features."),
            (rank * sides[0], "That is the first layer alone."),
            (rank**2 * sum(sides), "A and B have the rank on one side only."),
        )
        expect(function(shapes, rank), rank * sum(sides), f"layers {shapes} and rank {rank}", hints)
    return "the number grows with the sides of a matrix, not with its area, and in step with the rank."


@exercise
def lesson_09_merged_weight(function: Callable) -> str:
    """`function(W, A, B, alpha)` returns the weight of the merged layer; shapes as in nn.Linear."""
    import torch

    for outputs, inputs, rank, alpha in ((4, 6, 2, 4), (5, 3, 1, 2), (3, 3, 3, 2)):
        generator = torch.Generator().manual_seed(outputs)
        W, A, B = (torch.randn(s, generator=generator) for s in ((outputs, inputs), (rank, inputs), (outputs, rank)))
        given = f"W of {outputs} x {inputs}, A of {rank} x {inputs}, B of {outputs} x {rank} and alpha {alpha}"
        answer = function(W, A, B, alpha)
        hints = (
            (alpha / rank * B @ A, "That is the change alone; W is still there."),
            (W + B @ A, "The change is scaled by alpha / r."),
            (W + alpha * B @ A, "alpha is divided by the rank, which A and B know."),
            (W - alpha / rank * B @ A, "The change is added."),
        )
        if hasattr(answer, "shape") and answer.shape != W.shape:
            raise Wrong(f"for {given}, the result is of shape {tuple(answer.shape)}, and W's is {tuple(W.shape)}.")
        if not all(map(torch.equal, function.arguments_after, (W, A, B))):
            raise Wrong("W, A or B was changed in place; return a new tensor.")
        right = W + alpha / rank * B @ A
        if not (hasattr(answer, "shape") and torch.allclose(answer, right, atol=1e-5)):
            wrong = [hint for w, hint in hints if hasattr(answer, "shape") and torch.allclose(answer, w, atol=1e-5)]
            raise Wrong(f"for {given}, that is not the merged weight. {' '.join(wrong[:1])}".rstrip())
    return "one matrix as before: a merged model is as fast as the one you started from."


@exercise
def lesson_09_nf4_bytes(function: Callable) -> str:
    """`function(weights, double_quantisation)` counts the bytes of so many weights in NF4."""
    second_scales = "Blocks of 256 scales have a scale of their own, of 4 bytes."
    for weights, double in ((16384, False), (16384, True), (65536, True), (4194304, False), (4194304, True)):
        half, scales = weights // 2, weights // 64
        right = half + scales + 4 * scales // 256 if double else half + 4 * scales
        hints = (
            (half, "That is without the scales, one for each block of 64 weights."),
            (weights, "Two weights share a byte."),
            (half + 4 * scales, "With double quantisation the scales themselves take one byte each."),
            (half + scales, second_scales if double else "A scale takes 4 bytes."),
            (half + scales + scales // 256, "A scale of scales takes 4 bytes."),
            (half + scales + 4 * scales // 256, "Without double quantisation each scale takes 4 bytes."),
        )
        given = f"{weights} weights {'with' if double else 'without'} double quantisation"
        expect(function(weights, double), right, given, hints)
    return "4.5 bits a weight, or 4.127 with double quantisation, and never quite 4."
