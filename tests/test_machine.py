"""The one question that decides the device, and in what to compute there; machines that are not here are simulated."""

import os
import sys

import pytest
import torch

from helpers import machine
from helpers.machine import device_kind, mixed_precision, use_one_gpu
from helpers.profiles import load_profile


@pytest.fixture
def machine_with(monkeypatch):
    """A function that makes torch say that this machine has a GPU of CUDA or MPS, and of what generation."""

    def simulate(kind=None, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")

    machine._agrees_with_cpu.cache_clear()
    yield simulate
    machine._agrees_with_cpu.cache_clear()


@pytest.fixture
def mps(machine_with, monkeypatch):
    """A function that makes MPS compute what it is given in place of the right logits."""
    small_forward = machine._small_forward

    def simulate(change):
        machine_with("mps")
        monkeypatch.setattr(
            machine, "_small_forward", lambda kind: (change if kind == "mps" else lambda x: x)(small_forward("cpu"))
        )

    return simulate


@pytest.mark.parametrize("kind", ["cuda", None])
def test_a_gpu_if_there_is_one(machine_with, kind):
    machine_with(kind)
    assert device_kind() == (kind or "cpu")
    assert device_kind(use_cpu=True) == "cpu"


def test_mps_is_taken_where_it_computes_what_the_cpu_does(mps, recwarn):
    mps(lambda logits: logits + 1e-5)
    assert device_kind() == "mps" and not recwarn
    assert mixed_precision(True, "mps") == "no"


def fail(logits):
    raise NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device.\nMore")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: logits + 0.01, "differ by 1.0e-02"),
        (lambda logits: logits * float("nan"), "differ by nan"),
        (fail, "'aten::x' is not currently implemented for the MPS device.$"),
    ],
)
def test_mps_is_not_taken_where_it_computes_something_else(mps, change, said):
    mps(change)
    with pytest.warns(UserWarning, match=said):
        assert device_kind() == "cpu"
    assert device_kind() == "cpu"  # and it is not computed again


def test_the_check_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    logits = machine._small_forward("cpu")
    assert torch.equal(torch.rand(2), expected)
    assert logits.shape == (16 + 9 + 12 + 5, 100) and torch.equal(logits, machine._small_forward("cpu"))


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_half_precision_of_a_gpu(machine_with, bf16, expected):
    """The T4 and V100 emulate bf16, which is slower than fp32: fp16 is what they have."""
    machine_with("cuda", bf16=bf16)
    assert mixed_precision(True, "cuda") == expected
    assert mixed_precision(False, "cuda") == "no"


@pytest.mark.parametrize(("instructions", "expected"), [(True, "bf16"), (False, "no")])
def test_half_precision_of_a_cpu(monkeypatch, instructions, expected):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: instructions)
    assert mixed_precision(True, "cpu") == expected


@pytest.mark.parametrize("kind", ["cuda", None])
@pytest.mark.parametrize("bf16", [True, False])
def test_what_a_profile_says_is_taken_by_trainer_and_accelerate(machine_with, monkeypatch, tmp_path, kind, bf16):
    """`laptop` and `full` said use_cpu=False, at which both stop on a machine without a GPU."""
    from accelerate.state import AcceleratorState
    from transformers import TrainingArguments

    machine_with(kind, bf16)
    monkeypatch.setattr("helpers.profiles.check_hub", lambda: "")
    monkeypatch.setattr("helpers.profiles.set_offline", lambda offline: None)
    profile = load_profile("full")
    precision = mixed_precision(profile.imdb.bf16, profile.device)
    assert (profile.device, profile.use_cpu) == ((kind or "cpu"), kind is None)
    if kind is None:  # TrainingArguments asks a GPU that is there for more than can be simulated
        arguments = TrainingArguments(
            tmp_path, use_cpu=profile.use_cpu, bf16=precision == "bf16", fp16=precision == "fp16"
        )
        assert arguments.device.type == "cpu" and arguments.n_gpu <= 1
        AcceleratorState._reset_state(reset_partial_state=True)
    assert load_profile("reduced").device == "cpu"


def test_a_profile_that_keeps_to_the_cpu_does_not_ask_torch(monkeypatch):
    monkeypatch.setattr("helpers.profiles.device_kind", lambda use_cpu: "cpu" if use_cpu else pytest.fail("asked"))
    assert load_profile("reduced").use_cpu is True


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("", ""), ("2,3", "2"), ("GPU-8932,GPU-11", "GPU-8932")])
def test_one_gpu_is_left(monkeypatch, before, after):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before or "")
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_launched_processes_keep_their_gpus(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize("notebook", [True, False])
def test_a_notebook_sees_one_gpu_and_a_launcher_all(monkeypatch, notebook):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setitem(sys.modules, "ipykernel", sys) if notebook else monkeypatch.delitem(
        sys.modules, "ipykernel", False
    )
    load_profile("reduced")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("0" if notebook else "0,1")
