"""How a classifier of encoder and decoder (T5, BART) finds what it classifies, on fake tensors. Needs torch."""

from __future__ import annotations

import contextlib

import torch
from torch.overrides import TorchFunctionMode


def one_end_of_text(model):
    """Within it, such a classifier takes each text to end once, at its last token; other models are left alone.

    It picks the end-of-text tokens with a mask and checks that all rows have as many: both depend on numbers, which
    fake tensors do not have.
    """
    inner = getattr(model, "get_base_model", lambda: model)()  # inside PEFT's wrapper
    picks = inner.config.is_encoder_decoder and "ForSequenceClassification" in type(inner).__name__
    return _OneEndOfText() if picks else contextlib.nullcontext()


class _OneEndOfText(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.unique_consecutive:  # of the number of ends in each row
            return arguments[0][:1]
        if function is torch.Tensor.__getitem__ and _is_mask(*arguments):
            states, (mask, _) = arguments
            rows = torch.arange(len(mask), device=mask.device)
            return states[rows, torch.full_like(rows, mask.shape[1] - 1)]  # [rows, hidden size], as the mask gives
        return function(*arguments, **(keywords or {}))


def _is_mask(states, key) -> bool:
    """Whether states [rows, length, hidden size] are indexed as `states[mask, :]`, the mask being [rows, length]."""
    mask = key[0] if isinstance(key, tuple) and len(key) == 2 else None
    return isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.shape == states.shape[:2]
