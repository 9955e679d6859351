"""A block of the model, operation by operation, and what all blocks take together.

The operations are those of the modelling code of transformers 5, in forward order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from helpers.memory.operations import (
    FP32,
    HALF,
    Operation,
    Run,
    attend,
    dropout,
    gelu,
    layer_norm,
    linear,
    rms_norm,
)


def block(run: Run) -> list[Operation]:
    """The operations of one block, in forward order."""
    if run.a.model_type == "gpt2":
        return _gpt2_block(run)
    return _gated_block(run) if run.a.gated else _bert_block(run)


def _gpt2_block(run: Run) -> list[Operation]:
    e, d, f, stream = run.activation_bytes, run.a.hidden_size, run.a.intermediate_size, run.residual
    return [
        layer_norm(run, "norm 1"),
        linear(run, "c_attn", "norm 1 output", e * 4 * d + stream),
        *attend(run),
        linear(run, "attn.c_proj", "attention output", e * d + run.branch_gradient + stream),
        *dropout(run, "attention mask", d),
        layer_norm(run, "norm 2"),
        linear(run, "c_fc", "norm 2 output", e * (f + d) + stream),
        gelu(run),
        linear(run, "mlp.c_proj", "mlp", e * f + run.branch_gradient + stream),
        *dropout(run, "mlp mask", d),
        Operation("sum", {}, forward=e * d + stream),
    ]


def _gated_block(run: Run) -> list[Operation]:
    e, d, f, stream = run.activation_bytes, run.a.hidden_size, run.a.intermediate_size, run.residual
    q, kv = run.a.query_width, run.a.key_value_width
    in_projections = e * (q + 2 * kv + d) + stream
    in_mlp = e * (2 * f + d) + stream
    return [
        rms_norm(run, "norm 1"),
        *[linear(run, name, "norm 1 output", in_projections) for name in ("q_proj", "k_proj", "v_proj")],
        *attend(run),
        linear(run, "o_proj", "attention output", e * q + run.branch_gradient + stream),
        rms_norm(run, "norm 2"),
        *[linear(run, name, "norm 2 output", in_mlp) for name in ("gate_proj", "up_proj")],
        Operation("silu", {"gate": e * f}, 3 * e * f + stream),
        Operation("product", {"silu of gate": e * f, "up": e * f}, 3 * e * f + stream),
        linear(run, "down_proj", "mlp", e * f + run.branch_gradient + stream),
        Operation("sum", {}, forward=e * d + stream),
    ]


def _bert_block(run: Run) -> list[Operation]:
    e, d, f, stream = run.activation_bytes, run.a.hidden_size, run.a.intermediate_size, run.residual
    query, key, value, attended, inner, outer = run.a.block_linears()
    distilbert = run.a.model_type == "distilbert"
    # Python still holds what autograd does not: the first norm's output, and the MLP's input where that is frozen
    held_norm = stream if run.autocast or not run.full else 0
    held_mlp = 0 if run.full or distilbert else e * f
    return [
        *[linear(run, name, "norm 2 output before", e * 4 * d + stream) for name in (query, key, value)],
        *attend(run),
        linear(run, attended, "attention output", e * d + run.branch_gradient + stream),
        *([] if distilbert else dropout(run, "attention mask", d)),
        layer_norm(run, "norm 1"),
        linear(run, inner, "norm 1 output", e * (f + d) + stream),
        gelu(run),
        linear(run, outer, "mlp", e * f + run.branch_gradient + stream),
        *dropout(run, "mlp mask", d),
        layer_norm(run, "norm 2", forward=e * d + stream + held_norm + held_mlp),
    ]


def _kept(operations: list[Operation]) -> float:
    """Bytes per token that autograd keeps of these operations, each tensor once."""
    return sum({name: size for operation in operations for name, size in operation.keeps.items()}.values())


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
class Blocks:
    """What the blocks take, in bytes. With LoRA the first keeps less: before its adapters nothing has a gradient."""

    kept: float  # by one block
    first: float  # by the first
    backward: float  # most during one block's backward pass
    first_backward: float
    forward: float  # most while one block runs forward
    input: float  # of one block: all that checkpointing keeps
    recomputed: float  # by the block that checkpointing has run again, beside its input
    mask: float  # of attention; shared by all blocks
    held: float  # beside it, until a block ends
    casts: float  # autocast's copies of one block's weights
    first_casts: float


def blocks(run: Run) -> Blocks:
    """What the blocks of a run take."""
    a, tokens, operations = run.a, run.tokens, block(run)
    without_gradient = _operations_without_gradient(run, operations)
    first_operations = [replace(operation, keeps={}) for operation in operations[:without_gradient]]
    first_operations += operations[without_gradient:]
    kept, forward = tokens * _kept(operations), tokens * _forward_peak(operations)
    backward, first_backward = _backward_peak(operations, tokens), _backward_peak(first_operations, tokens)
    # Encoders' eager attention holds its fp32 probabilities until the end of the block.
    holds = run.attention == "eager" and run.autocast and run.on_gpu and not a.is_decoder and a.attention_dropout > 0
    held = tokens * a.num_attention_heads * run.length * FP32 * holds
    block_input = tokens * run.residual
    if run.checkpointing:  # each block runs forward once more, when its output's gradient is there
        forward += held
        backward, first_backward = (max(size, forward + block_input) for size in (backward, first_backward))
    casts = _half_copies(run)
    linears = a.block_linears()
    skipped = [linears[step.name] for step in operations[:without_gradient] if step.name in linears]
    return Blocks(
        kept=kept,
        first=tokens * _kept(first_operations),
        backward=backward,
        first_backward=first_backward,
        forward=forward,
        input=block_input,
        recomputed=(kept - block_input * _keeps_its_input(run, operations)) * run.checkpointing,
        mask=tokens * run.mask,
        held=held,
        casts=casts,
        first_casts=casts - HALF * sum(layer.weights for layer in skipped) * run.autocast,
    )


def _operations_without_gradient(run: Run, operations: list[Operation]) -> int:
    """How many operations of the first block come before its first adapter, and so keep nothing."""
    if run.full or run.checkpointing:
        return 0
    return next(n for n, operation in enumerate(operations) if operation.name in run.adapters)


def _keeps_its_input(run: Run, operations: list[Operation]) -> bool:
    """A block's input is one of the tensors that it keeps, unless that is a copy in another precision."""
    own = "input of norm 1" if run.a.is_decoder else "norm 2 output before"
    copied = run.a.gated and run.residual_bytes == HALF
    return any(own in operation.keeps for operation in operations) and not copied


def _half_copies(run: Run) -> int:
    """Bytes of autocast's copies of one block's weights; of frozen ones only where a gradient goes through them."""
    if not run.autocast:
        return 0
    linears = run.a.block_linears()
    adapters = sum(rank * (linears[name].inputs + linears[name].outputs) for name, rank in run.adapters.items())
    return HALF * (sum(layer.weights for layer in linears.values()) + adapters)
