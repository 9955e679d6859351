"""What comes before and after the blocks: the embeddings, the final norm, the head and the loss. Sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.memory.operations import FP32, HALF, Run


@dataclass(frozen=True)
class Ends:
    """What is kept before the blocks and after them, and what the head needs for a moment.

    Attributes:
        front: kept by the embeddings.
        end: kept by the final norm and the head.
        end_flow: gradients in flight in the final norm's backward pass.
        head_gradient: the gradient of the output head's table, where it has one.
        logits: the logits and what the loss makes of them; 0 without a vocabulary.
        logits_forward: the same, before the backward pass begins.
        casts: autocast's copies of the head's weights.
    """

    front: float
    end: float
    end_flow: float
    head_gradient: int
    logits: float
    logits_forward: float
    casts: int


def ends(run: Run) -> Ends:
    """What embeddings, final norm, head and loss take."""
    end, end_flow = _after_the_blocks(run)
    head_gradient = run.a.vocab_size * run.a.embedding_size * run.weight_bytes if run.generates and run.full else 0
    return Ends(
        front=run.tokens
        * (_of_the_encoder(run) if run.a.family.role == "encoder-decoder" else _before_the_blocks(run)),
        end=run.tokens * end,
        end_flow=run.tokens * end_flow,
        head_gradient=head_gradient,
        logits=_logits(run, head_gradient),
        logits_forward=_logits_forward(run),
        casts=HALF * run.a.head_weights(run.task) * run.autocast,
    )


def _before_the_blocks(run: Run) -> float:
    """Bytes per token: an encoder's norm, and dropout's mask."""
    width, mean_and_deviation = run.a.embedding_size, 2 * FP32
    norm = 0 if run.a.is_decoder else run.weight_bytes * width + mean_and_deviation
    mask = (1 if run.on_gpu else run.weight_bytes) * width if run.a.embedding_dropout else 0
    if run.full:
        return norm + mask + (run.activation_bytes * width if run.a.embeds_narrowly else 0)  # the projection's input
    # Adapters need nothing of it. But checkpointing needs a gradient at each block: PEFT asks the embeddings for one
    return norm + mask + run.residual * (not run.a.family.rms) if run.checkpointing else 0


def _of_the_encoder(run: Run) -> float:
    """Bytes per token: dropout's masks of both stacks' embeddings, the encoder's final norm, dropout and output."""
    d, stream, fp32 = run.a.hidden_size, run.residual, FP32 * run.a.hidden_size
    mask = (d if run.on_gpu else stream) if run.a.hidden_dropout else 0
    if not run.full:
        return run.residual
    normalised = stream
    return 2 * mask + fp32 + FP32 + normalised + mask + run.activation_bytes * d


def _after_the_blocks(run: Run) -> tuple[float, float]:
    """Bytes per token that are kept, and in flight in the final norm's backward pass."""
    d, e, stream, fp32 = run.a.hidden_size, run.activation_bytes, run.residual, FP32 * run.a.hidden_size
    read_by_head = d * e if run.full or not run.generates else 0  # if the head is trained
    if run.a.family.rms:
        normalised = (fp32 if run.a.family.norm == "rms in fp32" else stream) if run.full else 0
        mask = (d if run.on_gpu else stream) if run.a.family.inner_dropout and run.a.hidden_dropout else 0  # T5's
        return fp32 + normalised + FP32 + read_by_head + mask, 4 * fp32 - normalised
    if run.a.is_decoder:
        return stream + 2 * FP32 + read_by_head, 2 * stream
    if run.task == "masked-lm":  # the dense layer's input, GELU's input and output, the norm's input
        return (3 * e * d + stream, 0) if run.full else (2 * e * d, 0)
    return stream, 0


def _logits(run: Run, head_gradient: int) -> float:
    """The largest of two moments: log-softmax and two gradients, or the gradient in half precision and the head's."""
    if not run.generates:
        return 0
    widened = run.task == "causal-lm" or run.a.family.widens_logits
    in_half = run.precision == "pure-bf16" and not widened
    width, e = HALF if in_half else FP32, run.activation_bytes
    logits = run.tokens * run.a.vocab_size  # numbers
    capped = e * logits * run.a.logits_softcap  # a tanh's output
    return capped + max(3 * width * logits, (width + (e if e == HALF else 0)) * logits + head_gradient)


def _logits_forward(run: Run) -> float:
    """The logits, those in fp32, and their log-softmax; a causal model in fp32 needs no second copy."""
    if not run.generates:
        return 0
    e, capped = run.activation_bytes, run.activation_bytes * run.a.logits_softcap
    return run.tokens * run.a.vocab_size * (capped + (e if e == HALF else 0) + 2 * FP32)
