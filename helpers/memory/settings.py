"""The settings of a run, checked: what `estimate` and `trace` accept beside the model. Needs no torch."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass, fields
from numbers import Integral

TASKS = (
    "causal-lm", "masked-lm", "seq2seq-lm", "sequence-classification", "token-classification", "question-answering",
)  # fmt: skip
PRECISIONS = ("fp32", "bf16", "fp16", "pure-bf16")
ATTENTION = ("eager", "sdpa", "flash_attention_2")
METHODS = ("full", "lora", "qlora")
SHARDING = ("ddp", "zero1", "zero2", "zero3", "fsdp")
DEVICES = ("cuda", "cpu", "mps")
OPTIMIZERS = (
    "adamw_torch_fused", "adamw_torch", "adamw_torch_foreach", "adamw_torch_forloop", "adamw_8bit", "adafactor", "sgd",
    "muon",
)  # fmt: skip

_COUNTS = ("per_device_train_batch_size", "sequence_length", "num_gpus", "lora_rank")
_SWITCHES = ("activation_checkpointing", "padded")
_CHOICES = {
    "task": TASKS,
    "precision": PRECISIONS,
    "attn_implementation": ATTENTION,
    "optim": OPTIMIZERS,
    "method": METHODS,
    "sharding": SHARDING,
    "device": DEVICES,
}


def shown(value) -> str:
    """The value as messages show it: in one line, and not too long."""
    try:
        text = repr(value)
    except Exception:  # a number of too many digits, or somebody's class
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_count(name: str, value) -> None:
    """Raises ValueError unless `value` is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {shown(value)}")


def check_switch(name: str, value) -> None:
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def check_choice(name: str, value, allowed: Collection[str]) -> None:
    """Raises ValueError unless `value` is one of the `allowed` words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"unknown {name} {shown(value)}; choose from {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained. Each field is a keyword of `estimate` and of `trace`.

    Attributes:
        per_device_train_batch_size: sequences in one forward pass on one device.
        sequence_length: tokens in each sequence, padding included.
        task: one of `TASKS`, such as "masked-lm" or "question-answering"; by default a decoder generates, an encoder
            classifies sequences, and a model of both is "seq2seq-lm" (then `sequence_length` is the length of the input
            and that of the target).
        precision: "fp32"; "bf16" or "fp16" (autocast over fp32 weights, what `TrainingArguments(bf16=True)` does);
            "pure-bf16" (weights, gradients and optimizer state in bf16).
        attn_implementation: "eager", "sdpa" (where the model has it; else what the model uses by default) or
            "flash_attention_2".
        activation_checkpointing: keep only each block's input and recompute the rest in the backward pass.
        optim: a name of `TrainingArguments.optim`, see `OPTIMIZERS`.
        method: "full"; "lora"; "qlora" (the base model's linear layers in 4-bit NF4 with double quantisation; the rest
            in bf16, or with precision "fp32" in fp32, as peft's `prepare_model_for_kbit_training` leaves it).
        lora_rank: r of peft's `LoraConfig`.
        lora_target_modules: names of the adapted linear layers; PEFT's defaults when None.
        num_gpus: data parallel processes.
        sharding: what they share out: "ddp" nothing; "zero1" the optimizer's state (ZeroRedundancyOptimizer); "zero2"
            the gradients too (FSDP that keeps gathered weights until the backward pass); "zero3" or "fsdp" everything.
        padded: the batch has a padding mask, as one of unequal lengths has.
        device: "cuda" or "cpu"; they keep different tensors for dropout, attention and autocast. "mps" counts as "cpu".

    Raises:
        ValueError: a setting is nonsense.
    """

    per_device_train_batch_size: int
    sequence_length: int
    task: str | None = None
    precision: str = "fp32"
    attn_implementation: str = "sdpa"
    activation_checkpointing: bool = False
    optim: str = "adamw_torch_fused"
    method: str = "full"
    lora_rank: int = 8
    lora_target_modules: tuple[str, ...] | None = None
    num_gpus: int = 1
    sharding: str = "ddp"
    padded: bool = False
    device: str = "cuda"

    def __post_init__(self):
        object.__setattr__(self, "optim", getattr(self.optim, "value", self.optim))  # TrainingArguments has an Enum
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        for name in _SWITCHES:
            check_switch(name, getattr(self, name))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) is not None or name != "task":
                check_choice(name, getattr(self, name), allowed)
        self._check_targets()
        if self.attn_implementation == "flash_attention_2" and self.precision == "fp32":
            raise ValueError("flash_attention_2 works in half precision only: use precision='bf16'")
        if self.sharding != "ddp" and self.num_gpus == 1:
            raise ValueError(f"sharding={self.sharding!r} needs num_gpus of at least 2: one GPU shares with nobody")
        if self.method == "qlora" and self.sharding not in ("ddp", "zero1"):
            raise ValueError("sharding of 4-bit weights is not covered: use sharding='ddp' or 'zero1' with QLoRA")

    def _check_targets(self) -> None:
        targets = self.lora_target_modules
        if targets is None:
            return
        if isinstance(targets, str) or not isinstance(targets, Collection):
            raise ValueError("lora_target_modules must be a list of names, such as ['q_proj', 'v_proj']")
        if any(not isinstance(name, str) for name in targets):
            raise ValueError(f"lora_target_modules must be names of linear layers, got {shown(list(targets))}")

    @property
    def title(self) -> str:
        """The settings in a line."""
        shape = f"batch {self.per_device_train_batch_size} x {self.sequence_length}"
        title = f"{self.method}, {shape}, {self.precision}, {self.attn_implementation}, {self.optim}"
        if self.activation_checkpointing:
            title += ", checkpointing"
        if self.num_gpus > 1:
            title += f", each of {self.num_gpus} GPUs with {self.sharding}"
        return title

    @property
    def full(self) -> bool:
        """Whether everything is trained, not adapters."""
        return self.method == "full"

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def takes(settings):
    """Shows the fields of a settings class, with their defaults, in the signature of a function called with them."""

    def with_signature(function):
        first, *_ = inspect.signature(function).parameters.values()
        annotations = {field.name: field.type for field in fields(settings)}
        shown = inspect.signature(settings).parameters.values()
        shown = [parameter.replace(annotation=annotations[parameter.name]) for parameter in shown]
        function.__signature__ = inspect.signature(function).replace(parameters=[first, *shown])
        return function

    return with_signature
