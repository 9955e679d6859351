"""The tables behind `helpers.memory`: predicted and traced peaks beside what the real allocator handed out.

    python tools/memory_tables.py accuracy      trace and estimate against real steps on the CPU
    python tools/memory_tables.py adapters      LoRA and QLoRA against PEFT and bitsandbytes
    python tools/memory_tables.py sharding      DDP, ZeRO and FSDP against two real processes
    python tools/memory_tables.py comparison    other people's rules on the same steps, and their picture for README
    python tools/memory_tables.py times         predicted seconds: measured steps, published training times

The truth is the profiler's record of every allocation and release of torch's CPU allocator, for two processes the count
of the C library (Linux). Neither shares code with the tracker in `helpers.memory`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from helpers import memory
from helpers.palette import BLUE, VERMILLION

# Small shapes: what makes memory does not depend on the size, and a step takes well under a second.
GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_embd": 192, "n_head": 6, "vocab_size": 4096, "n_positions": 512,
        "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
BERT = {"model_type": "bert", "num_hidden_layers": 3, "hidden_size": 192, "intermediate_size": 768,
        "num_attention_heads": 6, "vocab_size": 4096}  # fmt: skip
ROBERTA = BERT | {"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1}
DISTILBERT = {"model_type": "distilbert", "n_layers": 3, "dim": 192, "hidden_dim": 768, "n_heads": 6,
              "vocab_size": 4096}  # fmt: skip
LLAMA = {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 192, "intermediate_size": 512,
         "num_attention_heads": 6, "num_key_value_heads": 6, "vocab_size": 4096,
         "max_position_embeddings": 512}  # fmt: skip
QWEN2 = LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True}
MISTRAL = LLAMA | {"model_type": "mistral", "num_key_value_heads": 2}

# name: (config, batch size, sequence length, settings)
CONFIGURATIONS = {
    "gpt2, eager": (GPT2, 4, 128, {"attn_implementation": "eager"}),
    "gpt2, sdpa": (GPT2, 4, 128, {}),
    "gpt2, sdpa, no dropout": (GPT2 | NO_DROPOUT, 4, 128, {}),
    "gpt2, sdpa, padded": (GPT2 | NO_DROPOUT, 4, 128, {"padded": True}),
    "gpt2, eager, autocast": (GPT2, 4, 128, {"attn_implementation": "eager", "precision": "bf16"}),
    "gpt2, sdpa, autocast": (GPT2 | NO_DROPOUT, 4, 128, {"precision": "bf16"}),
    "gpt2, eager, bf16": (GPT2, 4, 128, {"attn_implementation": "eager", "precision": "pure-bf16"}),
    "gpt2, sdpa, bf16": (GPT2 | NO_DROPOUT, 4, 128, {"precision": "pure-bf16"}),
    "gpt2, checkpointing": (GPT2, 4, 128, {"activation_checkpointing": True}),
    "gpt2, checkpointing, autocast": (GPT2, 4, 128, {"activation_checkpointing": True, "precision": "bf16"}),
    "gpt2, classification": (GPT2, 4, 128, {"task": "sequence-classification"}),
    "gpt2, long": (GPT2, 1, 512, {"attn_implementation": "eager"}),
    "gpt2, large vocabulary": (GPT2 | {"vocab_size": 20000}, 2, 128, {}),
    "gpt2, foreach": (GPT2, 1, 32, {"optim": "adamw_torch_foreach"}),
    "gpt2, for-loop": (GPT2, 1, 32, {"optim": "adamw_torch_forloop"}),
    "gpt2, fused": (GPT2, 1, 32, {}),
    "gpt2, 8-bit AdamW": (GPT2, 1, 32, {"optim": "adamw_8bit"}),
    "gpt2, bf16, 8-bit AdamW": (GPT2, 1, 32, {"precision": "pure-bf16", "optim": "adamw_8bit"}),
    "gpt2, Adafactor": (GPT2, 1, 32, {"optim": "adafactor"}),
    "gpt2, SGD": (GPT2, 1, 32, {"optim": "sgd"}),
    "gpt2, Muon": (GPT2, 1, 32, {"optim": "muon"}),
    "gpt2, SGD, large batch": (GPT2, 4, 128, {"optim": "sgd"}),
    "bert, eager": (BERT, 8, 96, {"attn_implementation": "eager"}),
    "bert, sdpa": (BERT, 8, 96, {}),
    "bert, padded": (BERT, 8, 96, {"padded": True}),
    "bert, autocast": (BERT, 8, 96, {"precision": "bf16"}),
    "bert, bf16": (BERT, 8, 96, {"precision": "pure-bf16"}),
    "bert, checkpointing": (BERT, 8, 96, {"activation_checkpointing": True}),
    "bert, masked": (BERT, 8, 96, {"task": "masked-lm"}),
    "roberta, sdpa": (ROBERTA, 8, 96, {}),
    "distilbert, eager": (DISTILBERT, 8, 96, {"attn_implementation": "eager"}),
    "distilbert, sdpa": (DISTILBERT, 8, 96, {}),
    "distilbert, autocast": (DISTILBERT, 8, 96, {"precision": "bf16"}),
    "distilbert, masked": (DISTILBERT, 8, 96, {"task": "masked-lm"}),
    "llama, eager": (LLAMA, 4, 128, {"attn_implementation": "eager"}),
    "llama, sdpa": (LLAMA, 4, 128, {}),
    "llama, autocast": (LLAMA, 4, 128, {"precision": "bf16"}),
    "llama, bf16": (LLAMA, 4, 128, {"precision": "pure-bf16"}),
    "llama, checkpointing": (LLAMA, 4, 128, {"activation_checkpointing": True}),
    "llama, classification": (LLAMA, 4, 128, {"task": "sequence-classification"}),
    "qwen2, eager": (QWEN2, 4, 128, {"attn_implementation": "eager"}),
    "qwen2, sdpa": (QWEN2, 4, 128, {}),
    "qwen2, sdpa, padded": (QWEN2, 4, 128, {"padded": True}),
    "qwen2, bf16": (QWEN2, 4, 128, {"precision": "pure-bf16"}),
    "mistral, sdpa": (MISTRAL, 4, 128, {}),
    # a tied table's two gradients; one key/value head; masks beside checkpointing; loops that hold two temporaries
    "gpt2, autocast, small batch": (GPT2, 1, 32, {"precision": "bf16"}),
    "gpt2, classification, padded": (GPT2 | NO_DROPOUT, 4, 128, {"task": "sequence-classification", "padded": True}),
    "gpt2, eager, padded, autocast, checkpointing": (GPT2, 4, 128, {
        "attn_implementation": "eager", "padded": True, "precision": "bf16", "activation_checkpointing": True}),
    "bert, padded, bf16, checkpointing": (BERT, 8, 96, {"padded": True, "precision": "pure-bf16",
                                                        "activation_checkpointing": True}),
    "llama, classification, autocast, eager": (LLAMA, 4, 128, {
        "task": "sequence-classification", "precision": "bf16", "attn_implementation": "eager"}),
    "llama, one key/value head, padded": (LLAMA | {"num_key_value_heads": 1}, 4, 128, {"padded": True}),
    "mistral, for-loop": (MISTRAL, 1, 32, {"optim": "adamw_torch_forloop"}),
    "qwen2, bf16, Adafactor": (QWEN2, 1, 32, {"precision": "pure-bf16", "optim": "adafactor"}),
}  # fmt: skip

PUBLISHED = {
    "gpt2 124 M, sdpa": ("gpt2", 1, 128, {}),
    "bert-base, autocast": ("bert-base-uncased", 4, 64, {"precision": "bf16"}),
}

ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL_VOCABULARY = {"vocab_size": 512}
ADAPTERS = {
    "gpt2, LoRA": (GPT2, 4, 128, {"method": "lora"}),
    "gpt2, LoRA, rank 64, MLP too": (GPT2, 4, 128, {"method": "lora", "lora_rank": 64,
                                                    "lora_target_modules": ("c_attn", "c_fc")}),
    "gpt2, LoRA, classification": (GPT2, 4, 128, {"method": "lora", "task": "sequence-classification"}),
    "gpt2, LoRA, classification, all linears": (GPT2, 4, 128, {"method": "lora", "task": "sequence-classification",
                                                              "lora_target_modules": ("c_attn", "c_proj", "c_fc")}),
    "gpt2, LoRA, checkpointing": (GPT2, 4, 128, {"method": "lora", "activation_checkpointing": True}),
    "bert, LoRA": (BERT, 8, 96, {"method": "lora"}),
    "bert, LoRA, bf16, checkpointing": (BERT, 8, 96, {"method": "lora", "precision": "pure-bf16",
                                                      "activation_checkpointing": True}),
    "distilbert, LoRA, masked": (DISTILBERT, 8, 96, {"method": "lora", "task": "masked-lm"}),
    "distilbert, LoRA, autocast": (DISTILBERT, 8, 96, {"method": "lora", "precision": "bf16"}),
    "llama, LoRA": (LLAMA, 4, 128, {"method": "lora"}),
    "llama, LoRA, all linears": (LLAMA, 4, 128, {"method": "lora", "lora_rank": 16,
                                                 "lora_target_modules": ALL_LINEARS}),
    "llama, LoRA, autocast": (LLAMA, 4, 128, {"method": "lora", "precision": "bf16"}),
    "qwen2, LoRA, bf16": (QWEN2, 4, 128, {"method": "lora", "precision": "pure-bf16"}),
    "llama, QLoRA": (LLAMA, 4, 128, {"method": "qlora", "precision": "pure-bf16"}),
    "llama, QLoRA, small vocabulary": (LLAMA | SMALL_VOCABULARY, 4, 128, {"method": "qlora",
                                                                          "precision": "pure-bf16"}),
    "qwen2, QLoRA, rank 32": (QWEN2 | SMALL_VOCABULARY, 4, 128, {"method": "qlora", "precision": "pure-bf16",
                                                                 "lora_rank": 32}),
    "llama, QLoRA, checkpointing": (LLAMA | SMALL_VOCABULARY, 8, 256, {"method": "qlora", "precision": "pure-bf16",
                                                                       "activation_checkpointing": True}),
}  # fmt: skip

# Enough blocks that one of them is a small part of the whole, as in a real model.
SHARDED = {
    "gpt2, small batch": (GPT2 | {"n_layer": 12}, 1, 32, {}),
    "gpt2, large batch": (GPT2 | {"n_layer": 12}, 4, 128, {}),
    "llama, small batch": (LLAMA | {"num_hidden_layers": 12}, 1, 32, {}),
    "llama, checkpointing": (LLAMA | {"num_hidden_layers": 12}, 4, 128, {"activation_checkpointing": True}),
}


def allocator_peak(prepare) -> int:
    """Peak bytes of torch's CPU allocator during a step that `prepare()` makes, after a first one.

    Everything that is alive by then was allocated inside `prepare` or the first step, so nothing is missed.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    gc.collect()  # what is left of an earlier model must not be released within
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = prepare()
        step()
        gc.collect()
        with record_function("measured step"):
            step()
    events = profiler.profiler.kineto_results.events()
    sizes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    measured = next(event for event in events if event.name() == "measured step")
    current = peak = 0
    for moment, size in sizes:
        current += size
        if measured.start_ns() <= moment <= measured.start_ns() + measured.duration_ns():
            peak = max(peak, current)
    return peak


def malloc_peak(step, resting) -> int:
    """Peak bytes that the C library (glibc) has handed out during a step, looked at after each operation of torch.

    It knows every thread. The profiler does not see what gloo's threads release. `resting()` gives the bytes of the
    tensors that are alive between steps; what Python's objects take during a step, about half a megabyte, is in it.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    fields = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    counts = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields]})
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = counts

    def handed_out():
        now = library.mallinfo2()
        return now.uordblks + now.hblkhd

    class Watch(TorchDispatchMode):
        peak = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            self.peak = max(self.peak, handed_out())
            return result

    peaks = []
    step()
    for _ in range(3):
        gc.collect()
        time.sleep(0.3)  # until gloo's threads have let go of the last buffers
        before = handed_out()
        with Watch() as watch:
            step()
        peaks.append(watch.peak - before + resting())
    return sorted(peaks)[1]


def real_peak(
    config, batch_size, length, *, precision="fp32", activation_checkpointing=False, optim="adamw_torch_fused",
    padded=False, method="full", **model_settings,
) -> int:  # fmt: skip
    """Peak bytes of a real second training step on the CPU."""
    loaded = four_bit_model(config, **model_settings) if method == "qlora" else None

    def prepare():
        model = loaded or memory.build_model(config, precision=precision, method=method, **model_settings)
        if activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch = memory.build_batch(model, batch_size, length, padded)
        optimizers = memory.build_optimizers(model, optim)
        autocast = "fp32" if method == "qlora" else precision
        return lambda: memory.training_step(model, batch, optimizers, autocast)

    # The threads that load a checkpoint are out of the profiler's sight, so what they allocated is added.
    return allocator_peak(prepare) + (loaded_bytes(loaded) if loaded else 0)


def four_bit_model(config, lora_rank=8):
    """A Llama-like model with NF4 weights, double quantisation, bf16 computation and LoRA adapters from PEFT."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    with tempfile.TemporaryDirectory() as directory:
        memory.build_model(config, precision="pure-bf16").save_pretrained(directory)
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.bfloat16, device_map="cpu",
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            ),
        )  # fmt: skip
    model.config.use_cache = False
    return peft.get_peft_model(model, peft.LoraConfig(r=lora_rank, task_type="CAUSAL_LM")).train()


def loaded_bytes(model) -> int:
    """Bytes of a loaded model, the scales of its 4-bit weights included."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        if state := getattr(parameter, "quant_state", None):
            tensors += [state.absmax, state.state2.absmax]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def trainer_peaks(config, batch_size, length, **settings) -> tuple[int, int]:
    """Peak bytes of a whole `Trainer.train()`: by the allocator, and by `memory.measure`."""
    from transformers import Trainer, TrainingArguments

    def prepare(steps=2):
        model = memory.build_model(config)
        row = {"input_ids": [1] * length, "labels": [1] * length}
        with tempfile.TemporaryDirectory() as directory:
            arguments = TrainingArguments(
                directory, per_device_train_batch_size=batch_size, max_steps=steps, use_cpu=True, save_strategy="no",
                disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False, **settings,
            )  # fmt: skip
            return Trainer(model, arguments, train_dataset=[row] * batch_size * steps).train

    with contextlib.redirect_stdout(None):
        return allocator_peak(prepare), memory.measure(prepare()).peak_bytes


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
                    real = max(int(line) for line in peaks.read_text().split())
                yield f"{name}, {kind}", real, None, memory.estimate(
                    config, per_device_train_batch_size=batch_size, sequence_length=length, num_gpus=2, sharding=kind,
                    device="cpu", **settings,
                )  # fmt: skip

    compare(rows())


def sharded_process(rank, directory, kind, config, batch_size, length, settings) -> None:
    """One of two processes that train the same model; adds its peak to the file `peaks`."""
    import torch
    import torch.distributed as dist

    quiet()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2)

    def prepare():
        model = memory.build_model(config)
        if settings.get("activation_checkpointing"):
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch = memory.build_batch(model, batch_size, length)
        if kind in ("ddp", "zero1"):
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
            optimizers = memory.build_optimizers(model, "adamw_torch_fused")
            if kind == "zero1":
                from torch.distributed.optim import ZeroRedundancyOptimizer

                optimizers = [ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-4, fused=True)]
        else:
            from torch.distributed.fsdp import fully_shard

            mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
            for block in model.transformer.h if hasattr(model, "transformer") else model.model.layers:
                fully_shard(block, mesh=mesh, reshard_after_forward=kind != "zero2")
            wrapped = fully_shard(model, mesh=mesh, reshard_after_forward=kind != "zero2")
            optimizers = memory.build_optimizers(model, "adamw_torch_fused")
        kept.extend([model, batch, optimizers])
        return lambda: memory.training_step(wrapped, batch, optimizers)

    def resting():
        model, batch, optimizers = kept
        holders = [getattr(optimizer, "optim", optimizer) for optimizer in optimizers]  # ZeRO-1 wraps its own
        states = [value for holder in holders for state in holder.state.values() for value in state.values()]
        tensors = [getattr(t, "_local_tensor", t) for t in [*model.parameters(), *states]]
        tensors += [*model.buffers(), *batch.values()]
        listed = sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())
        if kind in ("ddp", "zero1"):  # DDP keeps the gradients' buckets
            listed += sum(p.nbytes for p in model.parameters())
        return listed

    kept = []
    peak = malloc_peak(prepare(), resting)
    with open(f"{directory}/peaks", "a") as file:
        file.write(f"{peak}\n")
    dist.barrier()
    dist.destroy_process_group()


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
        name: row for name, row in (CONFIGURATIONS | PUBLISHED).items()
        if "optim" not in row[3] and "activation_checkpointing" not in row[3] and row[3].get("precision") != "pure-bf16"
    }  # fmt: skip
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
        "accelerate": "accelerate estimate-memory", "16 bytes": "16 bytes a parameter",
        "EleutherAI": "EleutherAI's calculator", "Korthikanti": "Korthikanti et al. 2022",
        "estimate": "helpers.memory",
    }  # fmt: skip
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
        ("gpt2, 2 x 256", GPT2 | NO_DROPOUT, 2, 256), ("llama, 4 x 128", LLAMA, 4, 128), ("bert, 8 x 96", BERT, 8, 96),
    ):  # fmt: skip
        a = memory.read_config(config)
        task = "causal-lm" if a.is_decoder else "sequence-classification"
        work = flops.training_flops(
            a.matmul_parameters(task), batch_size * length, num_hidden_layers=a.num_hidden_layers,
            hidden_size=a.hidden_size, sequence_length=length,
        )  # fmt: skip
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


def quiet() -> None:
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


if __name__ == "__main__":
    tables = {
        "accuracy": accuracy, "adapters": adapters, "sharding": sharding, "comparison": comparison, "times": times,
    }  # fmt: skip
    wanted = sys.argv[1:] or list(tables)
    if unknown := [name for name in wanted if name not in tables]:
        sys.exit(f"no table {unknown[0]!r}; choose from {', '.join(tables)}")
    quiet()
    for name in wanted:
        start = time.perf_counter()
        print(f"\n{tables[name].__doc__.strip()}\n")
        tables[name]()
        print(f"({time.perf_counter() - start:.0f} s)")
