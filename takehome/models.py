"""Loads a checkpoint as it was saved: no tensor of its body is left at random, no pickle and no remote code is run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.hub_errors import explain
from takehome.errors import InputError, one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# What every from_pretrained of a model, tokenizer or config is given: the library asks otherwise whether to run code.
SAFE = {"trust_remote_code": False}


@dataclass(frozen=True)
class Loaded:
    """A model, and the names of its parameters that the checkpoint does not have: they were drawn at random."""

    model: PreTrainedModel
    new: list[str]


def load_model(
    kind: type, checkpoint: str, new_head: bool, revision: str | None = None, dtype: torch.dtype | None = None, **more
) -> Loaded:
    """Loads a model from safetensors, and refuses one of which more than the head would be random.

    Args:
        kind: an Auto class, such as AutoModelForSequenceClassification.
        checkpoint: directory, or id on the Hub.
        new_head: whether parameters outside of the body may be new, as those of a classifier before it is trained.
        revision: of the Hub.
        dtype: of the weights; by default float32, whatever they are stored in, which is what training wants.
        more: for `from_pretrained`, such as `num_labels`.

    Raises:
        InputError: tensors are missing, have another shape, or cannot be loaded.
        Exception: whatever the libraries raise if there is no such model.
    """
    import torch

    place = Path(checkpoint)
    if place.is_dir() and (place / "config.json").exists() and not any(place.glob("*.safetensors")):
        raise InputError(f"{checkpoint}: holds no .safetensors file; save the model with save_pretrained once more")
    model, found = kind.from_pretrained(
        checkpoint,
        revision=revision,
        dtype=dtype or torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **SAFE,
        **more,
    )
    shapes = {name: f"{tuple(stored)} instead of {tuple(own)}" for name, stored, own in found["mismatched_keys"]}
    new = sorted({*found["missing_keys"], *shapes})
    lost = [name for name in new if not (new_head and in_head(model, name))]
    if lost or found["error_msgs"]:
        total = sum(not (new_head and in_head(model, name)) for name in model.state_dict())
        named = ", ".join(f"{name} {shapes.get(name, '')}".strip() for name in lost[:3])
        bare = tuple(name.removeprefix(f"{model.base_model_prefix}.") for name in lost)
        renamed = sorted(name for name in found["unexpected_keys"] if name.endswith(bare))
        instead = f"; it holds {one_line(renamed[0], 80)} instead" if renamed else ""
        why = f"{len(lost)} of {total} tensors ({named}){instead}" if lost else one_line(found["error_msgs"][0])
        raise InputError(
            f"{checkpoint}: its weights do not fit its config.json: {why}. They would be random: save it once more "
            "with save_pretrained, or take another checkpoint"
        )
    return Loaded(model, new)


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """Within `with`, whatever the libraries raise becomes an InputError that says what to do about it.

    Args:
        what: is loaded: a directory, or an id on the Hub.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as cause:
        raise InputError(explain(cause, what)) from cause


def in_head(model: PreTrainedModel, name: str) -> bool:
    """Whether a parameter belongs to what stands on the body, or to a pooler, which many checkpoints are without."""
    prefix = f"{model.base_model_prefix}."
    return not name.startswith(prefix) or name.removeprefix(prefix).startswith("pooler.")


def is_local(checkpoint: str) -> bool:
    """Whether it is a path here and not an id on the Hub."""
    return Path(checkpoint).exists()
