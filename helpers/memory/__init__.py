"""How much memory a training step takes: predicted, traced and measured.

Three answers to "will it fit?", each checked against the next:

- `estimate(config, ...)` is a closed form. It needs the numbers of a config, no torch, and takes milliseconds.
- `trace(config or model, ...)` runs two steps on fake tensors: exact for any architecture, seconds, allocates nothing.
- `measure(step)` runs a real step and reports the peak that it reached.

A step has five instants at which its memory can peak, and they do not share the same tensors. To the weights, the
optimizer's state and the batch, which are always there, they add:

    loss             all activations, and the logits three times in fp32
    last block       all activations, and the temporaries of one block's backward pass
    first block      the gradients of all later blocks, and one block
    embeddings       all gradients; those of a table that is also the output head two or three times
    optimizer step   all gradients, and the optimizer's temporaries

The peak is the largest of the five. Adding all gradients *and* all activations, as most guides do, counts two instants
at once. To see where the numbers come from, read `_block`, then `estimate` from "Weights, gradients" on.

The closed form is in this file. `config` reads a model's numbers (the known models are a table of their own) and
refuses nonsense; `tracing` traces and measures.

Sizes are in bytes; 1 GB is 1e9 bytes. On a GPU the kernels' workspaces, the allocator's fragmentation and the CUDA
context (together often 0.5 to 2 GB) come on top: neither a closed form nor a trace can see them.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field, replace

from helpers.memory.config import (
    ATTENTION,
    KNOWN_MODELS,
    LORA_TARGETS,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SHARDING,
    TASKS,
    Architecture,
    check_fit,
    check_settings,
    read_config,
)
from helpers.memory.tracing import (
    NOT_SEEN,
    Measurement,
    Trace,
    build_batch,
    build_model,
    build_optimizers,
    measure,
    size_text,
    trace,
    training_step,
    unit_of,
)

__all__ = [
    "ATTENTION", "KNOWN_MODELS", "METHODS", "NOT_SEEN", "OPTIMIZERS", "PRECISIONS", "SHARDING", "TASKS", "Architecture",
    "Measurement", "MemoryEstimate", "Trace", "build_batch", "build_model", "build_optimizers", "estimate", "measure",
    "read_config", "trace", "training_step",
]  # fmt: skip


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training step takes on one device. All sizes in bytes.

    Attributes:
        title: what was estimated, in a line.
        parameters, trainable_parameters: of the whole model, on all devices together.
        weights, gradients, optimizer_state, activations, batch: full size of each part on this device. They do not
            all exist at once: do not add them up.
        instants: for each instant of the step, its parts in bytes.
        notes: what the figures assume and do not see.
    """

    title: str
    parameters: int
    trainable_parameters: int
    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    batch: int
    instants: dict[str, dict[str, int]]
    notes: tuple[str, ...] = field(default=())

    @property
    def peak_instant(self) -> str:
        """The instant of the step with the largest total."""
        return max(self.instants, key=lambda name: sum(self.instants[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """The parts that are alive at the peak; they add up to `peak_bytes`."""
        return self.instants[self.peak_instant]

    @property
    def peak_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def peak_gb(self) -> float:
        """Peak in GB of 1e9 bytes."""
        return self.peak_bytes / 1e9

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for parts in self.instants.values() for name, size in parts.items() if size))
        width = max(len(name) for name in [*names, "total"]) + 2
        columns = list(self.instants)
        lines = [self.title, "", " " * width + "".join(f"{column:>16}" for column in columns)]
        for name in names:
            cells = "".join(f"{size_text(self.instants[column].get(name, 0)):>16}" for column in columns)
            lines.append(f"{name:<{width}}{cells}")
        totals = {column: sum(self.instants[column].values()) for column in columns}
        lines.append(f"{'total':<{width}}" + "".join(f"{size_text(totals[column]):>16}" for column in columns))
        lines += ["", f"peak {size_text(self.peak_bytes)}, at: {self.peak_instant}", *self.notes]
        return "\n".join(lines)

    def plot(self, ax=None):
        """Draws one stacked bar for each instant of the step and returns the axes; the tallest bar is the peak."""
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots(figsize=(9, 0.6 * len(self.instants) + 1.4), layout="constrained")[1]
        instants = list(self.instants)[::-1]
        scale, unit = unit_of(self.peak_bytes)
        left = dict.fromkeys(instants, 0.0)
        for part, colour in _COLOURS.items():
            sizes = [self.instants[name].get(part, 0) / scale for name in instants]
            if any(sizes):
                ax.barh(instants, sizes, left=list(left.values()), color=colour, label=part, edgecolor="white")
                left = {name: left[name] + size for name, size in zip(instants, sizes, strict=True)}
        ax.axvline(self.peak_bytes / scale, color="#333333", linestyle=":", linewidth=1)
        notes = [textwrap.fill(note, 64) for note in self.notes]
        label = f"memory in {unit}; dotted: the peak, {size_text(self.peak_bytes)}"
        ax.set_xlabel("\n".join([label, *notes]), fontsize=9)
        ax.set_title(self.title, fontsize=10)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax


# Okabe and Ito's palette: distinguishable with any colour vision.
_COLOURS = {
    "weights": "#0072B2", "optimizer state": "#E69F00", "batch": "#999999", "weights in half precision": "#56B4E9",
    "gradients": "#009E73", "activations": "#D55E00", "temporaries": "#CC79A7", "gathered, buckets": "#F0E442",
}  # fmt: skip


@dataclass(frozen=True)
class _Operation:
    """One operation of a block: what its derivative needs, and what else is alive while it runs forward or backward."""

    name: str
    keeps: dict[str, float]  # tensor: bytes per token; operations that keep the same tensor share it
    flow: float = 0.0  # backward: bytes per token of gradients going in and out
    forward: float = 0.0  # forward: bytes per token that are dropped again
    gradient: int = 0  # bytes of its weights' gradients, less those of the weights' half-precision copy that goes
    conversion: int = 0  # bytes that exist only while the weights' gradient is made


@dataclass(frozen=True)
class _Run:
    """The settings of a run that decide what its tensors weigh."""

    a: Architecture
    task: str
    tokens: int
    length: int
    precision: str
    attention: str  # "eager"; "fused" (flash and its like); "math" (torch's own, step by step)
    gpu: bool
    padded: bool
    checkpointing: bool
    adapters: dict[str, int] | None  # the LoRA rank of each adapted linear layer; None: everything is trained

    @property
    def full(self) -> bool:
        return self.adapters is None

    @property
    def autocast(self) -> bool:
        return self.precision in ("bf16", "fp16")

    @property
    def e(self) -> int:
        """Bytes of an activation."""
        return 4 if self.precision == "fp32" else 2

    @property
    def r(self) -> int:
        """Bytes of a number in the residual stream, and of a weight."""
        return 2 if self.precision == "pure-bf16" else 4

    @property
    def generates(self) -> bool:
        return self.task != "sequence-classification"

    @property
    def mask(self) -> float:
        """Bytes per token of the attention mask, which the blocks share: every pair of tokens of each sequence."""
        if self.attention == "eager":
            return self.r * self.length if self.a.is_decoder or self.padded else 0
        return self.length if self.padded else 0


def _block(run: _Run) -> list[_Operation]:
    """The operations of one block in the modelling code of transformers 5, in forward order.

    An operation keeps what its derivative needs: a linear layer its input (unless it is frozen), a softmax or a tanh
    its output, a product both factors, dropout its mask.
    """
    a, e, r, gpu = run.a, run.e, run.r, run.gpu
    d, f, h = a.hidden_size, a.intermediate_size, a.num_attention_heads
    q, kv = h * a.head_dim, a.num_key_value_heads * a.head_dim
    sizes, adapters = a.block_linears(), run.adapters or {}
    out = e * d if a.hidden_dropout else 0  # without dropout, a branch's gradient is the residual stream's own

    def linear(name, source, flow):
        inputs, outputs, bias = sizes[name]
        copy = 2 * inputs * outputs if run.autocast else 0  # of the weights, in half precision; goes with the gradient
        if run.full:
            own = run.autocast and source.startswith("norm")  # each layer casts the fp32 output of a norm for itself
            return _Operation(name, {f"{source} for {name}" if own else source: e * inputs}, flow,
                              gradient=r * (inputs * outputs + outputs * bias) - copy, conversion=copy)  # fmt: skip
        if rank := adapters.get(name, 0):  # fp32 weights, their own copy of the input, and the features between them
            width = e if run.autocast else 4
            source = source if width == e and not run.autocast else f"{source} for {name}"
            keeps = {source: width * inputs, f"adapter of {name}": width * rank}
            beside = e * max(inputs, outputs)  # a gradient of the adapter's beside the layer's own
            return _Operation(name, keeps, flow + beside, forward=3 * e * outputs,  # two outputs and their sum
                              gradient=4 * rank * (inputs + outputs) - copy)  # fmt: skip
        return _Operation(name, {}, flow, gradient=-copy)

    def dropout(name, width, size=e):
        mask = width * (1 if gpu else size)  # CUDA keeps one byte for each element, the CPU a number
        return [_Operation(name, {name: mask}, 2 * size * width)] if a.hidden_dropout else []

    def layer_norm(name, forward=0):
        return _Operation(name, {f"input of {name}": r * d, f"statistics of {name}": 8}, 3 * r * d, forward)

    def rms_norm(name):  # written out in fp32: keeps its input and, for its weight, the normalised input
        return _Operation(name, {f"input of {name}": 4 * d, f"statistics of {name}": 4,
                                 f"normalised {name}": r * d if run.full else 0}, 12 * d)  # fmt: skip

    def attend():
        m = 4 if run.attention == "math" else e  # torch's unfused attention computes in fp32 on the CPU
        if run.attention == "fused":
            repeated = run.padded and 1 < a.num_key_value_heads < h  # with a mask, grouped heads are repeated
            kept = {"q, k, v": e * (3 * q if repeated else q + 2 * kv), "attention output": e * q, "log-sum-exp": 4 * h,
                    "additive mask": e * run.length if run.padded else 0}  # fmt: skip
            return [_Operation("attention", kept, e * 2 * (q + kv) + r * d)]
        scores = h * run.length
        # softmax runs in fp32 in Llama's code, under CUDA's autocast, and where an fp32 mask was added to the scores
        probabilities = 4 if a.gated or (run.autocast and (gpu or a.is_decoder or run.padded)) else m
        weighted = {"v": m * q}
        if a.attention_dropout:
            weighted["dropped probabilities"] = scores * m
        elif probabilities != m:
            weighted["rounded probabilities"] = scores * m
        passing = m * q  # the output; torch's own attention has q, k, v once more, q and k unscaled, an additive mask,
        if run.attention == "math":  # and where it widens them also the originals and its probabilities, rounded
            passing += m * 5 * q + e * run.length * run.padded + (e * (4 * q + scores) if m != e else 0)
        steps = [
            _Operation("scores", {"q, k": m * 2 * q}, probabilities * scores + m * 3 * q + r * d),
            _Operation(
                "softmax", {"probabilities": scores * probabilities}, 2 * probabilities * scores + m * q + r * d
            ),
            _Operation("weighted sum", weighted, max(m, probabilities) * scores + m * 2 * q + r * d, passing),
        ]
        if a.attention_dropout:
            dropped = m if a.is_decoder else probabilities  # decoders round the probabilities first
            mask = {"probabilities dropped": scores * (1 if gpu else dropped)}
            steps.insert(2, _Operation("dropout", mask, 2 * probabilities * scores + m * q + r * d))
        return steps

    def gelu():
        if not a.unfused_gelu:
            return [_Operation("gelu", {"input of gelu": e * f}, 2 * e * f + r * d)]
        # x, 0.5 x, tanh and 1 + tanh; CUDA's autocast computes x ** 3, and so the rest, in fp32
        widened = run.autocast and gpu
        return [_Operation("gelu", {"four factors of gelu": (14 if widened else 4 * e) * f},
                           (12 if widened else 3 * e) * f + r * d)]  # fmt: skip

    if a.model_type == "gpt2":
        return [
            layer_norm("norm 1"),
            linear("c_attn", "norm 1 output", e * 4 * d + r * d),
            *attend(),
            linear("attn.c_proj", "attention output", e * d + out + r * d),
            *dropout("attention mask", d),
            layer_norm("norm 2"),
            linear("c_fc", "norm 2 output", e * (f + d) + r * d),
            *gelu(),
            linear("mlp.c_proj", "mlp", e * f + out + r * d),
            *dropout("mlp mask", d),
            _Operation("sum", {}, forward=(e + r) * d),
        ]
    if a.gated:
        return [
            rms_norm("norm 1"),
            *[linear(name, "norm 1 output", e * (q + 2 * kv + d) + r * d) for name in ("q_proj", "k_proj", "v_proj")],
            *attend(),
            linear("o_proj", "attention output", e * q + out + r * d),
            rms_norm("norm 2"),
            *[linear(name, "norm 2 output", e * (2 * f + d) + r * d) for name in ("gate_proj", "up_proj")],
            _Operation("silu", {"gate": e * f}, 3 * e * f + r * d),
            _Operation("product", {"silu of gate": e * f, "up": e * f}, 3 * e * f + r * d),
            linear("down_proj", "mlp", e * f + out + r * d),
            _Operation("sum", {}, forward=(e + r) * d),
        ]
    query, key, value, attended, inner, outer = sizes
    # Python still holds what autograd does not: the first norm's output, and the MLP's input where that is frozen
    held = (r * d if run.autocast or not run.full else 0) + (0 if run.full or a.model_type == "distilbert" else e * f)
    return [
        *[linear(name, "norm 2 output before", e * 4 * d + r * d) for name in (query, key, value)],
        *attend(),
        linear(attended, "attention output", e * d + out + r * d),
        *(dropout("attention mask", d) if a.model_type != "distilbert" else []),
        layer_norm("norm 1"),
        linear(inner, "norm 1 output", e * (f + d) + r * d),
        *gelu(),
        linear(outer, "mlp", e * f + out + r * d),
        *dropout("mlp mask", d),
        layer_norm("norm 2", (e + r) * d + held),
    ]


def _kept(operations: list[_Operation]) -> float:
    """Bytes per token that autograd keeps of these operations, each tensor once."""
    return sum({name: size for operation in operations for name, size in operation.keeps.items()}.values())


def _forward_peak(operations: list[_Operation]) -> float:
    """Most bytes per token while a block runs forward: what is kept so far, and what is dropped again."""
    return max(_kept(operations[: n + 1]) + operation.forward for n, operation in enumerate(operations))


def _backward_peak(operations: list[_Operation], tokens: int) -> float:
    """Most bytes during a block's backward pass: kept tensors, gradients in flight, and weights' gradients so far."""
    peak = weights = 0.0
    for n, operation in reversed(list(enumerate(operations))):
        weights += operation.gradient
        in_flight = tokens * (_kept(operations[: n + 1]) + operation.flow) + weights + operation.conversion
        peak = max(peak, in_flight)
    return peak


@dataclass(frozen=True)
class _Blocks:
    """What the blocks take, in bytes. With LoRA the first keeps less: before its adapters nothing has a gradient."""

    kept: float  # by one block
    first: float  # by the first
    backward: float  # most during one block's backward pass
    first_backward: float
    forward: float  # most while one block runs forward
    input: float  # of one block: all that checkpointing keeps
    recomputed: float  # by the block that checkpointing has run again, beside its input
    mask: float  # of attention; shared by all blocks
    held: float  # beside it, until a block ends
    casts: float  # autocast's copies of one block's weights
    first_casts: float


def _blocks(run: _Run) -> _Blocks:
    a, tokens, linears = run.a, run.tokens, run.a.block_linears()
    operations = _block(run)
    first = 0
    if not run.full and not run.checkpointing:
        first = next(n for n, operation in enumerate(operations) if operation.name in run.adapters)
    first_operations = [replace(operation, keeps={}) for operation in operations[:first]] + operations[first:]
    kept, forward = tokens * _kept(operations), tokens * _forward_peak(operations)
    backward, first_backward = _backward_peak(operations, tokens), _backward_peak(first_operations, tokens)
    # Encoders' eager attention holds its fp32 probabilities until the end of the block.
    holds = run.attention == "eager" and run.autocast and run.gpu and not a.is_decoder and a.attention_dropout > 0
    held = tokens * a.num_attention_heads * run.length * 4 * holds
    # A block's input is one of the tensors that it keeps, unless that is a copy in another precision.
    block_input = tokens * a.hidden_size * run.r
    own = "input of norm 1" if a.is_decoder else "norm 2 output before"
    same = any(own in operation.keeps for operation in operations) and not (a.gated and run.r == 2)
    if run.checkpointing:  # each block runs forward once more, when its output's gradient is there
        forward += held
        backward, first_backward = (max(size, forward + block_input) for size in (backward, first_backward))
    casts = first_casts = 0
    if run.autocast:  # of frozen weights only where a gradient goes through them
        trained = 0 if run.full else sum(rank * sum(linears[name][:2]) for name, rank in run.adapters.items())
        casts = 2 * (sum(inputs * outputs for inputs, outputs, _ in linears.values()) + trained)
        before = [linears[operation.name] for operation in operations[:first] if operation.name in linears]
        first_casts = casts - 2 * sum(inputs * outputs for inputs, outputs, _ in before)
    return _Blocks(
        kept=kept,
        first=tokens * _kept(first_operations),
        backward=backward,
        first_backward=first_backward,
        forward=forward,
        input=block_input,
        recomputed=(kept - block_input * same) * run.checkpointing,
        mask=tokens * run.mask,
        held=held,
        casts=casts,
        first_casts=first_casts,
    )


def _attention_kind(a: Architecture, attn_implementation: str, precision: str, padded: bool, device: str) -> str:
    """Which attention really runs: the fused kernels do not take everything."""
    if attn_implementation != "sdpa":
        return "eager" if attn_implementation == "eager" else "fused"
    if device != "cuda":
        return "math" if a.attention_dropout else "fused"  # the CPU's fused attention has no dropout
    grouped = a.num_key_value_heads != a.num_attention_heads
    return "math" if precision == "fp32" and grouped and not padded else "fused"  # nor CUDA's in fp32 grouped heads


def _ends(run: _Run) -> tuple[float, float, float]:
    """Bytes per token kept before the blocks and after them, and in flight in the final norm's backward pass."""
    a, d, e, r = run.a, run.a.hidden_size, run.e, run.r
    # Before: BERT's norm, dropout's mask
    front = (0 if a.is_decoder else d * r + 8) + (d * (1 if run.gpu else r) if a.embedding_dropout else 0)
    if not run.full:  # checkpointing needs a gradient to reach each block: PEFT asks the embeddings for one
        front = front + d * r * (not a.gated) if run.checkpointing else 0
    read = d * e if run.full or not run.generates else 0  # what a head reads, if it is trained
    if a.gated:
        normalised = r * d if run.full else 0
        return front, d * 4 + normalised + 4 + read, 16 * d - normalised
    if a.is_decoder:
        return front, d * r + 8 + read, 2 * r * d
    if run.task == "masked-lm":
        return front, d * (3 * e + r) if run.full else d * 2 * e, 0
    return front, d * r, 0


def _matrices(shapes, table):
    return [shape for shape in shapes if len(shape) == 2 and shape != table]


def _optimizer(optim: str, shapes: list[tuple[int, ...]], table: tuple, w: int, gpu: bool) -> tuple[float, float]:
    """Bytes of the optimizer's state, and the most bytes of temporaries within `step()`.

    `shapes` holds the parameters in the order in which they are updated: loops still hold the previous parameter's
    temporaries while they work on the next. `table` is the shape of the token table and the head, which Muon leaves to
    AdamW; `w` the width of a gradient in bytes.
    """
    sizes = [math.prod(shape) for shape in shapes]
    pairs = [(size, before) for size, before in zip(sizes, [0, *sizes], strict=False)]
    trainable, largest = sum(sizes), max(sizes)
    if optim == "sgd":
        return 0, 0
    if optim == "adamw_torch_fused":
        return 2 * w * trainable, 0
    if optim == "adamw_torch_foreach" or (optim == "adamw_torch" and gpu):
        return 2 * w * trainable, w * trainable
    if optim in ("adamw_torch", "adamw_torch_forloop"):
        return 2 * w * trainable, w * max(2 * size + before for size, before in pairs)
    if optim == "adamw_8bit":  # two bytes an element and two fp32 scales for each 256; tensors under 4096 stay in fp32
        in_eight_bits = sum(size for size in sizes if size >= 4096)
        state = in_eight_bits * 2 * (1 + 4 / 256) + 8 * (trainable - in_eight_bits)
        return state, 0 if gpu else (20 if w == 4 else 24) * largest  # bitsandbytes computes in fp32
    if optim == "muon":  # one momentum for matrices, AdamW for the rest; its iteration runs in bf16
        matrices = [(rows * columns, min(rows, columns) ** 2) for rows, columns in _matrices(shapes, table)]
        state = w * (2 * trainable - sum(size for size, _ in matrices))
        return state, max((8 if w == 4 else 4) * size + 4 * square for size, square in matrices)
    # Adafactor: a sum for each row and column of a matrix, one for each element of a vector; fp32 copies of the rest
    state = 4 * sum(sum(shape) for shape in shapes)
    return state, max((8 if w == 4 else 16) * size + 4 * before for size, before in pairs)


def estimate(
    config,
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
    num_gpus: int = 1,
    sharding: str = "ddp",
    padded: bool = False,
    device: str = "cuda",
) -> MemoryEstimate:
    """Predicts the peak memory of a training step in closed form, for one device. Needs no torch.

    Args:
        config: a known name (`KNOWN_MODELS`), a checkpoint directory, a Hub id, a transformers config or a dict.
        per_device_train_batch_size: sequences in one forward pass on one device.
        sequence_length: tokens in each sequence, padding included.
        task: "causal-lm", "masked-lm" or "sequence-classification"; by default a decoder generates and an encoder
            classifies.
        precision: "fp32"; "bf16" or "fp16" (autocast over fp32 weights, what `TrainingArguments(bf16=True)` does);
            "pure-bf16" (weights, gradients and optimizer state in bf16).
        attn_implementation: "eager", "sdpa" or "flash_attention_2".
        activation_checkpointing: keep only each block's input and recompute the rest in the backward pass.
        optim: a name of `TrainingArguments.optim`, see `OPTIMIZERS`.
        method: "full"; "lora"; "qlora" (the base model's linear layers in 4-bit NF4 with double quantisation; the rest
            in bf16, or with precision "fp32" in fp32, as peft's `prepare_model_for_kbit_training` leaves it).
        lora_rank: r of peft's `LoraConfig`.
        lora_target_modules: names of the adapted linear layers; PEFT's defaults when None.
        num_gpus: data parallel processes.
        sharding: what they share out: "ddp" nothing; "zero1" the optimizer's state (ZeroRedundancyOptimizer); "zero2"
            the gradients too (FSDP that keeps gathered weights until the backward pass); "zero3" or "fsdp" everything.
        padded: the batch has a padding mask, as one of unequal lengths has.
        device: "cuda" or "cpu"; they keep different tensors for dropout, attention and autocast. "mps" counts as "cpu".

    Raises:
        ValueError: a setting is nonsense, the model is unknown, or the two do not fit together.
    """
    optim = getattr(optim, "value", optim)  # TrainingArguments.optim is an enumeration
    settings = {
        "per_device_train_batch_size": per_device_train_batch_size, "sequence_length": sequence_length, "task": task,
        "precision": precision, "attn_implementation": attn_implementation, "optim": optim, "method": method,
        "activation_checkpointing": activation_checkpointing, "padded": padded, "lora_rank": lora_rank,
        "lora_target_modules": lora_target_modules, "num_gpus": num_gpus, "sharding": sharding, "device": device,
    }  # fmt: skip
    check_settings(settings)
    a = read_config(config)
    task = task or ("causal-lm" if a.is_decoder else "sequence-classification")
    check_fit(a, settings | {"task": task})
    layers, d, v, linears = a.num_hidden_layers, a.hidden_size, a.vocab_size, a.block_linears()
    targets = set(LORA_TARGETS[a.model_type] if lora_target_modules is None else lora_target_modules)
    adapted = {name: lora_rank for name in linears if {name, name.rsplit(".")[-1]} & targets}
    run = _Run(
        a=a,
        task=task,
        tokens=per_device_train_batch_size * sequence_length,
        length=sequence_length,
        precision="pure-bf16" if method == "qlora" and precision != "fp32" else precision,
        attention=_attention_kind(a, attn_implementation, precision, padded, device),
        gpu=device == "cuda",
        padded=padded,
        checkpointing=activation_checkpointing,
        adapters=None if method == "full" else adapted,
    )
    e, r, full, generates = run.e, run.r, run.full, run.generates

    # Weights, gradients, optimizer state
    shapes, groups, parameters = a.parameter_shapes(task), a.parameter_groups(task), a.parameters(task)
    in_linears = sum(inputs * outputs for inputs, outputs, _ in linears.values())  # of one block
    in_adapters = sum(rank * sum(linears[name][:2]) for name, rank in adapted.items())
    if full:
        trained = shapes["embeddings"] + layers * shapes["block"] + shapes["norm"] + shapes["head"]
        trainable, weights, gradients = parameters, parameters * r, parameters * r
    else:
        head = [] if generates else shapes["head"]
        if a.model_type == "bert":
            head = head[2:]  # PEFT trains a copy of the modules called classifier or score; BERT's pooler is not
        trained = layers * [(lora_rank, side) for name in adapted for side in linears[name][:2]] + head
        trainable = sum(map(math.prod, trained))
        gradients = 4 * layers * in_adapters + r * sum(map(math.prod, head))
        weights = parameters * r + gradients
    if method == "qlora":  # NF4: half a byte, a scale in 8 bits for 64 weights, a second one in 32 bits for 256 scales
        weights += int(layers * in_linears * (0.5 + 1 / 64 + 4 / (64 * 256) - r))
    state, optimizer_temporary = _optimizer(optim, trained, (v, d), r if full else 4, run.gpu)

    b = _blocks(run)
    front, end, end_flow = (run.tokens * size for size in _ends(run))
    in_blocks = b.first + (layers - 1) * b.kept
    if activation_checkpointing:
        in_blocks = layers * b.input + b.mask
    kept = front + end + in_blocks
    forward = run.tokens * d * (2 * r + (e if a.hidden_dropout or not a.is_decoder else 0)) + b.held
    forward = max(forward + b.mask * (not activation_checkpointing), b.forward - b.kept - end)
    head_gradient = v * d * r if generates and full else 0
    logits = 0
    if generates:  # log-softmax and two gradients in fp32; then the gradient in half precision and the head's own
        width = 2 if task == "masked-lm" and run.precision == "pure-bf16" else 4  # causal models widen their logits
        logits = run.tokens * v
        logits = max(3 * width * logits, (width + (e if e == 2 else 0)) * logits + head_gradient)
    head_casts = 2 * {"causal-lm": v * d, "masked-lm": (v + d) * d}.get(task, 0) * run.autocast
    casts = (layers - 1) * b.casts + b.first_casts + head_casts
    batch = run.tokens * 8 * ((2 if generates else 1) + (1 if padded else 0))

    # Gradients that are there before the first block's: all but its own and the embeddings'
    tied = generates and a.tie_word_embeddings
    made_last = r * (groups["embeddings"] - (v * d if tied else 0)) if full else 0
    in_block = r * sum(i * o + o * bias for i, o, bias in linears.values()) if full else 4 * in_adapters
    made_before = gradients - made_last - in_block
    duplicates = (1 if run.autocast else 2) * head_gradient if tied else 0  # a tied table gets two gradients, and a sum

    # Several processes: each keeps its share, and gathers what it needs when it needs it
    shared = dict.fromkeys(("loss", "last block", "first block", "embeddings", "optimizer step"), 0)
    if num_gpus > 1:
        state /= 1 if sharding == "ddp" else num_gpus
    if num_gpus > 1 and sharding in ("ddp", "zero1"):
        shared = dict.fromkeys(shared, gradients)  # DDP's buckets
    elif num_gpus > 1:  # a unit is gathered before it runs; its gradients are copied, and reduced to a share
        block = r * groups["block"]
        outside = weights - layers * block  # weights of no block: FSDP's root unit
        shared |= {"loss": outside + block, "last block": outside + 3 * block, "first block": outside + 3 * block}
        if sharding == "zero2":
            shared |= {"loss": weights, "last block": weights + block, "first block": outside + 2 * block}
        made_before = (made_before - head_gradient) / num_gpus + head_gradient
        root = outside if full else 0  # its gradients are reduced last
        shared["embeddings"] = outside + max(root, duplicates + block) + root - root / num_gpus
        duplicates = 0
        weights, gradients = weights / num_gpus, gradients / num_gpus

    fixed = {"weights": weights, "optimizer state": state, "batch": batch}
    half = "weights in half precision"
    instants = {
        "loss": fixed | {half: head_casts if activation_checkpointing else casts, "activations": kept,
                         "temporaries": logits or forward},
        "last block": fixed | {half: b.casts if activation_checkpointing else casts - head_casts,
                               "gradients": head_gradient, "activations": kept - end + b.recomputed,
                               "temporaries": max(b.backward - b.kept, end + end_flow - b.recomputed)},
        "first block": fixed | {half: b.first_casts, "gradients": made_before,
                                "activations": front + b.first + b.mask * activation_checkpointing,
                                "temporaries": b.first_backward - b.first},
        "embeddings": fixed | {"gradients": gradients, "activations": front, "temporaries": duplicates},
        "optimizer step": fixed | {"gradients": gradients, "temporaries": optimizer_temporary},
    }  # fmt: skip
    for name, size in shared.items():
        instants[name]["gathered, buckets"] = size
    instants = {name: {part: math.ceil(size) for part, size in parts.items()} for name, parts in instants.items()}
    title = (
        f"{a.name} ({parameters / 1e6:,.1f} M parameters), {task}, {method}, batch {per_device_train_batch_size} x "
        f"{sequence_length}, {precision}, {attn_implementation}, {optim}"
        + (", checkpointing" if activation_checkpointing else "")
        + (f", each of {num_gpus} GPUs with {sharding}" if num_gpus > 1 else "")
    )
    return MemoryEstimate(
        title, parameters, trainable, *map(math.ceil, (weights, gradients, state, kept, batch)), instants,
        notes=(NOT_SEEN,) if run.gpu else (),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """`python -m helpers.memory gpt2 --batch-size 8 --sequence-length 512`: prints the table of `estimate`."""
    import argparse
    import sys

    class Parser(argparse.ArgumentParser):
        def error(self, message):  # one line, not the whole usage
            sys.exit(f"{self.prog}: {message}")

    parser = Parser(prog="python -m helpers.memory", description="Predicts the peak memory of a training step.")
    parser.add_argument("config", metavar="model", help="a known name, a checkpoint directory or a Hub id")
    parser.add_argument("--batch-size", type=int, required=True, dest="per_device_train_batch_size")
    parser.add_argument("--sequence-length", type=int, required=True)
    parser.add_argument("--task", help=", ".join(TASKS))
    parser.add_argument("--precision", default="fp32", help=", ".join(PRECISIONS))
    parser.add_argument("--attn-implementation", default="sdpa", help=", ".join(ATTENTION))
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--optim", default="adamw_torch_fused", help=", ".join(OPTIMIZERS))
    parser.add_argument("--method", default="full", help=", ".join(METHODS))
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--lora-target-modules", nargs="+")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--sharding", default="ddp", help=", ".join(SHARDING))
    parser.add_argument("--padded", action="store_true", help="the batch has a padding mask")
    parser.add_argument("--device", default="cuda", help="cuda, cpu")
    options = vars(parser.parse_args(arguments))
    try:
        print(estimate(options.pop("config"), **options))
    except ValueError as error:
        parser.error(str(error))
    return 0
