"""LoRA and QLoRA: which linear layers get an adapter, what is trained, and what the weights then weigh."""

from __future__ import annotations

import math
from dataclasses import dataclass

from helpers.memory.architecture import Architecture, Linear
from helpers.memory.settings import Settings

# NF4: half a byte, a scale in 8 bits for 64 weights, and a second one in 32 bits for 256 scales.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def targets_fit(a: Architecture, settings: Settings) -> None:
    """Raises ValueError for LoRA's targets that are none, or no linear layers of the model."""
    targets = settings.lora_target_modules
    if settings.full or targets is None:
        return
    if not targets:
        raise ValueError("lora_target_modules is empty: nothing would be trained")
    linears = {name.rsplit(".")[-1] for name in a.all_linears()} | set(a.all_linears())
    for name in targets:
        if name not in linears:
            raise ValueError(f"{a.name} has no linear layer {name!r}; choose from {', '.join(sorted(linears))}")


def adapter_ranks(a: Architecture, settings: Settings) -> dict[str, int]:
    """The LoRA rank of each adapted linear layer of a block, by its name; empty when everything is trained."""
    if settings.full:
        return {}
    targets = settings.lora_target_modules
    targets = set(a.family.lora_targets if targets is None else targets)
    # PEFT takes the last part of a name, or the whole
    return {name: settings.lora_rank for name in a.all_linears() if {name, name.rsplit(".")[-1]} & targets}


@dataclass(frozen=True)
class Weights:
    """The parameters of a model and of its training, on one device that has them all.

    Attributes:
        parameters: numbers in the model, without adapters.
        trained_shapes: shapes of what is trained, in the order of the optimizer's updates.
        weights, gradients: bytes.
        block_gradients: bytes of the gradients of one block's linear layers, or of their adapters.
    """

    parameters: int
    trained_shapes: list[tuple[int, ...]]
    weights: int
    gradients: int
    block_gradients: int

    @property
    def trainable(self) -> int:
        return sum(map(math.prod, self.trained_shapes))


def weights_of(a: Architecture, settings: Settings, task: str, weight_bytes: int) -> Weights:
    """The weights of a run; `weight_bytes` is the width of one number of the base model."""
    parameters = a.parameters(task)
    first = a.block_linears(a.layer_kinds[0])
    if settings.full:
        size = parameters * weight_bytes
        in_block = weight_bytes * sum(linear.parameters for linear in first.values())
        return Weights(parameters, a.all_shapes(task), size, size, in_block)
    head = a.parameter_shapes(task)["head"] if not task.endswith("-lm") else []
    if a.family.body_pools:
        head = head[-2:]  # PEFT trains a copy of the modules called classifier or score; a pooler is not
    ranks = adapter_ranks(a, settings)
    of_kind = {kind: _adapter_shapes(a.block_linears(kind), ranks) for kind in set(a.layer_kinds)}
    adapters = [shape for kind in a.layer_kinds for shape in of_kind[kind]]
    gradients = 4 * sum(map(math.prod, adapters))  # adapters are in fp32
    gradients += weight_bytes * sum(map(math.prod, head))
    weights = parameters * weight_bytes + gradients  # as many bytes as their gradients
    if settings.method == "qlora":
        weights += int(sum(a.linear_weights(kind) for kind in a.layer_kinds) * (NF4_BYTES - weight_bytes))
    in_block = 4 * sum(map(math.prod, of_kind[a.layer_kinds[0]]))
    return Weights(parameters, adapters + head, weights, gradients, in_block)


def _adapter_shapes(linears: dict[str, Linear], ranks: dict[str, int]) -> list[tuple[int, ...]]:
    """Shapes of the two matrices of each adapter of a block, in the order of the adapted layers."""
    adapted = {name: rank for name, rank in ranks.items() if name in linears}
    return [(rank, side) for name, rank in adapted.items() for side in (linears[name].inputs, linears[name].outputs)]
