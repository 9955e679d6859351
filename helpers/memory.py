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
    embeddings       all gradients; those of a table that is also the output head, three times
    optimizer step   all gradients, and the optimizer's temporaries

The peak is the largest of the five. Adding all gradients *and* all activations, as most guides do, counts two instants
at once. To see where the numbers come from, read `_block`, then `estimate` from "Activations" on.

Sizes are in bytes; 1 GB is 1e9 bytes. On a GPU the kernels' workspaces, the allocator's fragmentation and the CUDA
context (together often 0.5 to 2 GB) come on top: neither a closed form nor a trace can see them.
"""

from __future__ import annotations

import contextlib
import json
import math
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

TASKS = ("causal-lm", "masked-lm", "sequence-classification")
PRECISIONS = ("fp32", "bf16", "fp16", "pure-bf16")
ATTENTION = ("eager", "sdpa", "flash_attention_2")
METHODS = ("full", "lora", "qlora")
SHARDING = ("ddp", "zero1", "zero2", "zero3", "fsdp")
OPTIMIZERS = (
    "adamw_torch_fused", "adamw_torch", "adamw_torch_foreach", "adamw_torch_forloop", "adamw_8bit", "adafactor", "sgd",
    "muon",
)  # fmt: skip
NOT_SEEN = "Not seen: kernel workspaces, allocator fragmentation and the CUDA context (often 0.5 to 2 GB together)."


# ---------------------------------------------------------------------------------------------------------------------
# What a model is: the few numbers of its config
# ---------------------------------------------------------------------------------------------------------------------


def _gpt2(layers, width, heads):
    return {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": 50257,
            "n_positions": 1024}  # fmt: skip


def _bert(layers, width, heads, vocabulary, model_type="bert", positions=512, types=2):
    return {"model_type": model_type, "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads,
            "intermediate_size": 4 * width, "vocab_size": vocabulary, "max_position_embeddings": positions,
            "type_vocab_size": types}  # fmt: skip


def _distilbert(layers, width, heads, vocabulary):
    return {"model_type": "distilbert", "n_layers": layers, "dim": width, "n_heads": heads, "hidden_dim": 4 * width,
            "vocab_size": vocabulary, "max_position_embeddings": 512}  # fmt: skip


def _llama(layers, width, inner, heads, kv_heads, vocabulary, positions, tied=False, model_type="llama"):
    return {"model_type": model_type, "num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
            "max_position_embeddings": positions, "tie_word_embeddings": tied}  # fmt: skip


def _qwen2(*numbers, tied=False):
    return _llama(*numbers, positions=32768, tied=tied, model_type="qwen2")


# The config.json of each published checkpoint, and the paper that describes it.
KNOWN_MODELS = {
    # Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2; distilgpt2: its model card
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "distilgpt2": _gpt2(6, 768, 12),
    # Devlin et al. 2019, arXiv:1810.04805, section 3; Liu et al. 2019, arXiv:1907.11692; Sanh et al. 2019, 1910.01108
    "bert-base-uncased": _bert(12, 768, 12, 30522),
    "bert-base-cased": _bert(12, 768, 12, 28996),
    "bert-large-uncased": _bert(24, 1024, 16, 30522),
    "roberta-base": _bert(12, 768, 12, 50265, "roberta", 514, 1),
    "roberta-large": _bert(24, 1024, 16, 50265, "roberta", 514, 1),
    "distilbert-base-uncased": _distilbert(6, 768, 12, 30522),
    "distilbert-base-cased": _distilbert(6, 768, 12, 28996),
    # Touvron et al. 2023, arXiv:2302.13971, table 2, and arXiv:2307.09288, table 1
    "llama-7b": _llama(32, 4096, 11008, 32, 32, 32000, 2048),
    "llama-13b": _llama(40, 5120, 13824, 40, 40, 32000, 2048),
    "llama-2-7b": _llama(32, 4096, 11008, 32, 32, 32000, 4096),
    "llama-2-13b": _llama(40, 5120, 13824, 40, 40, 32000, 4096),
    "llama-2-70b": _llama(80, 8192, 28672, 64, 8, 32000, 4096),
    # Grattafiori et al. 2024, arXiv:2407.21783, table 3; Llama 3.2: its model card
    "llama-3-8b": _llama(32, 4096, 14336, 32, 8, 128256, 8192),
    "llama-3-70b": _llama(80, 8192, 28672, 64, 8, 128256, 8192),
    "llama-3.1-8b": _llama(32, 4096, 14336, 32, 8, 128256, 131072),
    "llama-3.1-70b": _llama(80, 8192, 28672, 64, 8, 128256, 131072),
    "llama-3.2-1b": _llama(16, 2048, 8192, 32, 8, 128256, 131072, tied=True),
    "llama-3.2-3b": _llama(28, 3072, 8192, 24, 8, 128256, 131072, tied=True),
    # Qwen team 2024, arXiv:2412.15115, table 1
    "qwen2.5-0.5b": _qwen2(24, 896, 4864, 14, 2, 151936, tied=True),
    "qwen2.5-1.5b": _qwen2(28, 1536, 8960, 12, 2, 151936, tied=True),
    "qwen2.5-3b": _qwen2(36, 2048, 11008, 16, 2, 151936, tied=True),
    "qwen2.5-7b": _qwen2(28, 3584, 18944, 28, 4, 152064),
    "qwen2.5-14b": _qwen2(48, 5120, 13824, 40, 8, 152064),
    "qwen2.5-32b": _qwen2(64, 5120, 27648, 40, 8, 152064),
    "qwen2.5-72b": _qwen2(80, 8192, 29568, 64, 8, 152064),
    # Jiang et al. 2023, arXiv:2310.06825, table 1
    "mistral-7b": _llama(32, 4096, 14336, 32, 8, 32000, 32768, model_type="mistral"),
    "mistral-7b-v0.1": _llama(32, 4096, 14336, 32, 8, 32000, 32768, model_type="mistral"),
}


@dataclass(frozen=True)
class Architecture:
    """The numbers of a config that decide how much memory training takes."""

    name: str
    model_type: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    tie_word_embeddings: bool
    attention_dropout: float
    hidden_dropout: float
    attention_bias: bool
    unfused_gelu: bool
    num_labels: int

    @property
    def is_decoder(self) -> bool:
        return self.model_type in ("gpt2", "llama", "mistral", "qwen2")

    @property
    def gated(self) -> bool:
        """Llama's shape of a block: RMSNorm, rotary positions, a gated MLP."""
        return self.model_type in ("llama", "mistral", "qwen2")

    def block_linears(self) -> dict[str, tuple[int, int, bool]]:
        """(in_features, out_features, has bias) of each linear layer of one block, by its module's name."""
        d, f = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        if self.model_type == "gpt2":
            return {"c_attn": (d, 3 * d, True), "attn.c_proj": (d, d, True), "c_fc": (d, f, True),
                    "mlp.c_proj": (f, d, True)}  # fmt: skip
        if self.gated:
            bias = self.attention_bias
            return {"q_proj": (d, q, bias), "k_proj": (d, kv, bias), "v_proj": (d, kv, bias),
                    "o_proj": (q, d, bias and self.model_type == "llama"),
                    "gate_proj": (d, f, False), "up_proj": (d, f, False), "down_proj": (f, d, False)}  # fmt: skip
        if self.model_type == "distilbert":
            names = ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")
        else:
            names = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
        return dict(zip(names, [(d, d, True)] * 4 + [(d, f, True), (f, d, True)], strict=True))

    def parameter_groups(self, task: str) -> dict[str, int]:
        """Parameters of the embeddings, of one block's linear layers and norms, of what follows, and of the head."""
        d, v = self.hidden_size, self.vocab_size
        norm = d if self.gated else 2 * d
        embeddings = v * d
        if not self.gated:
            embeddings += (self.max_position_embeddings + self.type_vocab_size) * d + (0 if self.is_decoder else norm)
        linears = sum(i * o + (o if bias else 0) for i, o, bias in self.block_linears().values())
        head = 0
        if task == "causal-lm":
            head = 0 if self.tie_word_embeddings else v * d
        elif task == "masked-lm":  # a dense layer, a norm and a bias per word before the tied decoder
            head = d * d + d + 2 * d + v + (0 if self.tie_word_embeddings else v * d)
        elif self.is_decoder:
            head = d * self.num_labels
        else:  # a pooler or dense layer, then the classifier
            head = d * d + d + d * self.num_labels + self.num_labels
        return {"embeddings": embeddings, "linears": linears, "norms": 2 * norm,
                "final norm": norm if self.is_decoder else 0, "head": head}  # fmt: skip

    def parameters(self, task: str = "causal-lm") -> int:
        """Number of parameters of the model with the head of `task`."""
        groups = self.parameter_groups(task)
        blocks = self.num_hidden_layers * (groups["linears"] + groups["norms"])
        return groups["embeddings"] + blocks + groups["final norm"] + groups["head"]

    def matmul_parameters(self, task: str = "causal-lm") -> int:
        """Weights that multiply every token, which is what `helpers.flops` counts: a table that is looked up is not."""
        d = self.hidden_size
        head = {"causal-lm": self.vocab_size * d, "masked-lm": (d + self.vocab_size) * d}.get(task, 0)
        return self.num_hidden_layers * sum(i * o for i, o, _ in self.block_linears().values()) + head


def read_config(config) -> Architecture:
    """Reads the architecture from a known name, a checkpoint directory, a Hub id, a config object or a dict.

    A Hub id that is not in `KNOWN_MODELS` downloads its config.json alone, never the weights.

    Raises:
        ValueError: the name is unknown, the model type is not covered, or the numbers do not fit together.
    """
    values = _config_values(config)
    name = str(config) if isinstance(config, (str, Path)) else getattr(config, "name_or_path", "")
    name = (name or values.get("model_type") or "model").rstrip("/").rsplit("/")[-1]
    model_type = values.get("model_type")
    if model_type not in ("gpt2", "llama", "mistral", "qwen2", "bert", "roberta", "distilbert"):
        raise ValueError(
            f"{name}: no closed form for model_type {model_type!r}; trace() works for any architecture, "
            "estimate() for gpt2, llama, mistral, qwen2, bert, roberta and distilbert"
        )

    def first(*keys, default=None):
        return next((values[key] for key in keys if values.get(key) is not None), default)

    width, heads = first("hidden_size", "n_embd", "dim"), first("num_attention_heads", "n_head", "n_heads")
    missing = [key for key, value in {"hidden_size": width, "num_attention_heads": heads,
               "vocab_size": values.get("vocab_size")}.items() if value is None]  # fmt: skip
    if missing:
        raise ValueError(f"{name}: the config lacks {', '.join(missing)}")
    gated = model_type in ("llama", "mistral", "qwen2")

    if first("head_dim") is None and width % heads:
        raise ValueError(f"{name}: {heads} attention heads do not divide the width of {width}")
    kv_heads = first("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ValueError(f"{name}: {kv_heads} key/value heads do not divide {heads} attention heads")
    labels = values.get("id2label")
    dropout = 0.0 if gated else 0.1
    architecture = Architecture(
        name=name,
        model_type=model_type,
        num_hidden_layers=first("num_hidden_layers", "n_layer", "n_layers", default=12),
        hidden_size=width,
        intermediate_size=first("intermediate_size", "n_inner", "hidden_dim", default=4 * width),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=first("head_dim", default=width // heads),
        vocab_size=values["vocab_size"],
        max_position_embeddings=first("max_position_embeddings", "n_positions", default=512),
        type_vocab_size=first("type_vocab_size", default=2) if model_type in ("bert", "roberta") else 0,
        tie_word_embeddings=first("tie_word_embeddings", default=not gated),
        attention_dropout=first("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout", default=dropout),
        hidden_dropout=first("resid_pdrop", "hidden_dropout_prob", "dropout", default=dropout),
        attention_bias=first("attention_bias", default=model_type == "qwen2") or not gated,
        unfused_gelu=first(
            "activation_function", "hidden_act", "activation", default="gelu_new" if model_type == "gpt2" else "gelu"
        )
        == "gelu_new",
        num_labels=len(labels) if labels else first("num_labels", default=2),
    )
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"):
        if getattr(architecture, key) <= 0:
            raise ValueError(f"{name}: {key} is {getattr(architecture, key)}; it must be positive")
    return architecture


def _config_values(config) -> dict:
    """What the config.json says that `config` names."""
    if not isinstance(config, (str, Path)):
        return config if isinstance(config, dict) else config.to_dict()
    name = str(config)
    short = name.rstrip("/").rsplit("/")[-1].lower().removesuffix("-hf")
    if (Path(name) / "config.json").is_file():
        return json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    if Path(name).is_dir():
        raise ValueError(f"{name}: no config.json in this directory; give the directory of a saved checkpoint")
    if short in KNOWN_MODELS:
        return KNOWN_MODELS[short]
    if name.count("/") != 1:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(KNOWN_MODELS)}; or give a directory or a Hub id")
    try:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(name, "config.json")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: not in the table, and its config could not be fetched: {reason}") from None
    return json.loads(Path(path).read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# The closed form
# ---------------------------------------------------------------------------------------------------------------------


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
            cells = "".join(f"{_size(self.instants[column].get(name, 0)):>16}" for column in columns)
            lines.append(f"{name:<{width}}{cells}")
        totals = {column: sum(self.instants[column].values()) for column in columns}
        lines.append(f"{'total':<{width}}" + "".join(f"{_size(totals[column]):>16}" for column in columns))
        lines += ["", f"peak {_size(self.peak_bytes)}, at: {self.peak_instant}", *self.notes]
        return "\n".join(lines)

    def plot(self, ax=None):
        """Draws one stacked bar for each instant of the step and returns the axes; the tallest bar is the peak."""
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots(figsize=(9, 0.6 * len(self.instants) + 1.4), layout="constrained")[1]
        instants = list(self.instants)[::-1]
        scale, unit = _unit(self.peak_bytes)
        left = dict.fromkeys(instants, 0.0)
        for part, colour in _COLOURS.items():
            sizes = [self.instants[name].get(part, 0) / scale for name in instants]
            if any(sizes):
                ax.barh(instants, sizes, left=list(left.values()), color=colour, label=part, edgecolor="white")
                left = {name: left[name] + size for name, size in zip(instants, sizes, strict=True)}
        ax.axvline(self.peak_bytes / scale, color="#333333", linestyle=":", linewidth=1)
        notes = [textwrap.fill(note, 64) for note in self.notes]
        ax.set_xlabel("\n".join([f"memory in {unit}; dotted: the peak, {_size(self.peak_bytes)}", *notes]), fontsize=9)
        ax.set_title(self.title, fontsize=10)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax


# Okabe and Ito's palette: distinguishable with any colour vision.
_COLOURS = {
    "weights": "#0072B2", "optimizer state": "#E69F00", "batch": "#999999", "weights in half precision": "#56B4E9",
    "gradients": "#009E73", "activations": "#D55E00", "temporaries": "#CC79A7", "gathered, buckets": "#F0E442",
}  # fmt: skip


def _unit(size: float) -> tuple[float, str]:
    return next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if size >= pair[0]), (1e3, "kB"))


def _size(size: float) -> str:
    scale, unit = _unit(size)
    return f"{size / scale:,.2f} {unit}" if size else "-"


@dataclass(frozen=True)
class _Operation:
    """One operation of a block: what its derivative needs, and what is in flight while the derivative is computed."""

    name: str
    keeps: dict[str, float]  # tensor: bytes per token; operations that keep the same tensor share it
    flow: float = 0.0  # bytes per token of gradients going in and out
    gradient: int = 0  # bytes of the weights' gradients that it produces


def _block(a: Architecture, length: int, precision: str, attention: str, gpu: bool, padded: bool,
           adapters: dict[str, int] | None = None) -> list[_Operation]:  # fmt: skip
    """The operations of one block in the modelling code of transformers 5, in forward order.

    An operation keeps what its derivative needs: a linear layer its input (unless it is frozen), a softmax or a tanh
    its output, a product both factors, dropout its mask. `adapters` gives the LoRA rank of each adapted linear layer;
    None means that everything is trained.
    """
    d, f, h = a.hidden_size, a.intermediate_size, a.num_attention_heads
    q, kv = h * a.head_dim, a.num_key_value_heads * a.head_dim
    autocast = precision in ("bf16", "fp16")
    e = 4 if precision == "fp32" else 2  # bytes of an activation
    r = 2 if precision == "pure-bf16" else 4  # bytes of the residual stream, and of a weight
    trained, adapters = adapters is None, adapters or {}
    sizes = a.block_linears()
    out = e * d if a.hidden_dropout else 0  # without dropout, a branch's gradient is the residual stream's own

    def linear(name, source, flow):
        inputs, outputs, bias = sizes[name]
        rank = adapters.get(name, 0)
        if trained:
            copied = autocast and source.startswith("norm")  # each layer casts the fp32 output of a norm for itself
            return _Operation(name, {f"{source} for {name}" if copied else source: e * inputs}, flow,
                              r * (inputs * outputs + outputs * bias))  # fmt: skip
        if rank:  # the adapter has fp32 weights and keeps its own copy of the input, and of its inner features
            copy = e if autocast else 4
            source = source if copy == e and not autocast else f"{source} for {name}"
            return _Operation(name, {source: copy * inputs, f"adapter of {name}": copy * rank}, flow,
                              4 * rank * (inputs + outputs))  # fmt: skip
        return _Operation(name, {}, flow)

    def dropout(name, width, size=e):
        mask = width * (1 if gpu else size)  # CUDA keeps one byte for each element, the CPU a number
        return [_Operation(name, {name: mask}, 2 * size * width)] if a.hidden_dropout else []

    def layer_norm(name):
        return _Operation(name, {f"input of {name}": r * d, f"statistics of {name}": 8}, 3 * r * d)

    def rms_norm(name):  # written out in fp32: keeps its input and, for its weight, the normalised input
        return _Operation(name, {f"input of {name}": 4 * d, f"statistics of {name}": 4,
                                 f"normalised {name}": r * d if trained else 0}, 12 * d)  # fmt: skip

    def attend():
        m = 4 if attention == "math" else e  # torch's unfused attention computes in fp32 on the CPU
        if attention == "fused":
            repeated = padded and kv != q  # with a mask, grouped heads are repeated
            kept = {"q, k, v": e * (3 * q if repeated else q + 2 * kv), "attention output": e * q, "log-sum-exp": 4 * h,
                    "additive mask": e * length if padded else 0}  # fmt: skip
            return [_Operation("attention", kept, e * 2 * (q + kv) + r * d)]
        scores = h * length
        # softmax runs in fp32 in Llama's code, under CUDA's autocast, and where an fp32 mask was added to the scores
        probabilities = 4 if a.gated or (autocast and (gpu or a.is_decoder or padded)) else m
        weighted = {"v": m * q}
        if a.attention_dropout:
            weighted["dropped probabilities"] = scores * m
        elif probabilities != m:
            weighted["rounded probabilities"] = scores * m
        steps = [
            _Operation("scores", {"q, k": m * 2 * q}, probabilities * scores + m * 3 * q + r * d),
            _Operation("softmax", {"probabilities": scores * probabilities}, 2 * probabilities * scores + r * d),
            _Operation("weighted sum", weighted, max(m, probabilities) * scores + m * 2 * q + r * d),
        ]
        if a.attention_dropout:
            mask = {"probabilities dropped": scores * (1 if gpu else m)}
            steps.insert(2, _Operation("dropout", mask, 2 * probabilities * scores + r * d))
        return steps

    def gelu():
        if not a.unfused_gelu:
            return [_Operation("gelu", {"input of gelu": e * f}, 2 * e * f + r * d)]
        # x, 0.5 x, tanh and 1 + tanh; CUDA's autocast computes x ** 3, and so the rest, in fp32
        widened = autocast and gpu
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
        ]
    query, key, value, attended, inner, outer = sizes
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
        layer_norm("norm 2"),
    ]


def _kept(operations: list[_Operation]) -> float:
    """Bytes per token that autograd keeps of these operations, each tensor once."""
    return sum({name: size for operation in operations for name, size in operation.keeps.items()}.values())


def _backward_peak(operations: list[_Operation], tokens: int) -> float:
    """Most bytes during a block's backward pass: kept tensors, gradients in flight, and weights' gradients so far."""
    peak = weights = 0.0
    for position in range(len(operations) - 1, -1, -1):
        weights += operations[position].gradient
        peak = max(peak, tokens * (_kept(operations[: position + 1]) + operations[position].flow) + weights)
    return peak


def _check(a: Architecture, settings: dict) -> None:
    """Raises ValueError for settings that no training run can have."""
    for key in ("per_device_train_batch_size", "sequence_length", "num_gpus", "lora_rank"):
        if not isinstance(settings[key], int) or isinstance(settings[key], bool) or settings[key] < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, got {settings[key]!r}")
    choices = {"task": TASKS, "precision": PRECISIONS, "attn_implementation": ATTENTION, "optim": OPTIMIZERS,
               "method": METHODS, "sharding": SHARDING, "device": ("cuda", "cpu", "mps")}  # fmt: skip
    for key, allowed in choices.items():
        if settings[key] not in allowed:
            raise ValueError(f"unknown {key} {settings[key]!r}; choose from {', '.join(allowed)}")
    if settings["task"] == "causal-lm" and not a.is_decoder:
        raise ValueError(f"{a.name}: {a.model_type} is an encoder and does not generate; "
                         "use task='masked-lm' or 'sequence-classification'")  # fmt: skip
    if settings["task"] == "masked-lm" and a.is_decoder:
        raise ValueError(f"{a.name}: {a.model_type} is a decoder; use task='causal-lm' or 'sequence-classification'")
    positions = a.max_position_embeddings - (2 if a.model_type == "roberta" else 0)
    if settings["sequence_length"] > positions:
        raise ValueError(f"sequence_length {settings['sequence_length']} is beyond {a.name}'s {positions} positions")
    if settings["attn_implementation"] == "flash_attention_2" and settings["precision"] == "fp32":
        raise ValueError("flash_attention_2 works in half precision only: use precision='bf16'")
    if settings["method"] == "qlora" and settings["precision"] == "fp32":
        raise ValueError("QLoRA computes in half precision: use precision='bf16' or 'pure-bf16'")
    if settings["method"] == "qlora" and settings["num_gpus"] > 1 and settings["sharding"] not in ("ddp", "zero1"):
        raise ValueError("sharding of 4-bit weights is not covered: use sharding='ddp' or 'zero1' with QLoRA")
    if settings["method"] != "full":
        linears = {name.rsplit(".")[-1] for name in a.block_linears()} | set(a.block_linears())
        unknown = [name for name in settings["lora_target_modules"] if name not in linears]
        if unknown:
            raise ValueError(f"{a.name} has no linear layer {unknown[0]!r}; choose from {', '.join(sorted(linears))}")


def _optimizer(optim: str, matrices: list[tuple[int, int, int, bool]], trainable: int, w: int, gpu: bool):
    """Bytes of the optimizer's state, and of its temporaries within `step()`.

    `matrices` holds rows, columns, how many there are, and whether they are in the blocks; `w` is a gradient's width.
    """
    sizes = [(rows * columns, count) for rows, columns, count, _ in matrices]
    largest = max(size for size, _ in sizes)
    vectors = trainable - sum(size * count for size, count in sizes)  # biases and norms
    if optim == "sgd":
        return 0, 0
    if optim == "adamw_torch_fused":
        return 2 * w * trainable, 0
    if optim == "adamw_torch_foreach" or (optim == "adamw_torch" and gpu):
        return 2 * w * trainable, w * trainable
    if optim in ("adamw_torch", "adamw_torch_forloop"):
        return 2 * w * trainable, 2 * w * largest
    if optim == "adamw_8bit":  # two bytes an element and two fp32 scales for each 256; tensors under 4096 stay in fp32
        in_eight_bits = sum(size * count for size, count in sizes if size >= 4096)
        return in_eight_bits * 2 * (1 + 4 / 256) + 8 * (trainable - in_eight_bits), 0 if gpu else 20 * largest
    if optim == "muon":  # one momentum for the blocks' matrices, AdamW for the rest
        inside = [(rows * columns, count) for rows, columns, count, in_block in matrices if in_block]
        momentum = sum(size * count for size, count in inside)
        return w * (2 * trainable - momentum), 3 * w * max(size for size, _ in inside)
    # Adafactor: a sum for each row and column of a matrix, one for each element of a vector
    return 4 * (vectors + sum((rows + columns) * count for rows, columns, count, _ in matrices)), 8 * largest


# PEFT's defaults; it has none for DistilBERT
_LORA_TARGETS = {"gpt2": ("c_attn",), "bert": ("query", "value"), "roberta": ("query", "value"),
                 "distilbert": ("q_lin", "v_lin"), "llama": ("q_proj", "v_proj"), "mistral": ("q_proj", "v_proj"),
                 "qwen2": ("q_proj", "v_proj")}  # fmt: skip


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
        method: "full"; "lora"; "qlora" (the base model's linear layers in 4-bit NF4).
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
    a = read_config(config)
    task = task or ("causal-lm" if a.is_decoder else "sequence-classification")
    targets = tuple(lora_target_modules or _LORA_TARGETS[a.model_type])
    optim = getattr(optim, "value", optim)  # TrainingArguments.optim is an enumeration
    settings = {
        "per_device_train_batch_size": per_device_train_batch_size, "sequence_length": sequence_length, "task": task,
        "precision": precision, "attn_implementation": attn_implementation, "optim": optim, "method": method,
        "lora_rank": lora_rank, "lora_target_modules": targets, "num_gpus": num_gpus, "sharding": sharding,
        "device": device,
    }  # fmt: skip
    _check(a, settings)
    gpu = device == "cuda"
    tokens = per_device_train_batch_size * sequence_length
    layers, d, v = a.num_hidden_layers, a.hidden_size, a.vocab_size
    autocast = precision in ("bf16", "fp16") and method != "qlora"
    r = 2 if precision == "pure-bf16" or method == "qlora" else 4  # bytes of a weight and of the residual stream
    e = 4 if precision == "fp32" else 2  # bytes of an activation
    full = method == "full"
    generates = task in ("causal-lm", "masked-lm")

    # Weights, gradients, optimizer state
    groups, parameters, linears = a.parameter_groups(task), a.parameters(task), a.block_linears()
    adapters = None if full else {name: lora_rank for name in linears if {name, name.rsplit(".")[-1]} & set(targets)}
    in_linears = sum(inputs * outputs for inputs, outputs, _ in linears.values())  # of one block
    weights, trainable = parameters * r, parameters
    gradients = trainable * r
    if not full:
        trainable = layers * sum(lora_rank * sum(linears[name][:2]) for name in adapters)
        if task == "sequence-classification":  # PEFT trains a copy of the module called classifier or score
            trainable += groups["head"] if a.model_type == "roberta" else a.num_labels * (d + (not a.is_decoder))
        weights += trainable * 4
        gradients = trainable * 4
    if method == "qlora":  # NF4: half a byte, a scale in 8 bits for 64 weights, a second one in 32 bits for 256 scales
        weights += int(layers * in_linears * (0.5 + 1 / 64 + 4 / (64 * 256) - r))
    if full:
        matrices = [(v, d, 2 if task == "causal-lm" and not a.tie_word_embeddings else 1, False)]
        matrices += [] if a.gated else [(a.max_position_embeddings, d, 1, True)]
        matrices += [] if a.is_decoder else [(d, d, 1, True)]  # of the head
        matrices += [(inputs, outputs, layers, True) for inputs, outputs, _ in linears.values()]
    else:
        matrices = [(lora_rank, side, layers, True) for name in adapters for side in linears[name][:2]]
    state, optimizer_temporary = _optimizer(optim, matrices, trainable, r if full else 4, gpu)

    # Activations
    attention = "eager" if attn_implementation == "eager" else "fused"
    if attn_implementation == "sdpa" and not gpu and a.attention_dropout:
        attention = "math"  # the CPU's fused attention has no dropout
    grouped = a.num_key_value_heads != a.num_attention_heads
    if attn_implementation == "sdpa" and gpu and e == 4 and grouped and not padded:
        attention = "math"  # CUDA's fused fp32 attention has no grouped heads
    operations = _block(a, sequence_length, "pure-bf16" if method == "qlora" else precision, attention, gpu, padded,
                        adapters)  # fmt: skip
    first_operations = operations
    if not full and not activation_checkpointing:  # nothing before the first adapter needs a gradient
        first = next(index for index, operation in enumerate(operations) if operation.name in adapters)
        first_operations = [replace(operation, keeps={}) for operation in operations[:first]] + operations[first:]
    one_block, first_block = tokens * _kept(operations), tokens * _kept(first_operations)
    backward, first_backward = _backward_peak(operations, tokens), _backward_peak(first_operations, tokens)
    block_input = tokens * d * r
    # The forward pass of a block ends with a norm; encoders' eager attention holds its fp32 probabilities until then.
    held = a.num_attention_heads * sequence_length * 4
    held *= attention == "eager" and autocast and gpu and not a.is_decoder and a.attention_dropout > 0
    forward = tokens * (d * (2 * r + (e if a.hidden_dropout else 0)) + held)
    mask = tokens * sequence_length * e if attention == "eager" and a.is_decoder else 0
    if activation_checkpointing:  # each block runs forward once more
        backward = max(backward, one_block + forward) + mask
        first_backward = max(first_backward, first_block + forward) + mask
    # Before the blocks: BERT's norm, dropout's mask. After them: the final norm, and what a head that is trained reads.
    front = (0 if a.is_decoder else d * r + 8) + (d * (1 if gpu else r) if a.hidden_dropout else 0)
    if not full:  # checkpointing needs a gradient to reach each block: PEFT asks the embeddings for one
        front = front + d * r * (not a.gated) if activation_checkpointing else 0
    read = d * e if full or not generates else 0
    end = d * (4 + (r if full else 0)) + 4 + read if a.gated else d * r + 8 + read
    if not a.is_decoder:
        end = d * (3 * e + r) if task == "masked-lm" else d * r
    front, end = tokens * front, tokens * end
    kept = front + end + (layers * block_input if activation_checkpointing else first_block + (layers - 1) * one_block)
    head_gradient = v * d * r if generates and full else 0
    logits = 0
    if generates:  # log-softmax and two gradients in fp32; then the gradient in half precision and the head's own
        width = 2 if task == "masked-lm" and precision == "pure-bf16" else 4  # causal models widen their logits to fp32
        logits = max(3 * width * tokens * v, (width + (e if e == 2 else 0)) * tokens * v + head_gradient)
    block_casts, head_casts = (2 * in_linears, 2 * v * d * generates) if autocast else (0, 0)
    casts = layers * block_casts + head_casts
    batch = tokens * 8 * ((2 if generates else 1) + (1 if padded else 0))

    # Several processes: each keeps its share, and gathers what it needs when it needs it
    tied = generates and a.tie_word_embeddings
    made_last = r * (groups["embeddings"] - (v * d if tied else 0)) if full else 0  # the embeddings' gradients
    made_before = gradients - made_last - sum(operation.gradient for operation in operations)
    duplicates = 2 * head_gradient if tied else 0  # a tied table gets two gradients, and their sum
    block = r * (groups["linears"] + groups["norms"])
    outside = weights - layers * block  # weights of no block: FSDP's root unit
    shared = dict.fromkeys(("loss", "last block", "first block", "embeddings", "optimizer step"), 0)
    if num_gpus > 1:
        state /= 1 if sharding == "ddp" else num_gpus
        if sharding in ("ddp", "zero1"):
            shared = dict.fromkeys(shared, gradients)  # DDP's buckets
        else:  # a unit is gathered before it runs; its gradients are copied, and reduced to a share
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
        "last block": fixed | {half: block_casts if activation_checkpointing else casts - head_casts,
                               "gradients": head_gradient,
                               "activations": kept - end + (one_block if activation_checkpointing else 0),
                               "temporaries": backward - one_block},
        "first block": fixed | {half: block_casts, "gradients": made_before, "activations": front + first_block,
                                "temporaries": first_backward - first_block},
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
        notes=(NOT_SEEN,) if gpu else (),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Trace and measurement: the same tracker on fake and on real tensors
# ---------------------------------------------------------------------------------------------------------------------


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
        lines = [f"peak {_size(self.peak_bytes)}, traced in {self.seconds:.1f} s"]
        lines += [f"  {name:<28}{_size(size):>12}" for name, size in self.parts.items()]
        lines += [f"  peak in {name:<20}{_size(size):>12}" for name, size in self.phases.items()]
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
        return f"peak {_size(self.peak_bytes)}, measured on {self.device} in {self.seconds:.1f} s"


def measure(step) -> Measurement:
    """Calls `step()` and reports the most memory that tensors held at once while it ran.

    `step` is anything without arguments: one training step, or a whole `trainer.train`. On CUDA the figure is
    `torch.cuda.max_memory_allocated`, which counts every tensor on the device. On the CPU every tensor operation is
    watched, and each tensor that takes part counts: one that existed before (the model, the optimizer's state) from the
    start, a new one from its creation until it is freed. A tensor that the run never touches does not count, nor does
    work in other processes or threads, such as a DataLoader's workers.
    """
    import gc
    import time

    import torch

    start = time.perf_counter()
    if torch.cuda.is_available():
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
# two states, the gradient, a square root and a quotient in fp32. Its CUDA kernel holds nothing.
_CPU_WORKSPACE = {"bitsandbytes.optimizer_update_8bit_blockwise.default": 20}


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
            _, size, kind = self.alive.pop(key)
            self.current -= size
            self.kinds[kind] -= size

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.add((arguments, keywords))
            workspace = 0 if cuda else _CPU_WORKSPACE.get(str(function), 0)
            if workspace and self.current + workspace * arguments[1].numel() > self.peak:
                self.start_phase(workspace * arguments[1].numel())
            result = function(*arguments, **(keywords or {}))
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
    if method == "qlora" or (
        isinstance(model, torch.nn.Module) and any(hasattr(p, "quant_state") for p in model.parameters())
    ):
        raise ValueError("trace() cannot follow 4-bit weights on fake tensors; use estimate() or measure()")
    if not isinstance(model, torch.nn.Module):
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
        config = transformers.AutoConfig.for_model(**_config_values(config))
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
        targets = lora_target_modules or _LORA_TARGETS.get(config.model_type)
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
        return [torch.optim.Muon(matrices, lr=1e-4), torch.optim.AdamW(others, lr=1e-4, fused=True)]
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


if __name__ == "__main__":
    raise SystemExit(main())
