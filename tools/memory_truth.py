"""What a real training step takes on the CPU, counted by others than `helpers.memory`: the truth it is compared with.

It is the profiler's record of every allocation and release of torch's CPU allocator; for two processes the count of the
C library (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from helpers import memory


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
    config,
    batch_size,
    length,
    *,
    precision="fp32",
    activation_checkpointing=False,
    optim="adamw_torch_fused",
    padded=False,
    method="full",
    **model_settings,
) -> int:
    """Peak bytes of a real second training step on the CPU."""
    loaded = four_bit_model(config, **model_settings) if method == "qlora" else None

    def prepare():
        model = loaded or memory.build_model(config, precision=precision, method=method, **model_settings)
        if activation_checkpointing:
            memory.checkpoint_activations(model)
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
            directory,
            dtype=torch.bfloat16,
            device_map="cpu",
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            ),
        )
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
                directory,
                per_device_train_batch_size=batch_size,
                max_steps=steps,
                use_cpu=True,
                save_strategy="no",
                disable_tqdm=True,
                logging_strategy="no",
                dataloader_pin_memory=False,
                **settings,
            )
            return Trainer(model, arguments, train_dataset=[row] * batch_size * steps).train

    with contextlib.redirect_stdout(None):
        return allocator_peak(prepare), memory.measure(prepare()).peak_bytes


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
            memory.checkpoint_activations(model)
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
    with open(f"{directory}/peaks", "a", encoding="utf-8") as file:
        file.write(f"{peak}\n")
    dist.barrier()
    dist.destroy_process_group()


def quiet() -> None:
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
