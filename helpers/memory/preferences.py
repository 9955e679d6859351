"""`estimate_preferences`: the peak memory of a training step on pairs of answers, as in DPO. Needs no torch."""

from __future__ import annotations

from dataclasses import replace

from helpers.memory.prediction import estimate
from helpers.memory.reading import config_values
from helpers.memory.report import MemoryEstimate
from helpers.memory.settings import check_count, check_switch

REFERENCE = "reference model"
DROPOUTS = "attn_pdrop resid_pdrop embd_pdrop attention_dropout hidden_dropout embedding_dropout dropout dropout_rate"


def estimate_preferences(
    config, *, per_device_train_batch_size: int, precompute_ref_log_probs: bool = False, **settings
) -> MemoryEstimate:
    """Predicts the peak memory of a step of DPO, for one device.

    The two answers of a pair are two sequences of one batch. The reference model is a frozen copy: it adds its weights,
    and neither gradients nor an optimizer's state. It answers first, without gradients, and what it needs meanwhile is
    freed before the model's own step needs more. Dropout is off, as TRL turns it off. The logits are counted as
    cross-entropy keeps them; TRL's DPOTrainer computes them in chunks and stays below.

    Args:
        config: as for `estimate`.
        per_device_train_batch_size: pairs in one forward pass, as DPOConfig counts them.
        precompute_ref_log_probs: the reference's answers are computed before training, and it has left the memory. With
            adapters there is none in any case: the model without them is the reference.
        settings: the others of `Settings`; `sequence_length` counts request and answer.

    Raises:
        ValueError: as `estimate` does; or the reference would be shared out among several GPUs.
    """
    check_count("per_device_train_batch_size", per_device_train_batch_size)
    check_switch("precompute_ref_log_probs", precompute_ref_log_probs)
    if settings.get("sharding") in ("zero3", "fsdp"):
        raise ValueError(f"sharding={settings['sharding']!r} of a reference model is not covered: leave it out")
    config = {**config_values(config), **dict.fromkeys(DROPOUTS.split(), 0.0)}
    found = estimate(config, per_device_train_batch_size=2 * per_device_train_batch_size, **settings)
    adapted = settings.get("method", "full") != "full"
    size = 0 if precompute_ref_log_probs or adapted else found.weights
    instants = {name: {**parts, REFERENCE: size} for name, parts in found.instants.items()}
    kept = "no reference model in memory" if size == 0 else "a reference model beside it"
    return replace(found, title=f"pairs: {found.title}, {kept}", instants=instants)
