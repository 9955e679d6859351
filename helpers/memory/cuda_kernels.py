"""Makes fake CPU tensors keep what CUDA's kernels keep: dropout masks, attention, autocast's fp32. Needs torch."""

from __future__ import annotations

import contextlib
from unittest.mock import patch

import torch
import torch.nn.functional as F

aten = torch.ops.aten
_cpu_dropout = F.dropout


def _autocasts() -> bool:
    return torch.is_autocast_enabled("cpu")


def _dropout(x, p=0.5, training=True, inplace=False):
    if training and 0 < p < 1:
        return aten.native_dropout(x, p, True)[0]
    return _cpu_dropout(x, p, training, inplace)


def _attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    if _autocasts():
        q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
    if q.dtype != torch.float32 and attn_mask is None:
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    grouped = q.shape[1] != k.shape[1]
    if grouped:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    if grouped and enable_gqa:  # no fused fp32 kernel takes grouped heads
        return aten._scaled_dot_product_attention_math(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, float("-inf"))
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    return aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


def _in_fp32(function):
    def call(x, *arguments, **keywords):
        return function(x.float() if _autocasts() and x.is_floating_point() else x, *arguments, **keywords)

    return call


def cuda_kernels() -> contextlib.ExitStack:
    """Within it, operations on fake CPU tensors keep what the kernels of CUDA keep."""
    fp32 = {name: _in_fp32(getattr(F, name)) for name in ("softmax", "layer_norm", "cross_entropy")}
    stack = contextlib.ExitStack()
    stack.enter_context(patch.multiple(F, dropout=_dropout, scaled_dot_product_attention=_attention, **fp32))
    stack.enter_context(patch.object(torch, "pow", _in_fp32(torch.pow)))
    return stack
