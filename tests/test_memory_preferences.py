"""`helpers.memory.estimate_preferences` against real steps of DPO, and what the reference model adds."""

import pytest
from memory_cases import GPT2
from memory_truth import quiet

from helpers import memory
from helpers.memory import estimate, estimate_preferences, measure

SHAPE = {"sequence_length": 48, "padded": True, "device": "cpu"}
SMALL = {**GPT2, "vocab_size": 1000}


@pytest.fixture(autouse=True, scope="module")
def without_chatter():
    quiet()


def dpo_step_peak(config, pairs, length, in_memory):
    """Peak bytes of two steps of DPO on the CPU, with the reference in memory or its answers computed before."""
    import torch
    from torch.nn import functional as F

    model = memory.build_model(config, task="causal-lm").eval()
    reference = memory.build_model(config, task="causal-lm").eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def log_probs(model, ids, labels, mask):
        logits = model(input_ids=ids, attention_mask=mask).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return -loss.view(labels.shape).sum(dim=1)

    def steps():
        for _ in range(2):
            ids = torch.ones(2 * pairs, length, dtype=torch.long)
            labels, mask = ids.clone(), torch.ones_like(ids)
            before = torch.zeros(2 * pairs)
            if in_memory:
                with torch.no_grad():
                    before = log_probs(reference, ids, labels, mask)
            chosen, rejected = (log_probs(model, ids, labels, mask) - before).chunk(2)
            (-F.logsigmoid(0.1 * (chosen - rejected)).mean()).backward()
            optimizer.step()
            optimizer.zero_grad()

    return measure(steps).peak_bytes


@pytest.mark.parametrize("in_memory", [True, False])
def test_agrees_with_a_real_step(in_memory):
    predicted = estimate_preferences(
        SMALL, per_device_train_batch_size=4, precompute_ref_log_probs=not in_memory, **SHAPE
    )
    measured = dpo_step_peak(SMALL, 4, SHAPE["sequence_length"], in_memory)
    assert measured == pytest.approx(predicted.peak_bytes, rel=0.05)


def test_the_reference_adds_its_weights_and_nothing_else():
    one = {"per_device_train_batch_size": 2, **SHAPE}
    with_it, without = (estimate_preferences(SMALL, **one, precompute_ref_log_probs=done) for done in (False, True))
    assert with_it.peak_bytes - without.peak_bytes == with_it.weights == with_it.parts["reference model"]
    dry = {**SMALL, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}  # TRL turns dropout off
    assert without.peak_bytes == estimate(dry, **SHAPE, per_device_train_batch_size=4).peak_bytes
    assert "a reference model beside it" in with_it.title and "reference model" in str(with_it)
    assert sum(with_it.parts.values()) == with_it.peak_bytes


def test_adapters_need_none():
    lora = estimate_preferences(SMALL, per_device_train_batch_size=2, method="lora", **SHAPE)
    assert lora.parts["reference model"] == 0


def test_is_drawn():
    import matplotlib

    matplotlib.use("Agg")
    axes = estimate_preferences(SMALL, per_device_train_batch_size=2, **SHAPE).plot()
    assert "reference model" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"per_device_train_batch_size": 0}, "at least 1"),
        ({"precompute_ref_log_probs": "yes"}, "True or False"),
        ({"num_gpus": 2, "sharding": "fsdp"}, "reference model is not covered"),
        ({"precision": "int8"}, "unknown precision"),
    ],
)
def test_nonsense_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        estimate_preferences(SMALL, **{"per_device_train_batch_size": 2, **SHAPE, **settings})
