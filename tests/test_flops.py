"""`helpers.flops`: the arithmetic against torch's own counter, the predicted time against measured steps."""

import subprocess
import sys
from dataclasses import replace

import pytest

from helpers import flops, memory

CONFIG = {
    "model_type": "gpt2",
    "n_layer": 3,
    "n_embd": 128,
    "n_head": 4,
    "vocab_size": 1000,
    "n_positions": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def step_flops(config, batch_size, length, **settings):
    a = memory.read_config(config)
    return flops.training_flops(
        a.matmul_parameters(),
        batch_size * length,
        num_hidden_layers=a.num_hidden_layers,
        hidden_size=a.hidden_size,
        sequence_length=length,
        **settings,
    )


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_agrees_with_torch(activation_checkpointing):
    from torch.utils.flop_counter import FlopCounterMode

    model = memory.build_model(CONFIG, attn_implementation="eager")
    if activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    batch = memory.build_batch(model, 2, 200)
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    predicted = step_flops(CONFIG, 2, 200, activation_checkpointing=activation_checkpointing)
    # the head is outside of what checkpointing runs again, and the last block's recomputation stops early
    assert predicted == pytest.approx(counter.get_total_flops(), rel=0.12 if activation_checkpointing else 0.001)


def test_gpt2_is_the_published_6_n():
    assert step_flops("gpt2", 1, 1) == pytest.approx(6 * 124e6, rel=0.01)
    assert step_flops("gpt2", 8, 1024) / (8 * 1024) == pytest.approx(6 * 123.5e6 + 12 * 12 * 768 * 1024, rel=0.001)


def test_time_and_cost():
    time = flops.predict_time(3.6e15, 1e12, utilization=0.5, num_gpus=2, price_per_gpu_hour=3)
    assert time.seconds == 3600
    assert time.gpu_hours == 2
    assert time.cost == 6
    assert str(time) == "3.60e+15 FLOPs: 1.0 hours, 2 GPU-hours, cost 6.00"
    assert "5.0 milliseconds" in str(flops.predict_time(5e9, 1e12))


@pytest.mark.parametrize("change", [{"utilization": 0}, {"utilization": 1.2}, {"num_gpus": 0}])
def test_nonsense_raises(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        flops.predict_time(1e12, 1e12, **change)
    with pytest.raises(ValueError, match="tokens must be positive"):
        flops.training_flops(1000, -5, num_hidden_layers=1, hidden_size=8, sequence_length=8)
    with pytest.raises(ValueError, match="unknown precision"):
        flops.calibrate(precision="int3")


def test_calibrated_prediction_of_a_measured_step():
    """The first estimate of a course: right within a factor of three, from half a second of calibration."""
    import time

    import torch

    rate = flops.calibrate(width=128, tokens=512, seconds=0.3)
    predicted = flops.predict_time(step_flops(CONFIG, 4, 128), rate).seconds
    model = memory.build_model(CONFIG | {"attn_pdrop": 0.0})
    batch, optimizers = memory.build_batch(model, 4, 128), memory.build_optimizers(model, "adamw_torch_fused")
    fastest = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        memory.training_step(model, batch, optimizers)
        fastest = min(fastest, time.perf_counter() - start)
    assert 1 / 3 < predicted / fastest < 3
    assert torch.is_grad_enabled()


def test_published_runs():
    """The guides' hours fit in fp32, on V100 and A100, and in half precision not at all; the papers' GPU-hours fit."""
    remarks = {run.name: run.remark for run in flops.PUBLISHED_RUNS}
    assert remarks["GPT-2 124M, 10 % of OpenWebText, once"].startswith("slow")
    assert remarks["the same, in fp32"] == "plausible"
    a100 = [run for run in flops.PUBLISHED_RUNS if run.gpu == "a100" and run.hours <= 120 and "guides" in run.source]
    assert a100 and all(run.remark.startswith("slow") for run in a100)
    assert all(replace(run, precision="fp32").remark == "plausible" for run in a100)
    assert all(run.remark == "plausible" for run in flops.PUBLISHED_RUNS if "arXiv" in run.source)
    assert all(0 < run.utilization < 1 for run in flops.PUBLISHED_RUNS)


def test_every_gpu_has_a_source():
    assert all("NVIDIA" in gpu.source and gpu.half >= gpu.fp32 for gpu in flops.GPUS.values())


def test_import_needs_no_torch():
    program = "import sys, helpers.flops; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False"
