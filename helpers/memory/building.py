"""The model, batch, optimizer and step that `estimate` has in mind, built in torch."""

from __future__ import annotations

import copy
from pathlib import Path

from helpers.memory.families import FAMILIES
from helpers.memory.reading import config_values
from helpers.memory.settings import shown


def build_model(
    config,
    *,
    task: str | None = None,
    precision: str = "fp32",
    attn_implementation: str = "sdpa",
    method: str = "full",
    lora_rank: int = 8,
    lora_target_modules=None,
):
    """A freshly initialised model in training mode, as `estimate` understands the same arguments.

    Raises:
        ValueError: transformers has no such model, or none for this task.
    """
    import torch

    config = transformers_config(config)
    task = task or default_task(config)
    model_class = _model_class(config, task)
    if "classification" in task and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0  # decoders look for each row's last token that is not padding
    attention = attn_implementation.replace("flash_attention_2", "sdpa")
    if attention == "sdpa" and not model_class._supports_sdpa:
        attention = None  # what the model uses by default
    dtype = torch.bfloat16 if precision == "pure-bf16" else torch.float32
    model = model_class._from_config(config, attn_implementation=attention, dtype=dtype)
    model.config.use_cache = False  # as Trainer does: keys and values of a training step are not needed again
    if method != "full":
        model = _with_adapters(model, task, lora_rank, lora_target_modules)
    return model.train()


def transformers_config(config):
    """A copy of the config as transformers' own object, from whatever `estimate` accepts."""
    from transformers import CONFIG_MAPPING

    if not isinstance(config, (str, Path, dict)):
        return copy.deepcopy(config)
    values = dict(config_values(config))
    model_type = values.pop("model_type", None)
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no model_type {shown(model_type)}")
    return CONFIG_MAPPING[model_type](**values)


def default_task(config) -> str:
    """What a model of this transformers config is for, when nothing else is said."""
    from transformers.models.auto import modeling_auto

    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq-lm"
    generates = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    encoder = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "causal-lm" if generates and not encoder else "sequence-classification"


def _model_class(config, task: str):
    from transformers.models.auto import modeling_auto

    mapping = {
        "causal-lm": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        "masked-lm": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
        "seq2seq-lm": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        "sequence-classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        "token-classification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
        "question-answering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    }[task]
    if type(config) not in mapping:
        raise ValueError(f"transformers has no model of type {config.model_type!r} for task={task!r}")
    return mapping[type(config)]


def _with_adapters(model, task: str, rank: int, targets):
    import peft

    kinds = {
        "causal-lm": "CAUSAL_LM",
        "seq2seq-lm": "SEQ_2_SEQ_LM",
        "sequence-classification": "SEQ_CLS",
        "token-classification": "TOKEN_CLS",
        "question-answering": "QUESTION_ANS",
    }
    if not targets and model.config.model_type in FAMILIES:
        targets = FAMILIES[model.config.model_type].lora_targets
    options = peft.LoraConfig(r=rank, target_modules=targets and list(targets), task_type=kinds.get(task))
    return peft.get_peft_model(model, options)


def build_batch(model, per_device_train_batch_size: int, sequence_length: int, padded: bool = False) -> dict:
    """Token ids and labels of the shapes that the model trains on; with a padding mask when `padded`.

    The labels of a model that marks answers are two places in each row.
    """
    import torch

    shape = per_device_train_batch_size, sequence_length
    ids = torch.ones(shape, dtype=torch.long)
    inner = getattr(model, "get_base_model", lambda: model)()  # inside PEFT's wrapper
    batch = {"input_ids": ids, "labels": ids.clone()}
    if "ForSequenceClassification" in type(inner).__name__:
        batch["labels"] = torch.zeros(shape[:1], dtype=torch.long)
        if inner.config.is_encoder_decoder:  # it classifies what the end of a text became
            ids[:, -1] = inner.config.eos_token_id
    elif "ForTokenClassification" in type(inner).__name__:
        batch["labels"] = torch.zeros(shape, dtype=torch.long)
    elif "ForQuestionAnswering" in type(inner).__name__:
        del batch["labels"]
        batch |= {name: torch.zeros(shape[:1], dtype=torch.long) for name in ("start_positions", "end_positions")}
    if padded:
        batch["attention_mask"] = torch.ones(shape, dtype=torch.long)
        batch["attention_mask"][-1, -1] = 0
    return batch


def checkpoint_activations(model) -> None:
    """Switches activation checkpointing on; older transformers have it under its former name."""
    switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    switch({"use_reentrant": False})


def build_optimizers(model, optim: str) -> list:
    """The optimizer that `optim` names, over the parameters that are trained; two for Muon, which takes matrices."""
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if optim == "sgd":
        return [torch.optim.SGD(parameters, lr=1e-4)]
    if optim == "adafactor":  # as Trainer sets it
        from transformers.optimization import Adafactor

        return [Adafactor(parameters, lr=1e-4, scale_parameter=False, relative_step=False)]
    if optim == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():  # its quantisation tables are made of numbers, not sizes
            return [AdamW8bit(parameters, lr=1e-4)]
    if optim == "muon":  # embeddings, the head, norms and biases stay with AdamW
        ends = {model.get_input_embeddings().weight, getattr(model.get_output_embeddings(), "weight", None)}
        matrices = [p for p in parameters if p.ndim == 2 and p not in ends]
        others = [p for p in parameters if p.ndim != 2 or p in ends]
        adamw = [torch.optim.AdamW(others, lr=1e-4, fused=True)] if others else []
        return [torch.optim.Muon(matrices, lr=1e-4), *adamw]
    flags = {
        "adamw_torch_fused": {"fused": True},
        "adamw_torch_foreach": {"foreach": True},
        "adamw_torch_forloop": {"foreach": False},
        "adamw_torch": {},
    }[optim]
    return [torch.optim.AdamW(parameters, lr=1e-4, **flags)]


def training_step(model, batch: dict, optimizers: list, precision: str = "fp32", after=lambda phase: None) -> None:
    """One plain training step; calls `after` at the end of each of its phases."""
    import torch

    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(batch["input_ids"].device.type, dtype=half, enabled=half is not None):
        loss = model(**batch).loss
    after("forward")
    loss.backward()
    after("backward")
    for optimizer in optimizers:
        optimizer.step()
    after("optimizer step")
    for optimizer in optimizers:
        optimizer.zero_grad()
