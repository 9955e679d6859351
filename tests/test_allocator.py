"""helpers/allocator.py: steps that reuse the memory of the step before, counted in page faults and timed.

What it is worth, on a quiet machine: pytest -m slow -s tests/test_allocator.py
"""

import ctypes
import json
import statistics
import time
from pathlib import Path

import pytest
import warm

from helpers import allocator

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not allocator.keep_freed_memory(), reason="needs Linux with the GNU C library")

M_MMAP_THRESHOLD = -3  # as malloc.h has it
FIRST_THRESHOLD = 128 << 10  # bytes from which a block is asked of the system: the library's value at its start


def model_and_inputs(name: str, rows: int, length: int):
    """A model of three layers of torch alone, the one that pretraining makes, or a checkpoint; and a batch."""
    import torch
    import transformers

    from takehome.gpt2 import build_model

    torch.manual_seed(0)
    ids = torch.randint(10, 1000, (rows, length))
    if name == "layers":
        layer = torch.nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
        return torch.nn.TransformerEncoder(layer, 3), dict(src=torch.randn(rows, length, 128))
    if name == "pretraining":
        config = transformers.AutoConfig.from_pretrained(ROOT / "data/models/gpt2", activation_function="gelu")
        return build_model(config), dict(input_ids=ids)
    transformers.logging.set_verbosity_error()
    path = ROOT / "data/models" / name
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, num_labels=2, pad_token_id=0)
    return model, dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids[:, 0] % 2)


def measure(name: str, shape: tuple[int, int], kept: bool, steps: int, threads: int) -> None:
    """In a process of its own: prints a step's page faults and seconds, medians, and the process's peak in MB."""
    import resource

    import torch

    # left alone, the library moves its threshold by what happens to be freed, differently on each machine; this fixes
    # it at the value that it starts with, and keep_freed_memory has to overrule it
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, FIRST_THRESHOLD)
    if kept:
        assert allocator.keep_freed_memory()
    torch.set_num_threads(threads)
    model, inputs = model_and_inputs(name, *shape)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    faults, seconds = [], []
    for _ in range(steps):
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        loss = model(**inputs)
        (loss.mean() if torch.is_tensor(loss) else loss.loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([statistics.median(faults[3:]), statistics.median(seconds[3:]), peak / 1024]))


def run(name: str, shape: tuple[int, int], kept: bool, steps: int = 6, threads: int = 1) -> tuple[float, float, float]:
    """Median page faults and seconds of a training step in a process of its own, and the process's peak in MB."""
    done = warm.run(measure, name, shape, kept, steps, threads)
    assert done.status == 0, done.output
    return tuple(json.loads(done.output.splitlines()[-1]))


def test_a_step_reuses_the_memory_of_the_last():
    given_back, kept = (run("layers", (16, 100), kept)[0] for kept in (False, True))
    assert kept < given_back / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, shape", {"bert": (16, 62), "gpt2": (8, 128), "distilbert": (16, 100), "pretraining": (16, 129)}.items()
)
def test_a_step_takes_less_time_and_no_more_memory(name, shape):
    pairs = [[run(name, shape, kept, steps=30, threads=2) for kept in (False, True)] for _ in range(5)]
    faults, seconds, peak = (
        [statistics.median(pair[kept][what] for pair in pairs) for kept in (0, 1)] for what in range(3)
    )
    ratio = statistics.median(before[1] / after[1] for before, after in pairs)
    print(
        f"\n{name}: {1e3 * seconds[0]:.0f} ms and {faults[0]:.0f} faults a step; kept {1e3 * seconds[1]:.0f} ms and "
        f"{faults[1]:.0f}: {ratio:.2f} times as fast; {peak[0]:.0f} and {peak[1]:.0f} MB"
    )
    assert ratio > 1 and peak[1] < 1.1 * peak[0]
