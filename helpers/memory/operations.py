"""The operations of a block, and what autograd keeps for the derivative of each.

An operation keeps what its derivative needs: a linear layer its input (unless it is frozen), a softmax or a tanh its
output, a product both factors, dropout its mask. All sizes are bytes per token unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from helpers.memory.adapters import adapter_ranks
from helpers.memory.architecture import FIRST, FULL, SLIDING, Architecture
from helpers.memory.settings import Settings

FP32 = 4  # bytes of a number
HALF = 2


@dataclass(frozen=True)
class Operation:
    """One operation of a block: what its derivative needs, and what else is alive while it runs forward or backward."""

    name: str
    keeps: dict[str, float]  # tensor: bytes per token; operations that keep the same tensor share it
    flow: float = 0.0  # backward: bytes per token of gradients going in and out
    forward: float = 0.0  # forward: bytes per token that are dropped again
    gradient: int = 0  # bytes of its weights' gradients, less those of the weights' half-precision copy that goes
    conversion: int = 0  # bytes that exist only while the weights' gradient is made


@dataclass(frozen=True)
class Run:
    """A model with the settings of its run: what decides how much its tensors weigh."""

    a: Architecture
    settings: Settings
    task: str
    kind: str = FULL  # of the layers that are looked at, see `Architecture.layer_kinds`

    @property
    def tokens(self) -> int:
        """Tokens of a batch."""
        return self.settings.per_device_train_batch_size * self.settings.sequence_length

    @property
    def length(self) -> int:
        return self.settings.sequence_length

    @property
    def padded(self) -> bool:
        return self.settings.padded

    @property
    def masked(self) -> bool:
        """Whether attention needs a mask that is a tensor: for padding, or for a window shorter than the text."""
        return self.padded or (self.kind == SLIDING and self.length >= self.a.sliding_window)

    @property
    def checkpointing(self) -> bool:
        return self.settings.activation_checkpointing

    @property
    def on_gpu(self) -> bool:
        return self.settings.on_gpu

    @property
    def full(self) -> bool:
        return self.settings.full

    @cached_property
    def adapters(self) -> dict[str, int]:
        """The LoRA rank of each adapted linear layer."""
        return adapter_ranks(self.a, self.settings)

    @property
    def precision(self) -> str:
        """QLoRA computes in bf16, unless everything that is not in 4 bits was left in fp32."""
        precision = self.settings.precision
        return "pure-bf16" if self.settings.method == "qlora" and precision != "fp32" else precision

    @property
    def autocast(self) -> bool:
        return self.precision in ("bf16", "fp16")

    @property
    def activation_bytes(self) -> int:
        """Bytes of a number in an activation."""
        return FP32 if self.precision == "fp32" else HALF

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight, and of a number of its gradient."""
        return HALF if self.precision == "pure-bf16" else FP32

    @property
    def residual_bytes(self) -> int:
        """Bytes of a number in the residual stream.

        Under autocast it is in fp32, because the embeddings are. But where they are projected, a linear layer makes it.
        """
        projected = self.autocast and self.a.embeds_narrowly and not self.on_gpu  # CUDA's norm makes it fp32 again
        return HALF if projected else self.weight_bytes

    @property
    def generates(self) -> bool:
        """Whether the head gives a score to each word of the vocabulary, for each token."""
        return self.task.endswith("-lm")

    @property
    def residual(self) -> int:
        """One copy of the residual stream, or of its gradient."""
        return self.residual_bytes * self.a.hidden_size

    @property
    def branch_gradient(self) -> int:
        """A branch's gradient; without dropout it is the residual stream's own."""
        return self.activation_bytes * self.a.hidden_size if self.a.hidden_dropout else 0

    @cached_property
    def attention(self) -> str:
        """Which attention really runs: "eager"; "fused" (flash and its like); "math" (torch's own, step by step)."""
        if self.settings.attn_implementation == "eager" or not self.a.has_sdpa:
            return "eager"
        if self.settings.attn_implementation == "flash_attention_2":
            return "fused"
        if not self.on_gpu:  # the CPU's fused attention has no dropout, and no biases that are learned
            return "math" if self.a.attention_dropout or self.a.family.position_bias else "fused"
        grouped = self.a.num_key_value_heads != self.a.num_attention_heads
        in_fp32 = self.settings.precision == "fp32"
        return "math" if in_fp32 and grouped and not self.masked else "fused"  # nor CUDA's in fp32 grouped heads

    @property
    def sees(self) -> str:
        """What its attention sees; layers that see the same share a mask."""
        return FULL if self.kind == FIRST else self.kind

    @property
    def mask(self) -> float:
        """The attention mask, which the blocks share: every pair of tokens of each sequence."""
        if self.attention == "eager":
            return self.residual_bytes * self.length if self.a.is_decoder or self.masked else 0
        return self.length if self.masked else 0


def linear(run: Run, name: str, source: str, flow: float) -> Operation:
    """The linear layer `name`, which reads the tensor `source`."""
    if not run.full:
        return _adapted_linear(run, name, source, flow) if name in run.adapters else _frozen_linear(run, name, flow)
    layer = run.a.block_linears(run.kind)[name]
    half_copy = HALF * layer.weights if run.autocast else 0  # goes when the gradient is made
    from_stream = not source.startswith(("attention output", "mlp"))
    cast_for_itself = run.residual_bytes > run.activation_bytes and from_stream  # each layer casts fp32 for itself
    keeps = {f"{source} for {name}" if cast_for_itself else source: run.activation_bytes * layer.inputs}
    gradient = run.weight_bytes * layer.parameters - half_copy
    return Operation(name, keeps, flow, gradient=gradient, conversion=half_copy)


def _adapted_linear(run: Run, name: str, source: str, flow: float) -> Operation:
    """An adapter has fp32 weights, its own copy of the input, and the features between its two matrices."""
    layer, rank, e = run.a.block_linears(run.kind)[name], run.adapters[name], run.activation_bytes
    width = e if run.autocast else FP32
    own_copy = width != e or run.autocast
    keeps = {f"{source} for {name}" if own_copy else source: width * layer.inputs, f"adapter of {name}": width * rank}
    second_gradient = e * max(layer.inputs, layer.outputs)  # the adapter's, beside the layer's own
    both_outputs_and_sum = 3 * e * layer.outputs
    half_copy = HALF * layer.weights if run.autocast else 0
    gradient = FP32 * rank * (layer.inputs + layer.outputs) - half_copy
    return Operation(name, keeps, flow + second_gradient, both_outputs_and_sum, gradient)


def _frozen_linear(run: Run, name: str, flow: float) -> Operation:
    half_copy = HALF * run.a.block_linears(run.kind)[name].weights if run.autocast else 0
    return Operation(name, {}, flow, gradient=-half_copy)


def dropout(run: Run, name: str, width: int) -> list[Operation]:
    """Dropout on `width` features: CUDA keeps one byte for each, the CPU a number."""
    if not run.a.hidden_dropout:
        return []
    e = run.activation_bytes
    return [Operation(name, {name: width * (1 if run.on_gpu else e)}, 2 * e * width)]


def layer_norm(run: Run, name: str, forward: float = 0) -> Operation:
    mean_and_deviation = 2 * FP32
    # Parallel branches read the same stream
    read = "input of norm 1" if run.a.parallel else f"input of {name}"
    keeps = {read: run.residual, f"statistics of {name}": mean_and_deviation}
    return Operation(name, keeps, 3 * run.residual, forward)


def rms_norm(
    run: Run, name: str, width: int | None = None, heads: int = 1, input_bytes: int | None = None
) -> Operation:
    """Written out in fp32: keeps its input and, for its weight, the normalised input.

    Args:
        name: of the norm.
        width: its features; those of the residual stream by default.
        heads: groups that are normalised each for itself.
        input_bytes: of a number of its input; as in the residual stream by default.
    """
    width = width or run.a.hidden_size
    in_fp32 = FP32 * width
    normalised = FP32 if run.a.family.norm == "rms in fp32" else input_bytes or run.residual_bytes
    keeps = {
        f"input of {name}": in_fp32,
        f"statistics of {name}": FP32 * heads,
        f"normalised {name}": normalised * width if run.full else 0,
        # T5 multiplies the stream as it is, not its copy in fp32
        f"stream at {name}": HALF * width if run.a.family.position_bias and run.precision == "pure-bf16" else 0,
    }
    return Operation(name, keeps, 3 * in_fp32)


def norm(run: Run, name: str) -> Operation:
    """The norm that this family has."""
    return rms_norm(run, name) if run.a.family.rms else layer_norm(run, name)


def norm_after(run: Run, name: str) -> list[Operation]:
    """The norm of a branch's output, where the family has one."""
    has_one = run.a.family.norms in ("after", "both")
    return [rms_norm(run, name, input_bytes=run.activation_bytes)] if has_one else []


def query_key_norms(run: Run) -> list[Operation]:
    """The norms of queries and keys, where the family has them."""
    a, e = run.a, run.activation_bytes
    if not a.family.query_key_norm:
        return []
    q_heads, kv_heads = (1, 1) if a.family.query_key_norm == "all" else (a.num_attention_heads, a.num_key_value_heads)
    return [
        rms_norm(run, "query norm", a.query_width, q_heads, e),
        rms_norm(run, "key norm", a.key_value_width, kv_heads, e),
    ]


def activate(run: Run) -> list[Operation]:
    """The activation between the MLP's layers, with the product of a gated MLP, and T5's dropout."""
    e, f, stream = run.activation_bytes, run.a.intermediate_size, run.residual
    within = dropout(run, "mask within the mlp", f) if run.a.family.inner_dropout else []
    if run.a.relu:  # keeps its output, which is also what the next layer reads, unless dropout comes between
        return [Operation("relu", {"relu" if within else "mlp": e * f}, 2 * e * f + stream), *within]
    if not run.a.gated:
        return [gelu(run), *within]
    gate = Operation("activation", {"gate": e * f}, 3 * e * f + stream)
    return [
        gelu(run) if run.a.unfused_gelu else gate,
        Operation("product", {"activated gate": e * f, "up": e * f}, 3 * e * f + stream),
        *within,
    ]


def gelu(run: Run) -> Operation:
    """GELU on the features between the MLP's two layers, in one kernel or written out."""
    e, features = run.activation_bytes, run.a.intermediate_size
    if not run.a.unfused_gelu:
        return Operation("gelu", {"input of gelu": e * features}, 2 * e * features + run.residual)
    # x, 0.5 x, tanh and 1 + tanh; CUDA's autocast computes x ** 3, and so the last three factors but x, in fp32
    widened = run.autocast and run.on_gpu
    four_factors = HALF + 3 * FP32 if widened else 4 * e
    three_gradients = 3 * (FP32 if widened else e)
    return Operation(
        "gelu", {"four factors of gelu": four_factors * features}, three_gradients * features + run.residual
    )
