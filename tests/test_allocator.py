"""helpers/allocator.py: steps that reuse the memory of the step before, counted in page faults and timed.

What it is worth, on a quiet machine: pytest -m slow -s tests/test_allocator.py
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import allocator

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not allocator.keep_freed_memory(), reason="needs Linux with the GNU C library")

STEPS = """
import json, resource, statistics, time
from helpers.allocator import keep_freed_memory
if {kept}:
    keep_freed_memory()
import torch
torch.manual_seed(0)
rows, length = {shape}
ids = torch.randint(10, 1000, (rows, length))
if {name!r} != "layers":  # torch alone, which is imported in a third of the time
    import transformers
    transformers.logging.set_verbosity_error()
if {name!r} == "layers":
    layer = torch.nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    model, inputs = torch.nn.TransformerEncoder(layer, 3), dict(src=torch.randn(rows, length, 128))
elif {name!r} == "pretraining":
    from takehome.gpt2 import build_model
    config = transformers.AutoConfig.from_pretrained({root!r} + "/data/models/gpt2", activation_function="gelu")
    model, inputs = build_model(config), dict(input_ids=ids)
else:
    path = {root!r} + "/data/models/{name}"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, num_labels=2, pad_token_id=0)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids[:, 0] % 2)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
faults, seconds = [], []
for _ in range({steps}):
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    loss = model(**inputs)
    (loss.mean() if torch.is_tensor(loss) else loss.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - begin)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([statistics.median(faults[3:]), statistics.median(seconds[3:]), peak / 1024]))
"""


def run(name: str, shape: tuple[int, int], kept: bool, steps: int = 8, threads: int = 1) -> tuple[float, float, float]:
    """Median page faults and seconds of a training step in a process of its own, and the process's peak in MB."""
    program = STEPS.format(root=str(ROOT), kept=kept, name=name, shape=shape, steps=steps)
    ours = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "scripts")}
    command, environment = [sys.executable, "-c", program], os.environ | ours
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def test_a_step_reuses_the_memory_of_the_last(monkeypatch):
    # left alone, the library moves its threshold by what happens to be freed, differently on each machine; this fixes
    # it at the value that it starts with, and keep_freed_memory has to overrule it
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(128 << 10))
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
