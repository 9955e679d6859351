"""The peak memory of a training step in closed form. Needs no torch.

A step has five instants at which its memory can peak, and they do not share the same tensors. To the weights, the
optimizer's state and the batch, which are always there, they add:

    loss             all activations, and the logits three times in fp32
    last block       all activations, and the temporaries of one block's backward pass
    first block      the gradients of all later blocks, and one block
    embeddings       all gradients; those of a table that is also the output head two or three times
    optimizer step   all gradients, and the optimizer's temporaries

The peak is the largest of the five. Adding all gradients *and* all activations, as most guides do, counts two instants
at once.
"""

from __future__ import annotations

import math

from helpers.memory.adapters import Weights, weights_of
from helpers.memory.architecture import Architecture
from helpers.memory.blocks import Blocks, blocks
from helpers.memory.ends import Ends, ends
from helpers.memory.operations import Run
from helpers.memory.optimizers import Trained, optimizer_memory
from helpers.memory.report import NOT_SEEN, MemoryEstimate
from helpers.memory.settings import Settings
from helpers.memory.sharding import INSTANTS, Static, share

_TOKEN_BYTES = 8  # of a token id, a label or a number of the mask


def closed_form(a: Architecture, settings: Settings, task: str, notes: tuple[str, ...] = ()) -> MemoryEstimate:
    """The estimate for a model of one of the known families; `notes` are put before its own."""
    run = Run(a, settings, task)
    weights, of_blocks, of_ends = weights_of(a, settings, task, run.weight_bytes), blocks(run), ends(run)
    state, in_step = _optimizer(run, weights)
    static = _static(run, weights, state, of_ends)
    batch = run.tokens * _TOKEN_BYTES * ((2 if run.generates else 1) + run.padded)
    in_blocks = of_blocks.inputs + of_blocks.mask if run.checkpointing else of_blocks.kept
    activations = of_ends.front + of_ends.end + in_blocks
    instants = _instants(run, static, of_blocks, of_ends, activations, in_step)
    fixed = {"weights": static.weights, "optimizer state": static.state, "batch": batch}
    return MemoryEstimate(
        title=f"{a.name} ({weights.parameters / 1e6:,.1f} M parameters), {task}, {settings.title}",
        parameters=weights.parameters,
        trainable_parameters=weights.trainable,
        weights=math.ceil(static.weights),
        gradients=math.ceil(static.gradients),
        optimizer_state=math.ceil(static.state),
        activations=math.ceil(activations),
        batch=math.ceil(batch),
        instants={
            name: {part: math.ceil(size) for part, size in (fixed | instants[name]).items()} for name in INSTANTS
        },
        notes=(*notes, NOT_SEEN) if run.on_gpu else notes,
    )


def _optimizer(run: Run, weights: Weights) -> tuple[float, float]:
    """Bytes of the optimizer's state, and of its temporaries."""
    table = run.a.vocab_size, run.a.embedding_size
    width = run.weight_bytes if run.full else 4  # adapters are trained in fp32
    return optimizer_memory(run.settings.optim, Trained(weights.trained_shapes, table, width, run.on_gpu))


def _static(run: Run, weights: Weights, state: float, of_ends: Ends) -> Static:
    """Weights, gradients and the optimizer's state, and which of the gradients are there at which instant."""
    a, groups, r = run.a, run.a.parameter_groups(run.task), run.weight_bytes
    tied = run.generates and a.tie_word_embeddings
    table = a.vocab_size * a.embedding_size
    made_last = r * (groups["embeddings"] - (table if tied else 0)) if run.full else 0  # of the embeddings
    copies = 1 if run.autocast else 2
    alone = Static(
        weights=weights.weights,
        gradients=weights.gradients,
        state=state,
        gradients_before_first_block=weights.gradients - made_last - weights.block_gradients,
        tied_duplicates=copies * of_ends.head_gradient if tied else 0,
        gathered=dict.fromkeys(INSTANTS, 0),
    )
    return share(
        alone,
        run.settings.sharding,
        run.settings.num_gpus,
        blocks=a.num_hidden_layers,
        block=r * groups["block"],
        head=of_ends.head_gradient,
        full=run.full,
    )


def _forward_temporaries(run: Run, of_blocks: Blocks, of_ends: Ends) -> float:
    """Most bytes at the end of the forward pass that are dropped again, where no logits are larger."""
    d, e = run.a.hidden_size, run.activation_bytes
    branch = e * d if run.a.hidden_dropout or not run.a.is_decoder else 0
    between_blocks = run.tokens * (2 * run.residual + branch) + of_blocks.last.held
    between_blocks += of_blocks.mask * (not run.checkpointing)
    return max(between_blocks, of_blocks.last.forward - of_blocks.last.kept - of_ends.end)


def _at_the_loss(run: Run, of_blocks: Blocks, of_ends: Ends) -> tuple[float, float]:
    """Bytes of half-precision weights and of temporaries: before the backward pass, or as it begins."""
    all_casts = of_blocks.casts + of_ends.casts
    temporaries = of_ends.logits or _forward_temporaries(run, of_blocks, of_ends)
    if not run.checkpointing:
        return all_casts, temporaries
    # Autocast keeps its copies of trained weights until the forward pass ends, whatever the graph keeps of them
    before = all_casts if run.autocast and run.full else of_ends.casts, of_ends.logits_forward or temporaries
    return max(before, (of_ends.casts, temporaries), key=sum)


def _instants(
    run: Run, static: Static, of_blocks: Blocks, of_ends: Ends, activations: float, in_step: float
) -> dict[str, dict[str, float]]:
    """What is alive at each instant beside weights, optimizer state and batch."""
    half, checkpointing = "weights in half precision", run.checkpointing
    first, last = of_blocks.first, of_blocks.last
    casts_at_loss, temporaries_at_loss = _at_the_loss(run, of_blocks, of_ends)
    instants = {
        "loss": {
            half: casts_at_loss,
            "activations": activations,
            "temporaries": temporaries_at_loss,
        },
        "last block": {
            half: last.casts if checkpointing else of_blocks.casts,
            "gradients": of_ends.head_gradient,
            "activations": activations - of_ends.end + last.recomputed,
            "temporaries": max(last.backward - last.kept, of_ends.end + of_ends.end_flow - last.recomputed),
        },
        "first block": {
            half: first.casts,
            "gradients": static.gradients_before_first_block,
            "activations": of_ends.front + first.kept + of_blocks.mask * checkpointing,
            "temporaries": first.backward - first.kept,
        },
        "embeddings": {
            "gradients": static.gradients,
            "activations": of_ends.front,
            "temporaries": static.tied_duplicates,
        },
        "optimizer step": {"gradients": static.gradients, "temporaries": in_step},
    }
    for name, parts in instants.items():
        parts["gathered, buckets"] = static.gathered[name]
    return instants
