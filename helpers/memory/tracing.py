"""How much memory a training step takes, traced on fake tensors and measured on real ones.

Import both from `helpers.memory`; `helpers.memory.estimate` is the closed form beside them.

- `trace` runs two steps on fake tensors, which have sizes but no memory: exact for any architecture.
- `measure` runs real steps and reports the peak that they reached.

On the CPU both use the same tracker: it sees every tensor operation and adds up the storages that are alive.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from helpers.memory.config import (
    DECODERS,
    ENCODERS,
    LORA_TARGETS,
    check_fit,
    check_settings,
    config_values,
    read_config,
)

NOT_SEEN = "Not seen: kernel workspaces, allocator fragmentation and the CUDA context (often 0.5 to 2 GB together)."


def unit_of(size: float) -> tuple[float, str]:
    """The bytes and the name of the unit that suits `size` bytes."""
    return next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if size >= pair[0]), (1e3, "kB"))


def size_text(size: float) -> str:
    """`size` bytes in a unit that suits them; a dash for none."""
    scale, unit = unit_of(size)
    return f"{size / scale:,.2f} {unit}" if size else "-"


@dataclass(frozen=True)
class Trace:
    """The exact peak of a training step, found on fake tensors. All sizes in bytes.

    Attributes:
        peak_bytes: the largest sum of all live tensors during the second step.
        phases: the peak within "forward", "backward" and "optimizer step".
        parts: what is alive at the peak; adds up to `peak_bytes`.
        seconds: how long tracing took.
        notes: what the figure does not see.
    """

    peak_bytes: int
    phases: dict[str, int]
    parts: dict[str, int]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def peak_gb(self) -> float:
        """Peak in GB of 1e9 bytes."""
        return self.peak_bytes / 1e9

    def __str__(self) -> str:
        lines = [f"peak {size_text(self.peak_bytes)}, traced in {self.seconds:.1f} s"]
        lines += [f"  {name:<28}{size_text(size):>12}" for name, size in self.parts.items()]
        lines += [f"  peak in {name:<20}{size_text(size):>12}" for name, size in self.phases.items()]
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class Measurement:
    """The peak that a real run reached.

    Attributes:
        peak_bytes: the most bytes that tensors held at once.
        seconds: how long the run took, on the CPU with the tracker's own cost.
        device: "cpu" or "cuda".
        result: what the callable returned.
    """

    peak_bytes: int
    seconds: float
    device: str
    result: object = None

    @property
    def peak_gb(self) -> float:
        """Peak in GB of 1e9 bytes."""
        return self.peak_bytes / 1e9

    def __str__(self) -> str:
        text = f"peak {size_text(self.peak_bytes)}, measured on {self.device} in {self.seconds:.1f} s"
        return f"{text}\n{NOT_SEEN}" if self.device == "cuda" else text


def measure(step) -> Measurement:
    """Calls `step()` and reports the most memory that tensors held at once while it ran.

    `step` is anything without arguments: one training step, or a whole `trainer.train`. With the model on CUDA it is
    `torch.cuda.max_memory_allocated`, which counts every tensor on the device. On the CPU every tensor operation is
    watched, and each tensor that takes part counts: one that existed before (the model, the optimizer's state) from the
    start, a new one from its creation until it is freed. A tensor that the run never touches does not count, nor does
    work in other processes or threads, such as a DataLoader's workers.
    """
    import gc
    import time

    import torch

    start = time.perf_counter()
    if torch.cuda.is_available() and torch.cuda.memory_allocated():  # a GPU alone does not say that it is used
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        result = step()
        peak, device = torch.cuda.max_memory_allocated(), "cuda"
    else:
        gc.collect()
        existing = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
        tracker = _tracker(existing)
        del existing
        with tracker:
            result = step()
        peak, device = tracker.peak, "cpu"
    return Measurement(peak, time.perf_counter() - start, device, result)


# What bitsandbytes' AdamW holds in its CPU kernel, out of the tracker's sight, in bytes for each element it updates:
# two states, the gradient, a square root and a quotient in fp32, and of weights in half precision a copy in fp32. Its
# CUDA kernel holds nothing.
_CPU_WORKSPACE = {"bitsandbytes.optimizer_update_8bit_blockwise.default": {4: 20, 2: 24}}


def _tracker(existing=(), cuda: bool = False):
    """A dispatch mode that sees every tensor operation and adds up the storages that are alive, as `current`, `peak`.

    `existing` are tensors from before: when the run first touches one, it turns out to have counted from the start.
    """
    round_to = 512 if cuda else 1  # CUDA's allocator hands out multiples of 512 bytes
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    def storage_of(tensor):
        try:
            return tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):  # a sparse or opaque tensor has none
            return None

    class Tracker(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.alive = {}  # id of a storage: [weak reference, bytes, kind]
            self.current, self.kinds = 0, {}  # bytes alive, and of each kind
            self.peak, self.parts = 0, {}  # the same two, at the peak
            storages = [storage for storage in map(storage_of, existing) if storage is not None]
            self.existing = {id(storage): weakref.ref(storage) for storage in storages}

        def add(self, tree, kind=None):
            """Counts the storages of all tensors in `tree` that are not counted yet; names their `kind`."""
            for tensor in tree_iter(tree):
                storage = storage_of(tensor) if isinstance(tensor, torch.Tensor) else None
                if storage is None:
                    continue
                key, size = id(storage), -(-storage.nbytes() // round_to) * round_to
                if key not in self.alive:
                    self.alive[key] = [weakref.ref(storage, lambda _, key=key: self.remove(key)), 0, None]
                    before = self.existing.pop(key, None)
                    if before is not None and before() is storage:
                        self.peak += size
                _, counted, named = entry = self.alive[key]
                if counted != size or (kind and kind != named):  # new, resized in place, or its kind is known now
                    self.current += size - counted
                    self.kinds[named] = self.kinds.get(named, 0) - counted
                    self.kinds[kind or named] = self.kinds.get(kind or named, 0) + size
                    entry[1:] = size, kind or named
            if self.current > self.peak:
                self.start_phase()

        def start_phase(self, workspace=0):
            """Forgets the peak so far: the next one is looked for from here."""
            self.peak, self.parts = self.current + workspace, dict(self.kinds)
            self.parts[None] = self.parts.get(None, 0) + workspace

        def remove(self, key):
            if key in self.alive:
                _, size, kind = self.alive.pop(key)
                self.current -= size
                self.kinds[kind] = self.kinds.get(kind, 0) - size

        def reuse(self, tensor):
            """Lets go of a gradient to which autograd adds another: in place, unless a mode like this one watches."""
            storage = storage_of(tensor)
            last = torch._C._storage_Use_Count(storage._cdata) == 2  # the tensor's own reference, and ours
            if last and torch.ops.aten.is_non_overlapping_and_dense(tensor) and id(storage) in self.alive:
                self.remove(id(storage))

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.add((arguments, keywords))
            if not cuda and (held := _CPU_WORKSPACE.get(str(function))):
                workspace = held[arguments[2].element_size()] * arguments[2].numel()  # of the parameter
                if self.current + workspace > self.peak:
                    self.start_phase(workspace)
            result = function(*arguments, **(keywords or {}))
            summing = torch._C._current_graph_task_id() >= 0 and not torch.is_grad_enabled()  # within backward()
            if summing and function is torch.ops.aten.add.Tensor and result.shape == arguments[0].shape:
                self.reuse(arguments[0])
            self.add(result)
            return result

    return Tracker()


def trace(
    model,
    *,
    per_device_train_batch_size: int,
    sequence_length: int,
    task: str | None = None,
    precision: str = "fp32",
    attn_implementation: str = "sdpa",
    activation_checkpointing: bool = False,
    optim: str = "adamw_torch_fused",
    method: str = "full",
    lora_rank: int = 8,
    lora_target_modules: tuple[str, ...] | None = None,
    padded: bool = False,
    device: str = "cuda",
) -> Trace:
    """Finds the exact peak of a training step by running two steps on fake tensors: sizes without memory.

    The first step alone would be too low: the optimizer makes its state at the end of it. Works for any architecture
    of transformers, and for a model object with its adapters and its attention; the object itself is not changed. Keys
    and values are not cached (`use_cache`), as in Trainer; your own loop has to switch that off.

    Args:
        model: what `estimate` accepts, a config of any other architecture, or a model (then `attn_implementation`,
            `method` and the LoRA settings are the model's own).
        per_device_train_batch_size: as in `estimate`, like the following.
        sequence_length: as in `estimate`.
        task: as in `estimate`.
        precision: as in `estimate`.
        attn_implementation: as in `estimate`.
        activation_checkpointing: as in `estimate`.
        optim: as in `estimate`.
        method: as in `estimate`.
        lora_rank: as in `estimate`.
        lora_target_modules: as in `estimate`.
        padded: as in `estimate`.
        device: "cuda" follows what CUDA's kernels keep (a projection when no GPU is there), "cpu" the CPU's.

    Raises:
        ValueError: a setting is nonsense, or 4-bit weights are asked for, which fake tensors cannot follow.
    """
    import time
    from unittest.mock import patch

    import torch
    import transformers.masking_utils
    from torch._subclasses import FakeTensorMode

    start = time.perf_counter()
    optim = getattr(optim, "value", optim)  # TrainingArguments.optim is an enumeration
    settings = {
        "per_device_train_batch_size": per_device_train_batch_size, "sequence_length": sequence_length, "task": task,
        "precision": precision, "attn_implementation": attn_implementation, "optim": optim, "method": method,
        "activation_checkpointing": activation_checkpointing, "padded": padded, "lora_rank": lora_rank,
        "lora_target_modules": lora_target_modules, "device": device,
    }  # fmt: skip
    check_settings(settings)
    built = isinstance(model, torch.nn.Module)
    if method == "qlora" or (built and any(hasattr(p, "quant_state") for p in model.parameters())):
        raise ValueError("trace() cannot follow 4-bit weights on fake tensors; use estimate() or measure()")
    if config_values(model.config if built else model).get("model_type") in DECODERS + ENCODERS:
        check_fit(read_config(model.config if built else model), settings)
    if not built:
        with torch.device("meta"):
            model = build_model(
                model, task=task, precision=precision, attn_implementation=attn_implementation, method=method,
                lora_rank=lora_rank, lora_target_modules=lora_target_modules,
            )  # fmt: skip
    # On fake tensors transformers cannot see that a batch is not packed, and would build a mask that no real one has.
    unpacked = patch.object(transformers.masking_utils, "find_packed_sequence_indices", lambda *_, **__: None)
    kernels = _cuda_kernels() if device == "cuda" else contextlib.nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), unpacked, kernels:
        model = _fake_copy(model)
        model.config.use_cache = False  # as Trainer sets it
        if activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch = build_batch(model, per_device_train_batch_size, sequence_length, padded)
        if optim == "adamw_torch":  # torch's own choice: all parameters at once on CUDA, one after another on the CPU
            optim = "adamw_torch_foreach" if device == "cuda" else "adamw_torch_forloop"
        optimizers = build_optimizers(model, optim)
        tracker = _tracker(cuda=device == "cuda")
        tracker.add([*model.parameters(), *model.buffers()], "weights")
        tracker.add(batch, "batch")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: tracker.add(p.grad, "gradients"))
        phases = {}

        def after(phase):
            phases[phase] = tracker.peak, tracker.parts
            tracker.start_phase()

        with tracker:
            training_step(model, batch, optimizers, precision)
            for optimizer in optimizers:
                tracker.add([list(state.values()) for state in optimizer.state.values()], "optimizer state")
            tracker.start_phase()
            training_step(model, batch, optimizers, precision, after)
    peak, parts = max(phases.values(), key=lambda item: item[0])
    parts = {kind or "activations and temporaries": size for kind, size in parts.items() if size}
    return Trace(peak, {name: size for name, (size, _) in phases.items()}, parts, time.perf_counter() - start,
                 (NOT_SEEN,) if device == "cuda" else ())  # fmt: skip


def training_step(model, batch, optimizers, precision="fp32", after=lambda phase: None):
    """One plain training step; calls `after` at the end of each of its phases."""
    import torch

    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(batch["input_ids"].device.type, dtype=half, enabled=half is not None):
        loss = model(**batch).loss
    after("forward")
    loss.backward()
    after("backward")
    for optimizer in optimizers:
        optimizer.step()
    after("optimizer step")
    for optimizer in optimizers:
        optimizer.zero_grad()


def build_model(
    config, *, task=None, precision="fp32", attn_implementation="sdpa", method="full", lora_rank=8,
    lora_target_modules=None,
):  # fmt: skip
    """A freshly initialised model in training mode, as `estimate` understands the same arguments."""
    import copy

    import torch
    import transformers

    if isinstance(config, (str, Path, dict)):
        config = transformers.AutoConfig.for_model(**config_values(config))
    config = copy.deepcopy(config)
    generates = config.model_type in transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    encoder = config.model_type in transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    task = task or ("causal-lm" if generates and not encoder else "sequence-classification")
    auto = {"causal-lm": transformers.AutoModelForCausalLM, "masked-lm": transformers.AutoModelForMaskedLM,
            "sequence-classification": transformers.AutoModelForSequenceClassification}[task]  # fmt: skip
    if task == "sequence-classification" and config.pad_token_id is None:
        config.pad_token_id = 0  # decoders look for each row's last token that is not padding
    model = auto.from_config(
        config, attn_implementation=attn_implementation.replace("flash_attention_2", "sdpa"),
        dtype=torch.bfloat16 if precision == "pure-bf16" else torch.float32,
    )  # fmt: skip
    model.config.use_cache = False  # as Trainer does: keys and values of a training step are not needed again
    if method != "full":
        import peft

        kinds = {"causal-lm": "CAUSAL_LM", "sequence-classification": "SEQ_CLS"}
        targets = lora_target_modules or LORA_TARGETS.get(config.model_type)
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=lora_rank, target_modules=targets and list(targets), task_type=kinds.get(task),
        ))  # fmt: skip
    return model.train()


def build_batch(model, per_device_train_batch_size, sequence_length, padded=False) -> dict:
    """Token ids and labels of the shapes that the model trains on; with a padding mask when `padded`."""
    import torch

    shape = per_device_train_batch_size, sequence_length
    ids = torch.ones(shape, dtype=torch.long)
    inner = getattr(model, "get_base_model", lambda: model)()  # inside PEFT's wrapper
    classifies = "ForSequenceClassification" in type(inner).__name__
    batch = {"input_ids": ids, "labels": torch.zeros(shape[:1], dtype=torch.long) if classifies else ids.clone()}
    if padded:
        batch["attention_mask"] = torch.ones(shape, dtype=torch.long)
        batch["attention_mask"][-1, -1] = 0
    return batch


def build_optimizers(model, optim) -> list:
    """The optimizer that `optim` names, over the parameters that are trained; two for Muon, which takes matrices."""
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if optim == "sgd":
        return [torch.optim.SGD(parameters, lr=1e-4)]
    if optim == "adafactor":  # as Trainer sets it
        from transformers.optimization import Adafactor

        return [Adafactor(parameters, lr=1e-4, scale_parameter=False, relative_step=False)]
    if optim == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():  # its quantisation tables are made of numbers, not sizes
            return [AdamW8bit(parameters, lr=1e-4)]
    if optim == "muon":  # embeddings, the head, norms and biases stay with AdamW
        ends = {model.get_input_embeddings().weight, getattr(model.get_output_embeddings(), "weight", None)}
        matrices = [p for p in parameters if p.ndim == 2 and p not in ends]
        others = [p for p in parameters if p.ndim != 2 or p in ends]
        adamw = [torch.optim.AdamW(others, lr=1e-4, fused=True)] if others else []
        return [torch.optim.Muon(matrices, lr=1e-4), *adamw]
    flags = {"adamw_torch_fused": {"fused": True}, "adamw_torch_foreach": {"foreach": True},
             "adamw_torch_forloop": {"foreach": False}, "adamw_torch": {}}[optim]  # fmt: skip
    return [torch.optim.AdamW(parameters, lr=1e-4, **flags)]


def _fake_copy(model):
    """The model with a fake tensor in place of each parameter and buffer; call it under FakeTensorMode."""
    import copy

    import torch

    def fake(tensor):
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)

    fakes = {id(p): torch.nn.Parameter(fake(p), requires_grad=p.requires_grad) for p in model.parameters()}
    fakes |= {id(buffer): fake(buffer) for buffer in model.buffers()}
    return copy.deepcopy(model, fakes).train()


def _cuda_kernels():
    """Patches that make fake CPU tensors keep what CUDA's kernels keep: dropout masks, attention, autocast's fp32."""
    from unittest.mock import patch

    import torch
    import torch.nn.functional as F

    aten = torch.ops.aten
    cpu_dropout = F.dropout

    def autocasts():
        return torch.is_autocast_enabled("cpu")

    def dropout(x, p=0.5, training=True, inplace=False):
        return aten.native_dropout(x, p, True)[0] if training and 0 < p < 1 else cpu_dropout(x, p, training, inplace)

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if autocasts():
            q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
        if q.dtype != torch.float32 and attn_mask is None:
            return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
        grouped = q.shape[1] != k.shape[1]
        if grouped:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        if grouped and enable_gqa:  # no fused fp32 kernel takes grouped heads
            return aten._scaled_dot_product_attention_math(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)[0]
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, float("-inf"))
            attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
        return aten._scaled_dot_product_efficient_attention(
            q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale
        )[0]  # fmt: skip

    def in_fp32(function):
        def call(x, *arguments, **keywords):
            return function(x.float() if autocasts() and x.is_floating_point() else x, *arguments, **keywords)

        return call

    fp32 = {name: in_fp32(getattr(F, name)) for name in ("softmax", "layer_norm", "cross_entropy")}
    stack = contextlib.ExitStack()
    stack.enter_context(patch.multiple(F, dropout=dropout, scaled_dot_product_attention=attention, **fp32))
    stack.enter_context(patch.object(torch, "pow", in_fp32(torch.pow)))
    return stack
