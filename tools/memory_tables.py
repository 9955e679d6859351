"""The tables behind `helpers.memory`: predicted and traced peaks beside what the real allocator handed out.

    python tools/memory_tables.py accuracy      trace and estimate against real steps on the CPU
    python tools/memory_tables.py architectures trace and estimate on the architectures that people fine-tune
    python tools/memory_tables.py adapters      LoRA and QLoRA against PEFT and bitsandbytes
    python tools/memory_tables.py sharding      DDP, ZeRO and FSDP against two real processes
    python tools/memory_tables.py comparison    other people's rules on the same steps, and their picture for README
    python tools/memory_tables.py times         predicted seconds: measured steps, published training times

The cases are in memory_cases.py; how the truth is counted, in memory_truth.py, which shares no code with
`helpers.memory`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from memory_cases import (
    ADAPTERS,
    ARCHITECTURE_SETTINGS,
    ARCHITECTURE_SHAPE,
    ARCHITECTURES,
    BERT,
    CONFIGURATIONS,
    GPT2,
    LLAMA,
    NO_DROPOUT,
    PUBLISHED,
    SHARDED,
)
from memory_truth import quiet, real_peak, sharded_process, trainer_peaks

from helpers import memory
from helpers.palette import BLUE, VERMILLION


def compare(rows) -> None:
    """Prints one line for each (name, real, traced or None, estimate), and the errors of both columns."""
    print(f"{'configuration':<46}{'real MB':>9}{'traced':>9}{'error':>9}{'estimate':>10}{'error':>9}   peak at")
    errors = {"trace": [], "estimate": []}
    for name, real, traced, estimated in rows:
        error = estimated.peak_bytes / real - 1
        errors["estimate"].append(abs(error))
        line = f"{name:<46}{real / 1e6:>9.2f}"
        if traced is None:
            line += f"{'':>18}"
        else:
            errors["trace"].append(abs(traced / real - 1))
            line += f"{traced / 1e6:>9.2f}{traced / real - 1:>9.3%}"
        print(f"{line}{estimated.peak_bytes / 1e6:>10.2f}{error:>9.2%}   {estimated.peak_instant}", flush=True)
    for name, values in errors.items():
        if values:
            print(f"{name}: median error {statistics.median(values):.3%}, largest {max(values):.3%}, of {len(values)}")


def accuracy() -> None:
    """Trace and estimate against the real allocator, then whole `Trainer` runs."""

    def rows():
        for name, (config, batch_size, length, settings) in (CONFIGURATIONS | PUBLISHED).items():
            shape = {"per_device_train_batch_size": batch_size, "sequence_length": length, "device": "cpu"}
            real = real_peak(config, batch_size, length, **settings)
            traced = memory.trace(config, **shape, **settings).peak_bytes
            yield name, real, traced, memory.estimate(config, **shape, **settings)

    compare(rows())
    print("\nA whole Trainer.train() of four steps: the allocator, measure(), and a trace of the plain loop")
    for name, config in (("gpt2", GPT2), ("llama", LLAMA)):
        real, measured = trainer_peaks(config, 4, 128)
        traced = memory.trace(config, per_device_train_batch_size=4, sequence_length=128, device="cpu").peak_bytes
        print(f"{name:<34}{real / 1e6:>9.2f}   measure {measured / real - 1:>7.3%}   trace {traced / real - 1:>7.3%}")


def adapters() -> None:
    """The estimate of LoRA and QLoRA against real PEFT and bitsandbytes."""

    def rows():
        for name, (config, batch_size, length, settings) in ADAPTERS.items():
            shape = {"per_device_train_batch_size": batch_size, "sequence_length": length, "device": "cpu"}
            real = real_peak(config, batch_size, length, **settings)
            traced = None
            if settings["method"] == "lora":
                traced = memory.trace(config, **shape, **settings).peak_bytes
            yield name, real, traced, memory.estimate(config, **shape, **settings)

    compare(rows())


def architectures() -> None:
    """Trace and estimate on one small model of each architecture, or the line that they say instead.

    The trace is compared with a real step on the CPU (fp32), the closed form with the trace, for each of the settings.
    """
    errors = []
    print(f"{'architecture':<13}{'settings':<26}{'real MB':>9}{'trace':>9}{'estimate':>10}   estimate by")
    for name, config in ARCHITECTURES.items():
        for said, settings in ARCHITECTURE_SETTINGS.items():
            try:
                traced, estimated = traced_and_estimated(config, settings)
            except ValueError as line:
                print(f"{name:<13}{said:<26}{line}", flush=True)
                continue
            error = estimated.peak_bytes / traced.peak_bytes - 1
            real = real_peak(config, *ARCHITECTURE_SHAPE) if not settings else None
            truth = f"{real / 1e6:>9.2f}{traced.peak_bytes / real - 1:>9.2%}" if real else f"{'':>18}"
            print(f"{name:<13}{said:<26}{truth}{error:>10.2%}   {estimated.source}", flush=True)
            if estimated.source == "trace":
                break  # the two are the same whatever the settings
            errors.append(abs(error))
    print(f"closed form: median error {statistics.median(errors):.3%}, largest {max(errors):.3%}, of {len(errors)}")


def traced_and_estimated(config, settings):
    """The trace and the estimate of a step on the CPU."""
    batch_size, length = ARCHITECTURE_SHAPE
    shape = {"per_device_train_batch_size": batch_size, "sequence_length": length, "device": "cpu"}
    return memory.trace(config, **shape, **settings), memory.estimate(config, **shape, **settings)


def sharding() -> None:
    """The estimate of DDP, ZeRO and FSDP against what two real processes (gloo) were handed by the C library."""
    import torch.multiprocessing

    def rows():
        for name, (config, batch_size, length, settings) in SHARDED.items():
            for kind in memory.SHARDING:
                with tempfile.TemporaryDirectory() as directory:
                    peaks = Path(directory) / "peaks"
                    task = (directory, kind, config, batch_size, length, settings)
                    torch.multiprocessing.spawn(sharded_process, task, nprocs=2)
                    real = max(int(line) for line in peaks.read_text(encoding="utf-8").split())
                yield (
                    f"{name}, {kind}",
                    real,
                    None,
                    memory.estimate(
                        config,
                        per_device_train_batch_size=batch_size,
                        sequence_length=length,
                        num_gpus=2,
                        sharding=kind,
                        device="cpu",
                        **settings,
                    ),
                )

    compare(rows())


def rules(config, batch_size, length, settings) -> dict[str, float]:
    """What other people's rules say about the same step, in bytes; each is given the benefit of the doubt.

    accelerate estimate-memory: its own function, on the model's size in fp32.
    16 bytes a parameter: weights, gradients and two Adam moments in fp32, or the same number in mixed precision.
    EleutherAI: calc_transformer_mem.py of github.com/EleutherAI/cookbook, with its own parameter count, the model's
        MLP and a tensor's true width.
    Korthikanti et al. 2022 (arXiv:2205.05198), section 4: 34 + 5 a s / h bytes a token, layer and feature in half
        precision, (doubled, but for dropout's masks, in fp32), 4 s b h (1 + v / h) for the output, and 16 bytes a
        parameter.
    """
    from accelerate.commands.estimate import estimate_training_usage

    a = memory.read_config(config)
    task = settings.get("task") or ("causal-lm" if a.is_decoder else "sequence-classification")
    parameters = a.parameters(task)
    half = settings.get("precision", "fp32") != "fp32"
    width = 2 if half else 4
    d, s, v, f = a.hidden_size, length, a.vocab_size, a.intermediate_size
    cells, scores = length * batch_size * d * a.num_hidden_layers, a.num_attention_heads * length / d
    counted = 2 * v * d + d * s + 8 * d * a.num_hidden_layers + 2 * d
    counted += a.num_hidden_layers * (4 * d * d + (3 if a.gated else 2) * d * f)
    masks = 2 + scores  # one byte each
    korthikanti = 16 * parameters + cells * ((32 + 4 * scores) * width / 2 + masks)
    korthikanti += 4 * s * batch_size * d * (1 + v / d) if task != "sequence-classification" else 0
    return {
        "accelerate": estimate_training_usage(4 * parameters, "bfloat16" if half else "float32")["step"],
        "16 bytes": 16 * parameters,
        "EleutherAI": counted * (width + 4 + 12) + cells * (16 * width + 2 + (2 * width + 1) * scores),
        "Korthikanti": korthikanti,
    }


def errors_of_rules() -> dict[str, list[float]]:
    """Relative errors of five ways to predict the same real steps, printed row by row."""
    chosen = {
        name: row
        for name, row in (CONFIGURATIONS | PUBLISHED).items()
        if "optim" not in row[3] and "activation_checkpointing" not in row[3] and row[3].get("precision") != "pure-bf16"
    }
    errors = {name: [] for name in ("accelerate", "16 bytes", "EleutherAI", "Korthikanti", "estimate")}
    print(f"{'configuration':<40}{'real MB':>9}" + "".join(f"{name:>13}" for name in errors))
    for label, (config, batch_size, length, settings) in chosen.items():
        real = real_peak(config, batch_size, length, **settings)
        predicted = rules(config, batch_size, length, settings)
        predicted["estimate"] = memory.estimate(
            config, per_device_train_batch_size=batch_size, sequence_length=length, device="cpu", **settings
        ).peak_bytes
        for name, values in errors.items():
            values.append(predicted[name] / real - 1)
        line = "".join(f"{values[-1]:>+13.1%}" for values in errors.values())
        print(f"{label:<40}{real / 1e6:>9.1f}{line}", flush=True)
    for title, summary in (("median error", statistics.median), ("largest error", max)):
        line = "".join(f"{summary([abs(error) for error in values]):>13.1%}" for values in errors.values())
        print(f"{title:<49}{line}")
    return errors


def comparison() -> None:
    """Five ways to predict the peak of the same real steps, with AdamW and without checkpointing, and their picture."""
    errors = errors_of_rules()
    draw(errors, Path(__file__).with_suffix(".svg"))


def draw(errors: dict[str, list[float]], path: Path) -> None:
    """Draws the errors: one dot for each step, one row for each rule, the median in words."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "memory"  # the same errors make the same file
    import matplotlib.pyplot as plt

    names = {
        "accelerate": "accelerate estimate-memory",
        "16 bytes": "16 bytes a parameter",
        "EleutherAI": "EleutherAI's calculator",
        "Korthikanti": "Korthikanti et al. 2022",
        "estimate": "helpers.memory",
    }
    axes = plt.subplots(figsize=(8, 2.9), layout="constrained")[1]
    axes.axvline(0, color="#333333", linewidth=1)
    for row, (rule, values) in enumerate(reversed(errors.items())):
        colour = BLUE if rule == "estimate" else VERMILLION
        axes.plot([100 * value for value in values], [row] * len(values), "o", color=colour, alpha=0.5, markersize=6)
        median = statistics.median(abs(value) for value in values)
        axes.text(102, row, f"{100 * median:.2g} %", va="center", ha="right", fontsize=9)
    axes.text(102, len(errors) - 0.45, "median error", ha="right", fontsize=9)
    axes.set_yticks(range(len(errors)), [names[rule] for rule in reversed(errors)])
    axes.set_ylim(-0.6, len(errors) - 0.1)
    axes.set_xlim(-100, 104)
    axes.set_xlabel(f"predicted peak against the measured one, in % ({len(values)} training steps)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    path.parent.mkdir(exist_ok=True)
    axes.figure.savefig(path, metadata={"Date": None})


def times() -> None:
    """Predicted seconds of a step from a calibration, beside the fastest measured; then published training times."""
    from helpers import flops

    print(f"{'one step of':<34}{'predicted ms':>14}{'measured ms':>13}{'ratio':>8}")
    for name, config, batch_size, length in (
        ("gpt2, 2 x 256", GPT2 | NO_DROPOUT, 2, 256),
        ("llama, 4 x 128", LLAMA, 4, 128),
        ("bert, 8 x 96", BERT, 8, 96),
    ):
        a = memory.read_config(config)
        task = "causal-lm" if a.is_decoder else "sequence-classification"
        work = flops.training_flops(
            a.matmul_parameters(task),
            batch_size * length,
            num_hidden_layers=a.num_hidden_layers,
            hidden_size=a.hidden_size,
            sequence_length=length,
        )
        predicted = flops.predict_time(work, flops.calibrate(width=a.hidden_size, tokens=batch_size * length)).seconds
        model = memory.build_model(config)
        batch, optimizers = memory.build_batch(model, batch_size, length), memory.build_optimizers(model, "sgd")
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            memory.training_step(model, batch, optimizers)
            seconds.append(time.perf_counter() - start)
        fastest = min(seconds)
        print(f"{name:<34}{predicted * 1e3:>14.1f}{fastest * 1e3:>13.1f}{predicted / fastest:>8.2f}", flush=True)

    print(f"\n{'published':<46}{'GPUs':>10}{'hours':>9}{'at 40 %':>10}{'utilization':>13}  remark")
    for run in flops.PUBLISHED_RUNS:
        rate = getattr(flops.GPUS[run.gpu], run.precision)
        hours = flops.predict_time(run.flops, rate, utilization=0.4, num_gpus=run.num_gpus).seconds / 3600
        gpus = f"{run.num_gpus} {run.gpu}"
        print(f"{run.name:<46}{gpus:>10}{run.hours:>9,.0f}{hours:>10,.1f}{run.utilization:>13.1%}  {run.remark}")


if __name__ == "__main__":
    tables = {
        "accuracy": accuracy,
        "architectures": architectures,
        "adapters": adapters,
        "sharding": sharding,
        "comparison": comparison,
        "times": times,
    }
    wanted = sys.argv[1:] or list(tables)
    if unknown := [name for name in wanted if name not in tables]:
        sys.exit(f"no table {unknown[0]!r}; choose from {', '.join(tables)}")
    quiet()
    for name in wanted:
        start = time.perf_counter()
        print(f"\n{tables[name].__doc__.strip()}\n")
        tables[name]()
        print(f"({time.perf_counter() - start:.0f} s)")
