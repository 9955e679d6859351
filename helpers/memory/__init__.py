"""How much memory a training step takes: predicted, traced and measured.

Three answers to "will it fit?", each checked against the next:

- `estimate(config, ...)` is a closed form. It needs the numbers of a config, no torch, and takes milliseconds.
- `trace(config or model, ...)` runs two steps on fake tensors: exact for any architecture, seconds, allocates nothing.
- `measure(step)` runs a real step and reports the peak that it reached.

To see where the numbers of the closed form come from, read `blocks` (the tensors of one block), then `closed_form`.

    settings      the settings of a run, checked            tracing       `trace`
    reading       a model's numbers from its config         measuring     `measure`
    architecture  its linear layers and parameters          tracker       counts the storages that are alive
    adapters      LoRA and QLoRA                            cuda_kernels  what CUDA keeps, on fake CPU tensors
    optimizers    their state and temporaries               building      the model, batch and optimizer of a run
    operations    what autograd keeps of each operation     report        tables and pictures
    blocks        one block, and all of them                command_line  `python -m helpers.memory`
    ends          embeddings, head and loss
    sharding      several processes
    closed_form   `estimate`

Sizes are in bytes; 1 GB is 1e9 bytes. On a GPU the kernels' workspaces, the allocator's fragmentation and the CUDA
context (together often 0.5 to 2 GB) come on top: neither a closed form nor a trace can see them.
"""

from helpers.memory.architecture import Architecture
from helpers.memory.building import build_batch, build_model, build_optimizers, training_step
from helpers.memory.closed_form import estimate
from helpers.memory.command_line import main
from helpers.memory.measuring import Measurement, measure
from helpers.memory.reading import KNOWN_MODELS, read_config
from helpers.memory.report import NOT_SEEN, MemoryEstimate
from helpers.memory.settings import ATTENTION, METHODS, OPTIMIZERS, PRECISIONS, SHARDING, TASKS, Settings
from helpers.memory.tracing import Trace, trace

__all__ = [
    "ATTENTION",
    "KNOWN_MODELS",
    "METHODS",
    "NOT_SEEN",
    "OPTIMIZERS",
    "PRECISIONS",
    "SHARDING",
    "TASKS",
    "Architecture",
    "Measurement",
    "MemoryEstimate",
    "Settings",
    "Trace",
    "build_batch",
    "build_model",
    "build_optimizers",
    "estimate",
    "main",
    "measure",
    "read_config",
    "trace",
    "training_step",
]
