"""`trace`: the exact peak of a training step, from two steps on fake tensors, which have sizes but no memory."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from dataclasses import dataclass
from unittest.mock import patch

from helpers.memory.building import (
    build_batch,
    build_model,
    build_optimizers,
    checkpoint_activations,
    training_step,
)
from helpers.memory.reading import NoClosedForm, check_any_sizes, check_fit, config_values, model_name, read_config
from helpers.memory.report import NOT_SEEN, size_text
from helpers.memory.settings import Settings, takes


@dataclass(frozen=True)
class Trace:
    """The exact peak of a training step, found on fake tensors. All sizes in bytes.

    Attributes:
        title: what was traced, in a line.
        parameters, trainable_parameters: of the whole model, without adapters in the first.
        phases: the peak within "forward", "backward" and "optimizer step".
        phase_parts: what is alive at each of these peaks.
        seconds: how long tracing took.
        notes: what the figure assumes and does not see.
    """

    title: str
    parameters: int
    trainable_parameters: int
    phases: dict[str, int]
    phase_parts: dict[str, dict[str, int]]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """The largest sum of all live tensors during the second step."""
        return max(self.phases.values())

    @property
    def parts(self) -> dict[str, int]:
        """What is alive at the peak; adds up to `peak_bytes`."""
        return self.phase_parts[max(self.phases, key=self.phases.get)]

    @property
    def peak_gb(self) -> float:
        """Peak in GB of 1e9 bytes."""
        return self.peak_bytes / 1e9

    def __str__(self) -> str:
        lines = [f"peak {size_text(self.peak_bytes)}, traced in {self.seconds:.1f} s"]
        lines += [f"  {name:<28}{size_text(size):>12}" for name, size in self.parts.items()]
        lines += [f"  peak in {name:<20}{size_text(size):>12}" for name, size in self.phases.items()]
        return "\n".join([*lines, *self.notes])


@takes(Settings)
def trace(model, **settings) -> Trace:
    """Finds the exact peak of a training step by running two steps on fake tensors: sizes without memory.

    The first step alone would be too low: the optimizer makes its state at the end of it. Works for nearly any
    architecture of transformers, and for a model object with its adapters and its attention; the object itself is not
    changed. Keys and values are not cached (`use_cache`), as in Trainer; your own loop has to switch that off.

    Args:
        model: what `estimate` accepts, a config of any other architecture, or a model (then `attn_implementation`,
            `method` and the LoRA settings are the model's own).
        settings: see `Settings`; of one device. "cuda" follows what CUDA's kernels keep, a projection when no GPU is
            there.

    Raises:
        ValueError: a setting is nonsense, or fake tensors cannot follow the model: 4-bit weights are asked for, or what
            it does depends on the numbers in a batch.
    """
    return trace_with(model, Settings(**settings))


def trace_with(model, settings: Settings) -> Trace:
    """`trace` with the settings in one object."""
    import torch

    start = time.perf_counter()
    if settings.num_gpus > 1:
        raise ValueError("trace() follows one device; estimate() knows num_gpus and sharding of models it knows")
    built = isinstance(model, torch.nn.Module)
    if settings.method == "qlora" or (built and any(hasattr(p, "quant_state") for p in model.parameters())):
        raise ValueError("trace() cannot follow 4-bit weights on fake tensors; use estimate() or measure()")
    config = model.config if built else model
    values = config_values(config)
    name = model_name(config, values)
    if built and settings.precision == "pure-bf16" and model.dtype == torch.float32:
        raise ValueError(f"{name}: its weights are in fp32; for pure-bf16 load it with dtype=torch.bfloat16")
    with contextlib.suppress(NoClosedForm):
        check_fit(read_config(config), settings, settings.task)
    with _in_one_line(name):
        if not built:
            model = _build_without_weights(model, values, settings)
        phases = _traced_steps(model, settings)
    added = ("lora_", "modules_to_save")  # by PEFT
    base = sum(p.numel() for key, p in model.named_parameters() if not any(word in key for word in added))
    return Trace(
        title=f"{name} ({base / 1e6:,.1f} M parameters), {type(model).__name__}, {settings.title}",
        parameters=base,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        phases={phase: size for phase, (size, _) in phases.items()},
        phase_parts={phase: _named(parts) for phase, (_, parts) in phases.items()},
        seconds=time.perf_counter() - start,
        notes=_notes(model, settings, built),
    )


def _named(parts: dict[str | None, int]) -> dict[str, int]:
    return {kind or "activations and temporaries": size for kind, size in parts.items() if size}


def _notes(model, settings: Settings, built: bool) -> tuple[str, ...]:
    notes = []
    used = getattr(model.config, "_attn_implementation", None)
    if not built and settings.attn_implementation == "sdpa" and used != "sdpa":
        notes.append(f"This model has no sdpa: traced with what it uses by default ({used or 'its own'}).")
    return (*notes, NOT_SEEN) if settings.on_gpu else tuple(notes)


@contextlib.contextmanager
def _in_one_line(name: str):
    """Turns whatever a model raises on fake tensors into a ValueError of one line."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    logging.getLogger("torch._subclasses.fake_tensor").disabled = True  # it logs a whole traceback
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValueError(
            f"{name}: cannot be traced, because what it does depends on the numbers in a batch ({error}), which fake "
            "tensors do not have; use measure()"
        ) from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: cannot be traced: {reason[:300]}") from error
    finally:
        logging.getLogger("torch._subclasses.fake_tensor").disabled = False


def _build_without_weights(config, values: dict, settings: Settings):
    """The model that the settings mean, on torch's "meta" device."""
    import torch

    check_any_sizes(model_name(config, values), values)
    with torch.device("meta"):
        return build_model(
            config,
            task=settings.task,
            precision=settings.precision,
            attn_implementation=settings.attn_implementation,
            method=settings.method,
            lora_rank=settings.lora_rank,
            lora_target_modules=settings.lora_target_modules,
        )


def _traced_steps(model, settings: Settings) -> dict[str, tuple[int, dict]]:
    """For each phase of the second step its peak in bytes, and what was alive then."""
    from helpers.memory.end_of_text import one_end_of_text
    from helpers.memory.tracker import Tracker

    with _fake_tensors(settings):
        model = _fake_copy(model)
        model.config.use_cache = False  # as Trainer sets it
        if model.config.problem_type is None:  # DeBERTa looks at the labels, unless it is told
            model.config.problem_type = "single_label_classification"
        if settings.activation_checkpointing:
            checkpoint_activations(model)
        batch = build_batch(model, settings.per_device_train_batch_size, settings.sequence_length, settings.padded)
        optimizers = build_optimizers(model, _optimizer_on(settings))
        tracker = Tracker(cuda=settings.on_gpu)
        tracker.add([*model.parameters(), *model.buffers()], "weights")
        tracker.add(batch, "batch")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: tracker.add(p.grad, "gradients"))
        phases = {}

        def after(phase):
            phases[phase] = tracker.peak, tracker.parts
            tracker.start_phase()

        with tracker, one_end_of_text(model):
            training_step(model, batch, optimizers, settings.precision)
            for optimizer in optimizers:
                tracker.add([list(state.values()) for state in optimizer.state.values()], "optimizer state")
            tracker.start_phase()
            training_step(model, batch, optimizers, settings.precision, after)
    return phases


def _optimizer_on(settings: Settings) -> str:
    """torch's own AdamW takes all parameters at once on CUDA, one after another on the CPU."""
    if settings.optim != "adamw_torch":
        return settings.optim
    return "adamw_torch_foreach" if settings.on_gpu else "adamw_torch_forloop"


@contextlib.contextmanager
def _fake_tensors(settings: Settings):
    """Within it all new tensors are fake: they have sizes, no memory and no numbers."""
    import transformers.integrations.moe
    import transformers.masking_utils
    from torch._subclasses import FakeTensorMode

    from helpers.memory.cuda_kernels import cuda_kernels

    # On fake tensors transformers cannot see that a batch is not packed, and would build a mask that no real one has.
    unpacked = patch.object(transformers.masking_utils, "find_packed_sequence_indices", lambda *_, **__: None)
    # torch's own product of experts has no fp32 on fake tensors; the one of transformers keeps the same.
    experts = patch.object(transformers.integrations.moe, "_can_use_grouped_mm", lambda *_: False)
    kernels = cuda_kernels() if settings.on_gpu else contextlib.nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), unpacked, experts, kernels:
        yield


def _fake_copy(model):
    """The model with a fake tensor in place of each parameter and buffer; call it under FakeTensorMode."""
    import torch

    def fake(tensor):
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)

    fakes = {id(p): torch.nn.Parameter(fake(p), requires_grad=p.requires_grad) for p in model.parameters()}
    fakes |= {id(buffer): fake(buffer) for buffer in model.buffers()}
    return copy.deepcopy(model, fakes).train()
