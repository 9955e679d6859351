"""Several processes: each keeps its share, and gathers what it needs when it needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace

INSTANTS = ("loss", "last block", "first block", "embeddings", "optimizer step")


@dataclass(frozen=True)
class Static:
    """What does not depend on the batch, in bytes on one device, at the instants at which it differs.

    Attributes:
        weights, gradients, state: of everything that this device keeps.
        gradients_before_first_block: those that are there before the first block's.
        tied_duplicates: a tied table gets two gradients, and a sum.
        gathered: at each instant, weights gathered from others and buckets of gradients.
    """

    weights: float
    gradients: float
    state: float
    gradients_before_first_block: float
    tied_duplicates: float
    gathered: dict[str, float]


def share(one: Static, sharding: str, num_gpus: int, *, blocks: int, block: float, head: float, full: bool) -> Static:
    """What one of several processes keeps of what `one` would.

    Args:
        one: on one device alone.
        sharding: see `Settings`.
        num_gpus: processes.
        blocks: of the model.
        block: bytes of one block's weights.
        head: bytes of the output head's gradient.
        full: whether everything is trained.
    """
    if num_gpus == 1:
        return one
    state = one.state / (1 if sharding == "ddp" else num_gpus)
    if sharding in ("ddp", "zero1"):
        return replace(one, state=state, gathered=dict.fromkeys(INSTANTS, one.gradients))  # DDP's buckets
    # a unit is gathered before it runs; its gradients are copied, and reduced to a share
    outside = one.weights - blocks * block  # weights of no block: FSDP's root unit
    if sharding == "zero2":
        gathered = {
            "loss": one.weights,
            "last block": one.weights + block,
            "first block": outside + 2 * block,
        }
    else:
        gathered = {"loss": outside + block, "last block": outside + 3 * block, "first block": outside + 3 * block}
    root = outside if full else 0  # its gradients are reduced last
    gathered["embeddings"] = outside + max(root, one.tied_duplicates + block) + root - root / num_gpus
    gathered["optimizer step"] = 0
    return Static(
        weights=one.weights / num_gpus,
        gradients=one.gradients / num_gpus,
        state=state,
        gradients_before_first_block=(one.gradients_before_first_block - head) / num_gpus + head,
        tied_duplicates=0,
        gathered=gathered,
    )
