"""What people see of `helpers.memory`: its tables, its picture, its command line and how quick it is."""

import time

import pytest
from memory_cases import GPT2

from helpers import memory
from helpers.memory import estimate, trace

SHAPE = {"per_device_train_batch_size": 4, "sequence_length": 128}


def test_the_limits_of_a_gpu_figure_are_said():
    assert memory.NOT_SEEN in str(estimate("gpt2", **SHAPE))
    assert memory.NOT_SEEN not in str(estimate("gpt2", **SHAPE, device="cpu"))
    assert memory.NOT_SEEN in str(trace(GPT2 | {"n_layer": 1}, **SHAPE))
    assert memory.NOT_SEEN in str(memory.Measurement(10**9, 1.0, "cuda"))
    assert memory.NOT_SEEN not in str(memory.Measurement(10**9, 1.0, "cpu"))


def test_plot_stacks_the_parts_of_each_instant():
    import matplotlib

    matplotlib.use("agg")
    predicted = estimate("gpt2", **SHAPE)
    axes = predicted.plot()
    assert axes.get_title() == predicted.title
    right = max(bar.get_x() + bar.get_width() for bar in axes.patches)
    assert right * 1e9 == pytest.approx(predicted.peak_bytes)
    assert predicted.plot(axes) is axes


def test_command_line(capsys):
    assert memory.main(["gpt2", "--batch-size", "8", "--sequence-length", "512", "--precision", "bf16"]) == 0
    printed = capsys.readouterr().out
    peak = estimate("gpt2", per_device_train_batch_size=8, sequence_length=512, precision="bf16").peak_gb
    assert f"peak {peak:.2f} GB" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["gpt2"],
        ["gpt5", "--batch-size", "8", "--sequence-length", "512"],
        ["gpt2", "--batch-size", "-8", "--sequence-length", "512"],
        ["gpt2", "--batch-size", "many", "--sequence-length", "512"],
        ["gpt2", "--batch-size", "8", "--sequence-length", "512", "--optim", "adamm"],
    ],
)
def test_command_line_errors_are_one_line(arguments):
    with pytest.raises(SystemExit) as stopped:
        memory.main(arguments)
    assert "\n" not in stopped.value.code
    assert stopped.value.code.startswith("python -m helpers.memory: ")


def test_estimates_are_quick_enough_for_a_slider():
    """Twenty of a model of 7 billion parameters are quicker than one trace of a tiny one."""
    trace(GPT2, **SHAPE)  # imports
    start = time.process_time()
    trace(GPT2, **SHAPE)
    traced = time.process_time()
    for batch_size in range(1, 21):
        estimate("llama-7b", per_device_train_batch_size=batch_size, sequence_length=512)
    assert time.process_time() - traced < traced - start
