"""The operations of a block, and what autograd keeps for the derivative of each.

An operation keeps what its derivative needs: a linear layer its input (unless it is frozen), a softmax or a tanh its
output, a product both factors, dropout its mask. All sizes are bytes per token unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from helpers.memory.adapters import adapter_ranks
from helpers.memory.architecture import Architecture
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
    def residual_bytes(self) -> int:
        """Bytes of a number in the residual stream, and of a weight."""
        return HALF if self.precision == "pure-bf16" else FP32

    @property
    def generates(self) -> bool:
        """Whether the head gives a score to each word of the vocabulary, for each token."""
        return self.task != "sequence-classification"

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
        if self.settings.attn_implementation != "sdpa":
            return "eager" if self.settings.attn_implementation == "eager" else "fused"
        if not self.on_gpu:
            return "math" if self.a.attention_dropout else "fused"  # the CPU's fused attention has no dropout
        grouped = self.a.num_key_value_heads != self.a.num_attention_heads
        in_fp32 = self.settings.precision == "fp32"
        return "math" if in_fp32 and grouped and not self.padded else "fused"  # nor CUDA's in fp32 grouped heads

    @property
    def mask(self) -> float:
        """The attention mask, which the blocks share: every pair of tokens of each sequence."""
        if self.attention == "eager":
            return self.residual_bytes * self.length if self.a.is_decoder or self.padded else 0
        return self.length if self.padded else 0


def linear(run: Run, name: str, source: str, flow: float) -> Operation:
    """The linear layer `name`, which reads the tensor `source`."""
    if not run.full:
        return _adapted_linear(run, name, source, flow) if name in run.adapters else _frozen_linear(run, name, flow)
    layer = run.a.block_linears()[name]
    half_copy = HALF * layer.weights if run.autocast else 0  # goes when the gradient is made
    cast_for_itself = run.autocast and source.startswith("norm")  # each layer casts the fp32 output of a norm
    keeps = {f"{source} for {name}" if cast_for_itself else source: run.activation_bytes * layer.inputs}
    gradient = run.residual_bytes * layer.parameters - half_copy
    return Operation(name, keeps, flow, gradient=gradient, conversion=half_copy)


def _adapted_linear(run: Run, name: str, source: str, flow: float) -> Operation:
    """An adapter has fp32 weights, its own copy of the input, and the features between its two matrices."""
    layer, rank, e = run.a.block_linears()[name], run.adapters[name], run.activation_bytes
    width = e if run.autocast else FP32
    own_copy = width != e or run.autocast
    keeps = {f"{source} for {name}" if own_copy else source: width * layer.inputs, f"adapter of {name}": width * rank}
    second_gradient = e * max(layer.inputs, layer.outputs)  # the adapter's, beside the layer's own
    both_outputs_and_sum = 3 * e * layer.outputs
    half_copy = HALF * layer.weights if run.autocast else 0
    gradient = FP32 * rank * (layer.inputs + layer.outputs) - half_copy
    return Operation(name, keeps, flow + second_gradient, both_outputs_and_sum, gradient)


def _frozen_linear(run: Run, name: str, flow: float) -> Operation:
    half_copy = HALF * run.a.block_linears()[name].weights if run.autocast else 0
    return Operation(name, {}, flow, gradient=-half_copy)


def dropout(run: Run, name: str, width: int) -> list[Operation]:
    """Dropout on `width` features: CUDA keeps one byte for each, the CPU a number."""
    if not run.a.hidden_dropout:
        return []
    e = run.activation_bytes
    return [Operation(name, {name: width * (1 if run.on_gpu else e)}, 2 * e * width)]


def layer_norm(run: Run, name: str, forward: float = 0) -> Operation:
    mean_and_deviation = 2 * FP32
    keeps = {f"input of {name}": run.residual, f"statistics of {name}": mean_and_deviation}
    return Operation(name, keeps, 3 * run.residual, forward)


def rms_norm(run: Run, name: str) -> Operation:
    """Written out in fp32: keeps its input and, for its weight, the normalised input."""
    in_fp32 = FP32 * run.a.hidden_size
    keeps = {
        f"input of {name}": in_fp32,
        f"statistics of {name}": FP32,
        f"normalised {name}": run.residual if run.full else 0,
    }
    return Operation(name, keeps, 3 * in_fp32)


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


def attend(run: Run) -> list[Operation]:
    """Attention between the projections before and after it."""
    return _fused_attention(run) if run.attention == "fused" else _stepwise_attention(run)


def _fused_attention(run: Run) -> list[Operation]:
    a, e, q, kv = run.a, run.activation_bytes, run.a.query_width, run.a.key_value_width
    repeated = run.padded and 1 < a.num_key_value_heads < a.num_attention_heads  # with a mask, grouped heads are
    keeps = {
        "q, k, v": e * (3 * q if repeated else q + 2 * kv),
        "attention output": e * q,
        "log-sum-exp": FP32 * a.num_attention_heads,
        "additive mask": e * run.length if run.padded else 0,
    }
    return [Operation("attention", keeps, e * 2 * (q + kv) + run.residual)]


def _stepwise_attention(run: Run) -> list[Operation]:
    """Scores, softmax, dropout and weighted sum, each with its own tensors: eager, or torch's unfused attention."""
    a, e, q = run.a, run.activation_bytes, run.a.query_width
    math = run.attention == "math"
    m = FP32 if math else e  # torch's unfused attention computes in fp32 on the CPU
    scores = a.num_attention_heads * run.length  # numbers
    # softmax runs in fp32 in Llama's code, under CUDA's autocast, and where an fp32 mask was added to the scores
    in_fp32 = a.gated or (run.autocast and (run.on_gpu or a.is_decoder or run.padded))
    p = FP32 if in_fp32 else m  # bytes of a probability
    weighted = {"v": m * q}
    if a.attention_dropout:
        weighted["dropped probabilities"] = scores * m
    elif p != m:
        weighted["rounded probabilities"] = scores * m
    passing = m * q  # the output; torch's own attention has q, k, v once more, q and k unscaled, an additive mask,
    if math:  # and where it widens them also the originals and its probabilities, rounded
        passing += m * 5 * q + e * run.length * run.padded + (e * (4 * q + scores) if m != e else 0)
    steps = [
        Operation("scores", {"q, k": m * 2 * q}, p * scores + m * 3 * q + run.residual),
        Operation("softmax", {"probabilities": scores * p}, 2 * p * scores + m * q + run.residual),
        Operation("weighted sum", weighted, max(m, p) * scores + m * 2 * q + run.residual, passing),
    ]
    if a.attention_dropout:
        dropped = m if a.is_decoder else p  # decoders round the probabilities first
        mask = {"probabilities dropped": scores * (1 if run.on_gpu else dropped)}
        steps.insert(2, Operation("dropout", mask, 2 * p * scores + m * q + run.residual))
    return steps
