"""Checks of lesson 03: GPT-2 from scratch."""

import math
from collections.abc import Callable

from helpers.checks.judging import exercise, expect


@exercise
def lesson_03_parameters(function: Callable) -> str:
    """`function(vocab_size, n_positions, n_embd, n_layer)` counts the parameters of a GPT-2 with a tied head."""
    for vocab, positions, d, layers in ((50257, 1024, 768, 12), (4096, 256, 128, 4), (50257, 1024, 1280, 36)):
        tables, matrices, biases, norms = (vocab + positions) * d, 12 * d * d, 9 * d, 4 * d
        expected = tables + layers * (matrices + biases + norms) + 2 * d
        hints = (
            (expected + vocab * d, "The head is the embedding table again; it counts once."),
            (expected - positions * d, "Positions have an embedding, too."),
            (expected - layers * biases, "Each matrix has a bias, as wide as its output."),
            (expected - layers * norms, "Each block has two LayerNorms, and each of those a weight and a bias."),
            (expected - 2 * d, "One more LayerNorm follows the last block."),
        )
        given = f"{vocab} tokens, {positions} positions, width {d}, {layers} layers"
        expect(function(vocab, positions, d, layers), expected, given, hints)
    return "the blocks grow with the square of the width, the tables only with the width."


@exercise
def lesson_03_position(function: Callable) -> str:
    """`function(lengths, tokens)` returns (document, offset) of the next token of a packed stream."""
    for lengths, tokens in (([5, 3, 8], 6), ([5, 3, 8], 0), ([5, 3, 8], 8), ([4, 4, 1, 6], 9), ([7, 2], 6)):
        ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        document = sum(end <= tokens for end in ends)
        offset = tokens - (ends[document - 1] if document else 0)
        strict = sum(end < tokens for end in ends)
        hints = (
            ((offset, document), "First the document, then the offset."),
            ((document + 1, offset), "The first document is number 0."),
            ((document, offset + 1), "The offset counts the tokens that are behind us: 0 at the start of a document."),
            ((strict, tokens - (ends[strict - 1] if strict else 0)), "That document is finished; the next one begins."),
            ((document, lengths[document] - offset), "That is what is left of the document."),
        )
        answer = function(list(lengths), tokens)
        answer = tuple(answer) if isinstance(answer, list) else answer
        expect(answer, (document, offset), f"lengths {lengths} and {tokens} tokens", hints)
    return "no token is trained on twice, and none is left out."


@exercise
def lesson_03_perplexity(function: Callable) -> str:
    """`function(losses, tokens)` returns the perplexity of several files, given their mean losses and sizes."""
    for losses, tokens in (([3.0, 2.0], [100, 300]), ([4.0], [50]), ([2.5, 3.5, 1.0], [10, 10, 2000])):
        pairs = list(zip(losses, tokens, strict=True))
        mean = sum(loss * count for loss, count in pairs) / sum(tokens)
        hints = (
            (mean, "That is the loss; the perplexity is its exponential."),
            (math.exp(sum(losses) / len(losses)), "A file with more tokens weighs more."),
            (
                sum(math.exp(loss) * count for loss, count in pairs) / sum(tokens),
                "That averages perplexities; average the losses, then take the exponential.",
            ),
            (
                sum(map(math.exp, losses)) / len(losses),
                "Average the losses, weighed by tokens, before the exponential.",
            ),
            (2.0**mean, "The loss is in nats, so the base is e."),
        )
        expect(function(losses, tokens), math.exp(mean), f"losses {losses} over {tokens} tokens", hints)
    return "the same as if it had been one file."
