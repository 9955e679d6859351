"""`estimate`: the peak memory of a training step, in closed form where there is one, else traced."""

from __future__ import annotations

from importlib.util import find_spec

from helpers.memory.closed_form import closed_form
from helpers.memory.reading import NoClosedForm, check_fit, config_values, read_config, stored_dtype
from helpers.memory.report import MemoryEstimate
from helpers.memory.settings import Settings, takes
from helpers.memory.tracing import trace_with


@takes(Settings)
def estimate(config, **settings) -> MemoryEstimate:
    """Predicts the peak memory of a training step, for one device.

    For the model types of `FAMILIES` it is a closed form, which takes milliseconds and needs no torch. For all others
    it is what `trace` finds in seconds, and the notes of the result say so.

    Args:
        config: a known name (`KNOWN_MODELS`), a checkpoint directory, a Hub id, a transformers config or a dict.
        settings: see `Settings`.

    Raises:
        ValueError: a setting is nonsense, the model is unknown, the two do not fit together, or there is no closed form
            and the model cannot be traced.
    """
    settings = Settings(**settings)
    values = config_values(config)
    notes = _assumed_dtype(values, settings)
    try:
        a = read_config(config)
    except NoClosedForm as reason:
        return _from_trace(config, settings, str(reason), notes)
    task = settings.task or a.default_task
    if a.family.role == "encoder-decoder" and task != "seq2seq-lm":
        return _from_trace(config, settings, f"{a.name}: no closed form for task={task!r}", notes)
    check_fit(a, settings, task)
    return closed_form(a, settings, task, notes)


def _assumed_dtype(values: dict, settings: Settings) -> tuple[str, ...]:
    """Says what the weights are taken for where the checkpoint is stored in half precision."""
    stored = stored_dtype(values)
    if stored not in ("bfloat16", "float16") or settings.precision == "pure-bf16" or settings.method == "qlora":
        return ()
    return (f"The checkpoint is stored in {stored}; counted: weights in fp32, as dtype=torch.float32 loads them.",)


def _from_trace(config, settings: Settings, reason: str, notes: tuple[str, ...]) -> MemoryEstimate:
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise ValueError(f"{reason}; tracing it instead needs torch and transformers, which are not installed")
    if settings.method == "qlora" or settings.num_gpus > 1:
        what = "4-bit weights" if settings.method == "qlora" else "several GPUs"
        raise ValueError(f"{reason}; and a trace, which would take its place, cannot follow {what}")
    traced = trace_with(config, settings)
    activations = "activations and temporaries"
    step = traced.phase_parts["optimizer step"]
    return MemoryEstimate(
        title=traced.title,
        parameters=traced.parameters,
        trainable_parameters=traced.trainable_parameters,
        weights=step.get("weights", 0),
        gradients=step.get("gradients", 0),
        optimizer_state=step.get("optimizer state", 0),
        activations=traced.phase_parts["forward"].get(activations, 0),
        batch=step.get("batch", 0),
        instants={
            phase: {part.replace(activations, "activations"): size for part, size in parts.items()}
            for phase, parts in traced.phase_parts.items()
        },
        notes=(f"{reason}: traced in {traced.seconds:.1f} s.", *notes, *traced.notes),
        source="trace",
    )
