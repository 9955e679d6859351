"""What a new GPT-2 looks like and how it is trained, in words and numbers; nothing here needs torch."""

import argparse
import math
from dataclasses import dataclass, field, fields

from helpers.profile_tables import Pretraining
from takehome.tokens import Corpus

SIZES = ("n_layer", "n_head", "n_embd", "n_inner", "n_positions")  # what --config-overrides may change


@dataclass(frozen=True)
class Shape:
    """What a new model looks like.

    Attributes:
        model: Hub id or directory that gives the tokenizer and the shape, not the weights.
        model_revision: of the Hub.
        overrides: numbers of GPT2Config that replace the checkpoint's.
        dropout: everywhere.
        sequence_length: tokens of a block.
    """

    model: str
    sequence_length: int
    model_revision: str | None = None
    overrides: dict[str, int] = field(default_factory=dict)
    dropout: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How it is trained; names as in TrainingArguments.

    Attributes:
        warmup_steps: below 1 a share of all steps.
        optim: "adamw", or "muon" for the matrices inside the blocks.
        mixed_precision: "no" or "bf16".
    """

    max_steps: int
    per_device_train_batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: float
    gradient_accumulation_steps: int = 1
    optim: str = "adamw"
    muon_learning_rate: float = 0.02
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    activation_checkpointing: bool = False
    torch_compile: bool = False
    seed: int = 42


def corpus_of(settings: Pretraining) -> Corpus:
    """The corpus that a profile names."""
    return Corpus(settings.dataset, settings.config, settings.revision, seed=settings.seed)


def shape_of(settings: Pretraining) -> Shape:
    """The shape that a profile names."""
    overrides = parse_overrides(settings.config_overrides)
    return Shape(settings.checkpoint, settings.block_size, settings.checkpoint_revision, overrides)


def recipe_of(settings: Pretraining) -> Recipe:
    """The recipe that a profile names."""
    named = {part.name: getattr(settings, part.name) for part in fields(Recipe) if hasattr(settings, part.name)}
    return Recipe(**named, mixed_precision="bf16" if settings.bf16 else "no")


def parse_overrides(text: str) -> dict[str, int]:
    """The type of an option such as "n_layer=2,n_embd=128": sizes by name."""
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in SIZES:
            raise argparse.ArgumentTypeError(
                f"{name} is not a number of GPT2Config that may change; there is {', '.join(SIZES)}, as n_layer=2"
            )
        if not (equals and value.isascii() and value.isdigit() and 1 <= int(value) <= 1_000_000):
            raise argparse.ArgumentTypeError(f"write {name}=NUMBER, at least 1 and at most 1,000,000; got {part}")
        found[name] = int(value)
    return found


class Schedule:
    """Sets the learning rates of optimizers: up in a line, then down a cosine to a tenth of the peak."""

    def __init__(self, recipe: Recipe, optimizers: list):
        steps, warmup = recipe.max_steps, recipe.warmup_steps
        self.steps, self.warmup = steps, round(warmup * steps if warmup < 1 else warmup)
        self.optimizers = optimizers
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]

    def share(self, step: int) -> float:
        """Share of the peak at a step counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))

    def set(self, step: int) -> None:
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * self.share(step)
