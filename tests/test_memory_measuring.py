"""`measure` on a GPU, simulated: what stood in its memory before does not count, unless the run uses it."""

import pytest
import torch

from helpers.memory import measure, measuring
from helpers.memory.tracker import Tracker

MEGA = 250_000  # numbers of 4 bytes: 1 MB


@pytest.fixture
def gpu(monkeypatch):
    """`torch.cuda` as it counts, with the CPU tensors in its memory that it is shown, or that are made within it."""
    memory = Tracker(cuda=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: memory.current)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: memory.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", memory.start_phase)
    monkeypatch.setattr(measuring, "_on_this_gpu", lambda tensor: True)
    return memory


def test_neither_earlier_models_nor_an_earlier_peak_count(gpu):
    """Of 36 MB that earlier cells left and a peak of 1 GB, nothing; of the step its own model, optimizer and batch."""
    earlier = torch.nn.Linear(MEGA, 4), [torch.ones(4 * MEGA)]
    earlier[0].weight.grad = torch.ones_like(earlier[0].weight)
    model, batch = torch.nn.Linear(MEGA, 2, bias=False), torch.ones(1, MEGA)
    gpu.add([*earlier[0].parameters(), earlier[0].weight.grad, earlier[1], *model.parameters(), batch])
    gpu.peak = 10**9
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)

    def step():
        with gpu:
            model(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    for measured in (measure(step), measure(step)):  # in the second, the momentum stood there before
        assert measured.device == "cuda"
        assert measured.peak_bytes == pytest.approx(2e6 + 2e6 + 2e6 + 1e6, rel=0.001)


def test_what_is_only_read_counts_and_so_do_gradients_from_before(gpu):
    frozen, model = torch.nn.Linear(MEGA, 3, bias=False).requires_grad_(False), torch.nn.Linear(MEGA, 1, bias=False)
    gpu.add([frozen.weight, model.weight])
    with gpu:
        model(torch.ones(1, MEGA)).sum().backward()  # nothing but the parameter refers to its gradient

    def step():
        with gpu, torch.no_grad():
            frozen(model.weight + 1)
        model.zero_grad()

    assert measure(step).peak_bytes == pytest.approx(3e6 + 1e6 + 1e6 + 1e6, rel=0.001)


def test_a_step_that_moves_to_the_gpu_itself(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    measured = measure(lambda: gpu.add(torch.ones(1024)))
    assert (measured.device, measured.peak_bytes) == ("cuda", 4096)
