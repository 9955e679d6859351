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
        return "classification" not in self.task

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
        if not self.on_gpu:
            return "math" if self.a.attention_dropout else "fused"  # the CPU's fused attention has no dropout
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
    from_stream = source not in ("attention output", "mlp")
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
    """The activation between the MLP's layers, with the product of a gated MLP."""
    if not run.a.gated:
        return [gelu(run)]
    e, f, stream = run.activation_bytes, run.a.intermediate_size, run.residual
    return [
        Operation("activation", {"gate": e * f}, 3 * e * f + stream),
        Operation("product", {"activated gate": e * f, "up": e * f}, 3 * e * f + stream),
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


def attend(run: Run) -> list[Operation]:
    """Attention between the projections before and after it."""
    if run.a.family.disentangled:
        return _disentangled_attention(run)
    return _fused_attention(run) if run.attention == "fused" else _stepwise_attention(run)


def _fused_attention(run: Run) -> list[Operation]:
    a, e, q, kv = run.a, run.activation_bytes, run.a.query_width, run.a.key_value_width
    repeated = run.masked and 1 < a.num_key_value_heads < a.num_attention_heads  # with a mask, grouped heads are
    # Turned queries and keys are new tensors; values are then the rest of a fused projection's output, which stays.
    turned = a.family.rotary and len(a.family.projections) == 1
    values = q + 2 * kv if turned else kv
    keeps = {
        # Put together, they lie differently in memory, so the output layer needs a copy of what attention gives
        "attention output, reordered": e * q if turned and a.family.partial_rotary else 0,
        "q, k, v": e * (3 * q if repeated else q + kv + values),
        "attention output": e * q,
        "log-sum-exp": FP32 * a.num_attention_heads,
        "additive mask": e * run.length if run.masked else 0,
    }
    return [Operation("attention", keeps, e * 2 * (q + kv) + run.residual)]


def _stepwise_attention(run: Run) -> list[Operation]:
    """Scores, softmax, dropout and weighted sum, each with its own tensors: eager, or torch's unfused attention."""
    a, e, q = run.a, run.activation_bytes, run.a.query_width
    math = run.attention == "math"
    m = FP32 if math else e  # torch's unfused attention computes in fp32 on the CPU
    scores = a.num_attention_heads * run.length  # numbers
    # softmax runs in fp32 in Llama's code, under CUDA's autocast, and where an fp32 mask was added to the scores
    in_fp32 = a.family.rotary or (run.autocast and (run.on_gpu or a.is_decoder or run.masked))
    p = FP32 if in_fp32 else m  # bytes of a probability
    weighted = {"v": m * q}
    if a.attention_dropout:
        weighted["dropped probabilities"] = scores * m
    elif p != m:
        weighted["rounded probabilities"] = scores * m
    passing = m * q  # the output; torch's own attention has q, k, v once more, q and k unscaled, an additive mask,
    if math:  # and where it widens them also the originals and its probabilities, rounded
        passing += m * 5 * q + e * run.length * run.masked + (e * (4 * q + scores) if m != e else 0)
    steps = [
        Operation(
            "scores",
            {"q, k": m * 2 * q, "capped scores": m * scores * a.attention_softcap},
            p * scores + m * 3 * q + run.residual,
        ),
        Operation("softmax", {"probabilities": scores * p}, 2 * p * scores + m * q + run.residual),
        Operation("weighted sum", weighted, max(m, p) * scores + m * 2 * q + run.residual, passing),
    ]
    if a.attention_dropout:
        dropped = m if a.is_decoder else p  # decoders round the probabilities first
        mask = {"probabilities dropped": scores * (1 if run.on_gpu else dropped)}
        steps.insert(2, Operation("dropout", mask, 2 * p * scores + m * q + run.residual))
    return steps


def _disentangled_attention(run: Run) -> list[Operation]:
    """DeBERTa's: to the scores of content it adds those of content to position and of position to content.

    Both are products with each row of a table of relative positions, of which each pair of tokens picks one.
    """
    a, e, q, length = run.a, run.activation_bytes, run.a.query_width, run.length
    rows, scores = a.relative_positions, a.num_attention_heads * length  # numbers
    row_scores = a.num_attention_heads * rows * e
    per_token = 1 / run.tokens  # of what a layer has once
    table = rows * a.hidden_size
    projected_for_each_text = rows * q * e / length
    p = FP32 if run.autocast and run.on_gpu else e  # bytes of a probability
    picked = 8 * length * length * per_token  # a row's number for each pair
    stream = run.residual
    own_copies = 2 if run.autocast else 1  # the projections of queries and of keys read the table
    weighted = {"v": e * q}
    if a.attention_dropout:
        weighted["dropped probabilities"] = scores * e
    elif p != e:
        weighted["rounded probabilities"] = scores * e
    steps = [
        Operation("scores", {"q": e * q, "scaled k": e * q}, e * scores + 3 * e * q + stream),
        Operation(
            "table of positions",
            {
                "dropped positions": table * (1 if run.on_gpu else run.residual_bytes) * per_token,
                "positions": own_copies * table * e * per_token,
            },
            e * 4 * q + stream,
        ),
    ]
    for name, other in (("content to position", "q"), ("position to content", "k")):
        keeps = {
            other: e * q,
            f"projected {name}": projected_for_each_text,
            f"picked {name}": picked,
            f"all scores {name}": row_scores,  # picking keeps what it picks from
        }
        steps.append(Operation(name, keeps, e * scores + 2 * row_scores + 3 * e * q + stream))
    steps += [
        Operation("hidden pairs", {"mask of this layer": length}, 2 * p * scores + e * q + stream, 2 * e * scores),
        Operation("softmax", {"probabilities": scores * p}, 2 * p * scores + e * q + stream, e * scores),
        Operation("weighted sum", weighted, max(e, p) * scores + e * 2 * q + stream, e * q),
    ]
    if a.attention_dropout:
        mask = {"probabilities dropped": scores * (1 if run.on_gpu else p)}
        steps.insert(-1, Operation("dropout", mask, 2 * p * scores + e * q + stream))
    return steps
