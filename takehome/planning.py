"""What pretraining will take, before it takes it, and whether this machine has that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from helpers.flops import calibrate, predict_time, training_flops
from helpers.memory import estimate, read_config
from takehome.errors import InputError
from takehome.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import GPT2Config


def plan(config: GPT2Config, recipe: Recipe, length: int, accelerator: Accelerator) -> str:
    """What a run on blocks of `length` tokens will take, before it takes it, in four lines.

    Raises:
        InputError: more memory than there is.
    """
    a, world = read_config(config), accelerator.num_processes
    rows = recipe.per_device_train_batch_size
    parameters, step_tokens = a.parameters("causal-lm"), rows * length * recipe.gradient_accumulation_steps * world
    tokens, device = recipe.max_steps * step_tokens, "cuda" if accelerator.device.type == "cuda" else "cpu"
    precision = "bf16" if recipe.mixed_precision == "bf16" else "fp32"
    memory = estimate(
        config,
        per_device_train_batch_size=rows,
        sequence_length=length,
        task="causal-lm",
        precision=precision,
        activation_checkpointing=recipe.activation_checkpointing,
        num_gpus=world,
        device=device,
        sharding={"FSDP": "fsdp", "DEEPSPEED": "zero2"}.get(accelerator.distributed_type.value, "ddp"),
        optim="muon" if recipe.optim == "muon" else "adamw_torch_fused",
        attn_implementation="eager" if (device, precision) == ("cpu", "bf16") else "sdpa",
    )  # of Transformers' GPT-2; the head's loss in parts keeps less
    if memory.peak_bytes > 2 * (there := total_memory(accelerator.device)):
        raise InputError(
            f"it would take {memory.peak_gb:,.0f} GB of memory, there are {there / 1e9:,.0f}: take smaller numbers in "
            "--config-overrides, a smaller --per-device-train-batch-size or --sequence-length"
        )
    flops = training_flops(
        a.matmul_parameters("causal-lm"),
        tokens,
        num_hidden_layers=a.num_hidden_layers,
        hidden_size=a.hidden_size,
        sequence_length=length,
        activation_checkpointing=recipe.activation_checkpointing,
    )
    speed = calibrate(width=a.hidden_size, tokens=rows * length, precision=precision, device=device)
    shared = world if device == "cuda" else 1  # processes on one CPU share its cores
    return (
        f"model       {parameters:,} parameters, {precision}, {world} process{'es' * (world > 1)}\n"
        f"training    {recipe.max_steps:,} steps of {step_tokens:,} tokens: {tokens:,} tokens, "
        f"{tokens / parameters:.1f} a parameter\n"
        f"memory      at most {memory.peak_gb:.2f} GB a process, predicted\n"
        f"time        {predict_time(flops, speed, num_gpus=shared)}, predicted"
    )


def total_memory(device: torch.device) -> float:
    """Bytes that a device has; infinite where nobody says."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float("inf")
