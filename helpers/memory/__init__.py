"""How much memory a training step takes: predicted, traced and measured.

Answers to "will it fit?", each checked against the next:

- `estimate(config, ...)` is a closed form for the usual families. It needs the numbers of a config, no torch, and takes
  milliseconds. For other models it traces, and says so.
- `trace(config or model, ...)` runs two steps on fake tensors: exact for nearly any architecture, allocates nothing.
- `estimate_evaluation(config, ...)` is the same for `Trainer.evaluate()`, which keeps every row's logits.
- `estimate_preferences(config, ...)` is the same for training on pairs of answers (DPO), with its reference model.
- `measure(step)` runs a real step and reports the peak that it reached.

To see where the numbers of the closed form come from, read `blocks` (the tensors of one block), then `closed_form`.

    prediction    `estimate`                                tracing       `trace`
    evaluation    `estimate_evaluation`                     end_of_text   how T5 and BART classify, on fake tensors
    preferences   `estimate_preferences`
    settings      the settings of a run, checked            measuring     `measure`
    reading       a model's numbers from its config         tracker       counts the storages that are alive
    families      how the models of each type are built     cuda_kernels  what CUDA keeps, on fake CPU tensors
    architecture  a model's linear layers and parameters    building      the model, batch and optimizer of a run
    adapters      LoRA and QLoRA                            report        tables and pictures
    optimizers    their state and temporaries               command_line  `python -m helpers.memory`
    operations    what autograd keeps of each operation
    attention     the ways to compute it, and what they keep
    blocks        one block, and all of them
    ends          embeddings, head and loss
    sharding      several processes
    closed_form   all of these at each instant of a step

Sizes are in bytes; 1 GB is 1e9 bytes. On a GPU the kernels' workspaces, the allocator's fragmentation and the CUDA
context (together often 0.5 to 2 GB) come on top: neither a closed form nor a trace can see them.
"""

from helpers.memory.architecture import Architecture
from helpers.memory.building import (
    build_batch,
    build_model,
    build_optimizers,
    checkpoint_activations,
    training_step,
)
from helpers.memory.command_line import main
from helpers.memory.evaluation import EvaluationEstimate, estimate_evaluation
from helpers.memory.measuring import Measurement, measure
from helpers.memory.prediction import estimate
from helpers.memory.preferences import estimate_preferences
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
    "EvaluationEstimate",
    "Measurement",
    "MemoryEstimate",
    "Settings",
    "Trace",
    "build_batch",
    "build_model",
    "build_optimizers",
    "checkpoint_activations",
    "estimate",
    "estimate_evaluation",
    "estimate_preferences",
    "main",
    "measure",
    "read_config",
    "trace",
    "training_step",
]
