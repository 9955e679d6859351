"""A block of the model, operation by operation, and what all blocks take together.

The operations are those of the modelling code of transformers 5, in forward order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from helpers.memory.architecture import DECODER, FIRST
from helpers.memory.attention import attend
from helpers.memory.operations import (
    FP32,
    HALF,
    Operation,
    Run,
    activate,
    dropout,
    gelu,
    layer_norm,
    linear,
    norm,
    norm_after,
    query_key_norms,
)

SHARED = "encoder output"  # kept, but not by a block: all share it


def block(run: Run) -> list[Operation]:
    """The operations of one block, in forward order."""
    return _norms_on_the_stream(run) if run.a.family.norms == "stream" else _norms_in_branches(run)


def _norms_in_branches(run: Run) -> list[Operation]:
    """Each branch normalises what it reads, or what it adds to the stream: GPT-2, Llama and most that came after."""
    e, d, f, stream, family = (
        run.activation_bytes,
        run.a.hidden_size,
        run.a.intermediate_size,
        run.residual,
        run.a.family,
    )
    before = family.norms in ("before", "both")
    before_attention = before and run.kind != FIRST
    q, kv = run.a.query_width, run.a.key_value_width
    in_projections = e * (q + 2 * kv + d) + stream
    in_mlp = e * ((2 if family.gated else 1) * f + d) + stream
    read = "norm 1 output" if before_attention else "block input"
    read_by_mlp = "norm 2 output" if before else "stream between the branches"
    return [
        *([norm(run, "norm 1")] if before_attention else []),
        *[linear(run, name, read, in_projections) for name in family.projections],
        *query_key_norms(run),
        *attend(run),
        linear(run, family.output, "attention output", e * q + run.branch_gradient + stream),
        *dropout(run, "attention mask", d),
        *norm_after(run, "norm after attention"),
        *(_cross_attention(run) if run.kind == DECODER else []),
        *([norm(run, "norm 2")] if before else []),
        *[linear(run, name, read_by_mlp, in_mlp) for name in family.inner],
        *activate(run),
        linear(run, family.outer, "mlp", e * f + run.branch_gradient + stream),
        *dropout(run, "mlp mask", d),
        *norm_after(run, "norm after the mlp"),
        Operation("sum", {}, forward=e * d + stream),
    ]


def _cross_attention(run: Run) -> list[Operation]:
    """A decoder's attention to what the encoder gave, which all decoder blocks read."""
    e, d, q, stream = run.activation_bytes, run.a.hidden_size, run.a.query_width, run.residual
    query, key, value, output = run.a.cross_linears()
    own = f" of {run.kind}"  # keeps its tensors apart from those of the block's other attention
    attention = [
        replace(step, name=step.name + own, keeps={name + own: size for name, size in step.keeps.items()})
        for step in attend(run)
    ]
    return [
        norm(run, "norm of cross attention"),
        linear(run, query, "norm of cross attention output", e * (q + d) + stream),
        # In fp32 all blocks share the encoder's output, which is counted once, with the ends
        *[linear(run, name, "encoder output", e * (2 * q + d) + stream) for name in (key, value)],
        *attention,
        linear(run, output, "attention output" + own, e * q + run.branch_gradient + stream),
        *dropout(run, "cross attention mask", d),
    ]


def _norms_on_the_stream(run: Run) -> list[Operation]:
    """The sum of stream and branch is normalised: BERT and its kin."""
    e, d, f, stream = run.activation_bytes, run.a.hidden_size, run.a.intermediate_size, run.residual
    family = run.a.family
    distilbert = run.a.model_type == "distilbert"
    # Python still holds what autograd does not: the first norm's output, and the MLP's input where that is frozen
    held_norm = stream if run.autocast or not run.full else 0
    held_mlp = 0 if run.full or distilbert else e * f
    return [
        *[linear(run, name, "norm 2 output before", e * 4 * d + stream) for name in family.projections],
        *attend(run),
        linear(run, family.output, "attention output", e * d + run.branch_gradient + stream),
        *([] if distilbert else dropout(run, "attention mask", d)),
        layer_norm(run, "norm 1"),
        linear(run, family.inner[0], "norm 1 output", e * (f + d) + stream),
        gelu(run),
        linear(run, family.outer, "mlp", e * f + run.branch_gradient + stream),
        *dropout(run, "mlp mask", d),
        layer_norm(run, "norm 2", forward=e * d + stream + held_norm + held_mlp),
    ]


def _kept(operations: list[Operation]) -> float:
    """Bytes per token that autograd keeps of these operations, each tensor once."""
    kept = {name: size for operation in operations for name, size in operation.keeps.items()}
    return sum(size for name, size in kept.items() if name != SHARED)


def _forward_peak(operations: list[Operation]) -> float:
    """Most bytes per token while a block runs forward: what is kept so far, and what is dropped again."""
    return max(_kept(operations[: n + 1]) + operation.forward for n, operation in enumerate(operations))


def _backward_peak(operations: list[Operation], tokens: int) -> float:
    """Most bytes during a block's backward pass: kept tensors, gradients in flight, and weights' gradients so far."""
    peak = weights = 0.0
    for n, operation in reversed(list(enumerate(operations))):
        weights += operation.gradient
        in_flight = tokens * (_kept(operations[: n + 1]) + operation.flow) + weights + operation.conversion
        peak = max(peak, in_flight)
    return peak


@dataclass(frozen=True)
class Block:
    """What one block takes, in bytes."""

    kept: float
    forward: float  # most while it runs forward
    backward: float  # most during its backward pass
    recomputed: float  # by checkpointing, when the block has run again, beside its input
    held: float  # beside it, until the block ends
    casts: int  # autocast's copies of its weights


@dataclass(frozen=True)
class Blocks:
    """What all blocks take, in bytes. With LoRA the first keeps less: before its adapters nothing has a gradient."""

    first: Block
    last: Block
    kept: float  # by all blocks
    casts: int  # of all blocks
    inputs: float  # of all blocks: what checkpointing keeps
    mask: float  # of attention; shared by all blocks


def blocks(run: Run) -> Blocks:
    """What the blocks of a run take."""
    kinds = run.a.layer_kinds
    runs = [replace(run, kind=kind) for kind in dict.fromkeys(kinds)]
    of_kind = {kind.kind: _one_block(kind) for kind in runs}
    first = _first_block(runs[0])
    later = [of_kind[kind] for kind in kinds[1:]]
    return Blocks(
        first=first,
        last=of_kind[kinds[-1]],
        kept=first.kept + sum(block.kept for block in later),
        casts=first.casts + sum(block.casts for block in later),
        inputs=len(kinds) * run.tokens * run.residual,
        mask=run.tokens * sum({kind.sees: kind.mask for kind in runs}.values()),
    )


def _one_block(run: Run) -> Block:
    operations = block(run)
    return _block_of(run, operations, _backward_peak(operations, run.tokens), _half_copies(run))


def _first_block(run: Run) -> Block:
    """The first block: with adapters, the operations before the first of them have no gradient and keep nothing."""
    operations = block(run)
    if run.full or run.checkpointing:
        return _one_block(run)
    start = next(n for n, operation in enumerate(operations) if operation.name in run.adapters)
    operations = [replace(operation, keeps={}) for operation in operations[:start]] + operations[start:]
    linears = run.a.block_linears(run.kind)
    skipped = sum(linears[operation.name].weights for operation in operations[:start] if operation.name in linears)
    casts = _half_copies(run) - HALF * skipped * run.autocast
    return _block_of(run, operations, _backward_peak(operations, run.tokens), casts)


def _block_of(run: Run, operations: list[Operation], backward: float, casts: int) -> Block:
    a, tokens = run.a, run.tokens
    kept, forward = tokens * _kept(operations), tokens * _forward_peak(operations)
    # Encoders' eager attention holds its fp32 probabilities until the end of the block.
    holds = run.attention == "eager" and run.autocast and run.on_gpu and not a.is_decoder and a.attention_dropout > 0
    held = tokens * a.num_attention_heads * run.length * FP32 * holds
    block_input = tokens * run.residual
    if run.checkpointing:  # each block runs forward once more, when its output's gradient is there
        forward += held
        backward = max(backward, forward + block_input)
    recomputed = (kept - block_input * _keeps_its_input(run, operations)) * run.checkpointing
    return Block(kept, forward, backward, recomputed, held, casts)


def _keeps_its_input(run: Run, operations: list[Operation]) -> bool:
    """A block's input is one of the tensors that it keeps, unless that is a copy in another precision."""
    own = {"stream": "norm 2 output before", "after": "block input"}.get(run.a.family.norms, "input of norm 1")
    copied = run.a.family.rms and run.residual_bytes == HALF
    return any(own in operation.keeps for operation in operations) and not copied


def _half_copies(run: Run) -> int:
    """Bytes of autocast's copies of one block's weights; of frozen ones only where a gradient goes through them."""
    if not run.autocast:
        return 0
    linears = run.a.block_linears(run.kind)
    adapters = sum(
        rank * (linears[name].inputs + linears[name].outputs) for name, rank in run.adapters.items() if name in linears
    )
    return HALF * (sum(layer.weights for layer in linears.values()) + adapters)
