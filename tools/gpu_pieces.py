"""The pieces of the GPU check, each a program of its own that prints a line of JSON for each thing that it measured.

    python tools/gpu_pieces.py memory --device cuda
    python tools/gpu_pieces.py pretraining --device cpu --tiny       # the same paths, small, without a GPU

`gpu_check.py` runs them one after another, each with a limit of time, and keeps the lines that came.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from helpers import memory
from helpers.flops import GPUS, training_flops

ROOT = Path(__file__).resolve().parent.parent
LESSONS = [f"{number:02}" for number in range(1, 10)]

BF16, PURE, CHECKPOINTING = {"precision": "bf16"}, {"precision": "pure-bf16"}, {"activation_checkpointing": True}
EIGHT_BIT, EAGER = {"optim": "adamw_8bit"}, {"attn_implementation": "eager"}
CLASSES = {"task": "sequence-classification"}
FLASH = {"attn_implementation": "flash_attention_2"}
QWEN3 = {"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
QWEN3 |= {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
QWEN3 |= {"tie_word_embeddings": True, "max_position_embeddings": 4096}
MODERNBERT = {"model_type": "modernbert", "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22}
MODERNBERT |= {"num_attention_heads": 12, "vocab_size": 50368}

# Name: (config, batch size, length, settings of `estimate`); all below 20 GB, by `estimate`.
MEMORY = {
    "GPT-2 124 M": ("gpt2", 8, 1024, {}),
    "GPT-2 124 M, bf16": ("gpt2", 8, 1024, BF16),
    "GPT-2 124 M, eager": ("gpt2", 4, 1024, EAGER),
    "GPT-2 124 M, bf16, flash": ("gpt2", 8, 1024, BF16 | FLASH),
    "GPT-2 124 M, checkpointing": ("gpt2", 8, 1024, CHECKPOINTING),
    "GPT-2 124 M, LoRA": ("gpt2", 8, 1024, BF16 | {"method": "lora"}),
    "GPT-2 124 M, classes": ("gpt2", 16, 512, BF16 | CLASSES | {"padded": True}),
    "GPT-2 medium, bf16": ("gpt2-medium", 4, 1024, BF16),
    "GPT-2 medium, 8-bit AdamW": ("gpt2-medium", 4, 1024, BF16 | EIGHT_BIT),
    "GPT-2 large, bf16, checkpointing": ("gpt2-large", 4, 1024, BF16 | CHECKPOINTING),
    "GPT-2 XL, pure bf16, 8-bit AdamW": ("gpt2-xl", 1, 1024, PURE | EIGHT_BIT | CHECKPOINTING),
    "GPT-2 XL, LoRA, pure bf16": ("gpt2-xl", 2, 1024, PURE | {"method": "lora"}),
    "BERT large": ("bert-large-uncased", 32, 128, CLASSES | {"padded": True}),
    "BERT large, bf16": ("bert-large-uncased", 16, 512, BF16 | CLASSES | {"padded": True}),
    "BERT large, checkpointing": ("bert-large-uncased", 16, 512, BF16 | CHECKPOINTING | CLASSES),
    "ModernBERT base, bf16": (MODERNBERT, 16, 512, BF16 | {"task": "masked-lm"}),
    "Llama 3.2 1B, pure bf16": ("llama-3.2-1b", 2, 1024, PURE),
    "Llama 3.2 1B, LoRA, checkpointing": ("llama-3.2-1b", 4, 1024, PURE | CHECKPOINTING | {"method": "lora"}),
    "Qwen2.5 0.5B, bf16": ("qwen2.5-0.5b", 2, 1024, BF16),
    "Qwen3 0.6B, pure bf16, checkpointing": (QWEN3, 2, 1024, PURE | CHECKPOINTING),
}
_SMALL = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 500, "n_positions": 128}
_SMALL |= {"bos_token_id": 0, "eos_token_id": 0}
TINY_MEMORY = {
    "small": (_SMALL, 2, 64, {}),
    "small, bf16, checkpointing": (_SMALL, 2, 64, BF16 | CHECKPOINTING),
    "small, LoRA, classes": (_SMALL, 2, 64, CLASSES | {"method": "lora", "padded": True}),
}


def tell(**row) -> None:
    """One measurement, as a line for `gpu_check.py`."""
    print(json.dumps(row), flush=True)


# --- Memory --------------------------------------------------------------------------------------


def peaks(config, batch_size: int, length: int, settings: dict, device: str) -> dict:
    """What a training step takes at most, by the device's own count: bytes that tensors held, and what was reserved."""
    import torch

    step = dict(settings)
    checkpointing, optim = step.pop("activation_checkpointing", False), step.pop("optim", "adamw_torch_fused")
    padded, precision = step.pop("padded", False), step.get("precision", "fp32")
    with torch.device(device):
        model = memory.build_model(config, **step)
    model = model.to(device)
    if checkpointing:
        memory.checkpoint_activations(model)
    batch = {key: value.to(device) for key, value in memory.build_batch(model, batch_size, length, padded).items()}
    optimizers = memory.build_optimizers(model, optim)
    with attention_of(settings):
        return peak_of(lambda: memory.training_step(model, batch, optimizers, precision), device)


def peak_of(step, device: str) -> dict:
    """The peak of the second of two steps: the first makes the optimizer's state."""
    import torch

    step()
    if device == "cpu":
        return {"measured": memory.measure(step).peak_bytes}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    used = {"measured": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    return used | {"nvidia_smi": used_by_nvidia_smi()}


def attention_of(settings: dict):
    """For "flash_attention_2" torch's own flash kernel and no other: the package of that name need not be there."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    flash = settings.get("attn_implementation") == "flash_attention_2"
    return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if flash else contextlib.nullcontext()


def used_by_nvidia_smi() -> int | None:
    """Bytes in use on the first visible GPU, as nvidia-smi shows them; None where it does not answer."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", f"--id={gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split()[0]) * 2**20
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def traced(config, shape: dict) -> int:
    return memory.trace(config, **shape).peak_bytes


def memory_piece(device: str, tiny: bool) -> None:
    """`estimate` and `trace` against the allocator's peak."""
    import torch

    cases = TINY_MEMORY if tiny else MEMORY
    shapes = {
        name: dict(per_device_train_batch_size=rows, sequence_length=length, device=device, **settings)
        for name, (_, rows, length, settings) in cases.items()
    }
    spawn = multiprocessing.get_context("spawn")  # a process that has used CUDA cannot be forked
    workers = 1 if tiny else max(1, min(8, (os.cpu_count() or 2) - 1))
    pool = ProcessPoolExecutor(workers, spawn)
    traces = {name: pool.submit(traced, cases[name][0], shapes[name]) for name in cases}
    before = 0
    if device == "cuda":
        torch.mm(*[torch.ones(512, 512, device=device)] * 2)  # the libraries take their workspaces once
        before = torch.cuda.memory_allocated() - 3 * 512 * 512 * 4
    for name, (config, rows, length, settings) in cases.items():
        row = {"name": name, "batch_size": rows, "length": length}
        try:
            row |= peaks(config, rows, length, settings, device)
            row["workspaces"] = max(0, before)
            row["estimate"] = memory.estimate(config, **shapes[name]).peak_bytes
            row["trace"] = traces[name].result()
        except Exception as error:  # the next configuration may fit
            row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        tell(**row)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    pool.shutdown(cancel_futures=True)


# --- Speed ---------------------------------------------------------------------------------------


def pretraining_piece(device: str, tiny: bool) -> None:
    """Tokens a second of pretrain_gpt2.py's step, compiled and not, beside a plain torch loop and Transformers'."""
    import torch
    from pretraining_speed import SHAPES, step_of

    *shape, rows, length = SHAPES["0.7 M"] if tiny else (*SHAPES["124 M"][:4], 16, 1024)
    layers, width, _, vocabulary = shape
    flops = training_flops(
        layers * 12 * width**2 + vocabulary * width,
        rows * length,
        num_hidden_layers=layers,
        hidden_size=width,
        sequence_length=length,
    )
    peak = peak_of_card(device)
    ids = torch.randint(vocabulary, (rows, length + 1), device=device)
    loops = [("program", False), ("torch", False), ("transformers", False)]
    loops += [] if tiny else [("program", True), ("torch", True)]
    for name, compiled in loops:
        start = time.perf_counter()
        torch.manual_seed(0)
        step = step_of(name, shape, "bf16", compiled, device)
        for _ in range(2 if tiny else 5):
            loss = step(ids)
        ready, steps = time.perf_counter(), 0
        while steps < 3 or time.perf_counter() - ready < (0 if tiny else 5):
            loss, steps = step(ids), steps + 1
        seconds = (time.perf_counter() - ready) / steps
        share = flops / seconds / peak if peak else None
        row = {"name": name, "compiled": compiled, "tokens_per_second": rows * length / seconds, "share_of_peak": share}
        tell(**row, warm_up_seconds=ready - start, loss=float(loss))
        del step
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def peak_of_card(device: str) -> float | None:
    """Peak bf16 FLOP/s of this card by its data sheet; None if `helpers.flops` does not list it."""
    import torch

    if device != "cuda":
        return None
    name = torch.cuda.get_device_name().lower().replace(" ", "-")
    found = [gpu for key, gpu in GPUS.items() if re.search(rf"(?<![a-z0-9]){key}(?![a-z0-9])", name)]
    return found[0].half if found else None


def fine_tuning_piece(device: str, tiny: bool) -> None:
    """scripts/fine_tune.py with a model of MiniLM's size, on this device and on the CPU."""
    from tiny_checkpoints import make_checkpoint

    size = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    if not tiny:  # as microsoft/MiniLM-L6; its vocabulary too, of which our texts use a part
        size = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
        size |= {"vocab_size": 30522}
    steps = 4 if tiny else 100
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint("BERT", Path(folder) / "checkpoint", **size)
        for where in dict.fromkeys([device, "cpu"]):
            output = Path(folder) / where
            words = ["--data", str(ROOT / "data" / "documents.csv"), "--checkpoint", str(checkpoint)]
            words += ["--output-dir", str(output), "--max-steps", str(steps), "--max-length", "128"]
            words += ["--use-cpu"] * (where == "cpu")
            program = [sys.executable, str(ROOT / "scripts" / "fine_tune.py"), *words]
            ended = subprocess.run(program, capture_output=True, text=True, encoding="utf-8")
            row = {"device": where, "steps": steps}
            if ended.returncode:
                row["error"] = (ended.stderr.strip().splitlines() or ["no message"])[-1][:300]
            else:
                said = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
                settings, measured = said["settings"], said["measured"]
                row |= {"rows_per_second": steps * settings["batch_size"] / measured["seconds"]}
                row |= {"seconds": measured["seconds"], "bf16": settings["bf16"], "accuracy": said["test"]["accuracy"]}
            tell(**row)


# --- Lessons -------------------------------------------------------------------------------------


def lessons_piece(device: str, tiny: bool) -> None:
    """Every lesson with the reduced data on this device; several at a time, each in its own kernel."""
    import torch
    from matrix import run_lesson

    profile = f'inherits = "reduced"\nuse_cpu = {json.dumps(device == "cpu")}\n'
    fit = 1 if device == "cpu" else max(1, int(torch.cuda.get_device_properties(0).total_memory / 6e9))

    def one(number: str) -> None:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            failed = run_lesson(number, profile, Path(folder))
        cells = {str(place): line for place, line in failed.items()}
        tell(lesson=number, seconds=time.perf_counter() - start, failed=cells)

    with ThreadPoolExecutor(min(len(LESSONS), fit, max(1, (os.cpu_count() or 2) // 2))) as pool:
        list(pool.map(one, LESSONS[:1] if tiny else LESSONS))


PIECES = {
    "memory": memory_piece,
    "pretraining": pretraining_piece,
    "fine_tuning": fine_tuning_piece,
    "lessons": lessons_piece,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", choices=PIECES)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the paths")
    options = parser.parse_args()
    PIECES[options.piece](options.device, options.tiny)


if __name__ == "__main__":
    main()
