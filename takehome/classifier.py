"""A classifier from a checkpoint: the body that it holds, a head for these labels, and LoRA adapters if wanted."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from takehome.models import Loaded, load_model
from takehome.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    from peft import PeftModel
    from transformers import PreTrainedModel


def build_model(checkpoint: str, revision: str | None, task: Task, pad_token_id: int) -> Loaded:
    """The checkpoint with a head for a task, in float32.

    Raises:
        InputError: its weights do not fit its config.
        Exception: whatever the libraries raise if there is no such model.
    """
    import transformers

    loaded = load_model(getattr(transformers, task.model), checkpoint, new_head=True, revision=revision, **task.head())
    loaded.model.config.pad_token_id = pad_token_id
    task.look_at(loaded.model)
    return loaded


def begin_head(loaded: Loaded, biases: np.ndarray | None) -> None:
    """Lets a head that is new begin with these biases [labels], if it has any."""
    import torch

    for name, parameter in loaded.model.named_parameters():
        if biases is not None and name in loaded.new and name.endswith("bias") and parameter.shape == biases.shape:
            parameter.data.copy_(torch.from_numpy(biases))


def add_adapters(model: PreTrainedModel, rank: int, alpha: float, kind: str = "SEQ_CLS") -> PeftModel:
    """LoRA adapters on all linear layers of the body; the head is trained as a whole."""
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated")  # peft 0.21 asks for it
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.base_model.named_modules())
    # with its subclasses, such as Falcon's own
    targets = [name for name, module in modules.items() if isinstance(module, (torch.nn.Linear, Conv1D))]
    prefix = model.base_model_prefix
    head = [name for name, module in model.named_children() if name != prefix and list(module.parameters())]
    config = LoraConfig(
        task_type=kind,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=sorted(f"{prefix}.{name}" for name in targets),
        modules_to_save=head,
        fan_in_fan_out=any(type(module) is Conv1D for module in modules.values()),  # which holds its weights transposed
    )
    return get_peft_model(model, config)
