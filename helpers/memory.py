"""How much memory a training step takes: predicted, traced and measured.

Three answers to "will it fit?", each checked against the next:

- `estimate(config, ...)` is a closed form. It needs the numbers of a config, no torch, and takes milliseconds.
- `trace(config or model, ...)` runs two steps on fake tensors: exact for any architecture, seconds, allocates nothing.
- `measure(step)` runs a real step and reports the peak that it reached.

A step has four instants at which its memory can peak, and they do not share the same tensors:

    loss             weights + optimizer state + batch + all activations + the logits, three times, in fp32
    last block       weights + optimizer state + batch + all activations + the temporaries of one block's backward
    first block      weights + optimizer state + batch + all gradients + one block
    optimizer step   weights + optimizer state + batch + all gradients + the optimizer's temporaries

The peak is the largest of the four. Adding gradients *and* activations, as most guides do, counts two instants at once.

Sizes are in bytes; 1 GB is 1e9 bytes. On a GPU the kernels' workspaces, the allocator's fragmentation and the CUDA
context (together often 0.5 to 2 GB) come on top: neither a closed form nor a trace can see them.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
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
    return {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": 50257, "n_positions": 1024}


def _bert(layers, width, heads, vocabulary, model_type="bert", positions=512, types=2):
    return {
        "model_type": model_type, "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads,
        "intermediate_size": 4 * width, "vocab_size": vocabulary, "max_position_embeddings": positions, "type_vocab_size": types,
    }  # fmt: skip


def _llama(layers, width, inner, heads, kv_heads, vocabulary, positions, tied=False, model_type="llama", head_dim=None):
    return {
        "model_type": model_type, "num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "head_dim": head_dim,
        "max_position_embeddings": positions, "tie_word_embeddings": tied,
    }  # fmt: skip


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
    "distilbert-base-uncased": _bert(6, 768, 12, 30522, "distilbert"),
    "distilbert-base-cased": _bert(6, 768, 12, 28996, "distilbert"),
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
        names = list(dict.fromkeys(name for parts in self.instants.values() for name in parts))
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
            ax = plt.subplots(figsize=(8, 0.7 * len(self.instants) + 1.2), layout="constrained")[1]
        instants = list(self.instants)[::-1]
        scale, unit = _unit(self.peak_bytes)
        left = dict.fromkeys(instants, 0.0)
        for part, colour in _COLOURS.items():
            sizes = [self.instants[name].get(part, 0) / scale for name in instants]
            if any(sizes):
                ax.barh(instants, sizes, left=list(left.values()), color=colour, label=part, edgecolor="white")
                left = {name: left[name] + size for name, size in zip(instants, sizes, strict=True)}
        ax.axvline(self.peak_bytes / scale, color="#333333", linestyle=":", linewidth=1)
        ax.set_xlabel(f"memory in {unit}; dotted: the peak, {_size(self.peak_bytes)}")
        ax.set_title(self.title, fontsize=10)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax


# Okabe and Ito's palette: distinguishable with any colour vision.
_COLOURS = {
    "weights": "#0072B2", "optimizer state": "#E69F00", "batch": "#999999", "weights in half precision": "#56B4E9",
    "gradients": "#009E73", "activations": "#D55E00", "temporaries": "#CC79A7",
}  # fmt: skip


def _unit(size: float) -> tuple[float, str]:
    return next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if size >= pair[0]), (1e3, "kB"))


def _size(size: float) -> str:
    scale, unit = _unit(size)
    return f"{size / scale:,.2f} {unit}" if size else "-"


@dataclass
class _Block:
    """One block's tensors: bytes per token that autograd keeps, and its operations in forward order."""

    kept: dict[str, float]
    operations: list[tuple[str, tuple[str, ...], float]]  # name, what it keeps, bytes/token of gradients in flight

    def total(self) -> float:
        return sum(self.kept[name] for name in {name for _, keeps, _ in self.operations for name in keeps})

    def backward_peak(self) -> float:
        """Most bytes per token during the block's backward: what is still kept, and the gradients in flight."""
        peaks = []
        for position, (_, _, flow) in enumerate(self.operations):
            alive = {name for _, keeps, _ in self.operations[: position + 1] for name in keeps}
            peaks.append(sum(self.kept[name] for name in alive) + flow)
        return max(peaks)


def _block(a: Architecture, tokens_per_row: int, precision: str, math_attention: bool, gpu: bool) -> _Block:
    """What autograd keeps of one block of the modelling code of transformers 5, operation by operation.

    An operation keeps what its derivative needs: a linear layer its input, a softmax or a tanh its output, a product
    both factors, dropout its mask.
    """
    d, f, h, s = a.hidden_size, a.intermediate_size, a.num_attention_heads, tokens_per_row
    q, kv = h * a.head_dim, a.num_key_value_heads * a.head_dim
    e = 4 if precision == "fp32" else 2  # bytes of an activation
    r = 2 if precision == "pure-bf16" else 4  # bytes of the residual stream
    autocast = precision in ("bf16", "fp16")
    mask = 1 if gpu else e  # CUDA keeps one byte for each element of a dropout mask, the CPU a number
    attention_dropout, dropout = a.attention_dropout > 0, a.hidden_dropout > 0

    kept: dict[str, float] = {"log-sum-exp": 4 * h, "attention output": e * q}
    if math_attention:
        softmax = 4 if (autocast or a.gated) else e  # softmax runs in fp32 under autocast, and always in Llama's code
        kept["softmax"] = h * s * softmax
        kept["softmax, low precision"] = h * s * e if softmax != e and not attention_dropout else 0
        kept["attention dropout"] = h * s * (e + mask) if attention_dropout else 0
        attention = ("softmax", "softmax, low precision", "attention dropout")
        attention_flow = 2 * h * s * softmax
    else:
        attention, attention_flow = ("attention output", "log-sum-exp"), e * 2 * (q + kv)

    if a.model_type == "gpt2":
        gelu = 14 if autocast and gpu else 4 * e  # x, 0.5x, tanh, 1 + tanh; on CUDA autocast computes x**3 in fp32
        kept |= {"residual": r * d, "ln_1": e * d, "q, k, v": e * 3 * d, "attention mask": mask * d * dropout,
                 "residual 2": r * d, "ln_2": e * d, "gelu": gelu * f, "gelu output": e * f,
                 "mlp mask": mask * d * dropout}  # fmt: skip
        operations = [
            ("ln_1", ("residual",), 2 * r * d),
            ("c_attn", ("ln_1",), e * 4 * d),
            ("attention", ("q, k, v", *attention), attention_flow),
            ("attn.c_proj", ("attention output",), e * 2 * d),
            ("dropout", ("attention mask",), e * d),
            ("ln_2", ("residual 2",), 2 * r * d),
            ("c_fc", ("ln_2",), e * (f + d)),
            ("gelu", ("gelu",), e * 3 * f),
            ("mlp.c_proj", ("gelu output",), e * (f + d)),
            ("dropout", ("mlp mask",), e * d),
        ]
    elif a.gated:
        norm = {"fp32": 12, "pure-bf16": 8}.get(precision, 10)
        kv_kept = q if math_attention else kv
        kept |= {"norm 1": (norm - e) * d, "norm 1 output": e * d, "q": e * q, "k": e * kv_kept, "v": e * kv_kept,
                 "norm 2": (norm - e) * d, "norm 2 output": e * d, "gate": 3 * e * f, "mlp": e * f}  # fmt: skip
        operations = [
            ("norm 1", ("norm 1",), 2 * r * d),
            *[(name, ("norm 1 output",), e * (q + d)) for name in ("q_proj", "k_proj", "v_proj")],
            ("attention", ("q", "k", "v", *attention), attention_flow),
            ("o_proj", ("attention output",), e * (q + d)),
            ("norm 2", ("norm 2",), 2 * r * d),
            *[(name, ("norm 2 output",), e * (f + d)) for name in ("gate_proj", "up_proj")],
            ("gate", ("gate",), e * 2 * f),
            ("down_proj", ("mlp",), e * (f + d)),
        ]
    else:
        names = list(a.block_linears())
        copies = 3 if autocast else 1  # under autocast q, k and v each make their own half-precision copy of the input
        kept |= {"input": e * d * copies, "q": e * d, "k": e * d, "v": e * d, "attention mask": mask * d * dropout,
                 "residual": r * d, "norm 1": e * d, "gelu": e * f, "gelu output": e * f,
                 "mlp mask": mask * d * dropout, "residual 2": r * d}  # fmt: skip
        if a.model_type == "distilbert":
            kept["attention mask"] = 0
        operations = [
            *[(name, ("input",), e * 2 * d) for name in names[:3]],
            ("attention", ("q", "k", "v", *attention), attention_flow),
            (names[3], ("attention output",), e * 2 * d),
            ("dropout", ("attention mask",), e * d),
            ("norm 1", ("residual",), 2 * r * d),
            (names[4], ("norm 1",), e * (f + d)),
            ("gelu", ("gelu",), e * 2 * f),
            (names[5], ("gelu output",), e * (f + d)),
            ("dropout", ("mlp mask",), e * d),
            ("norm 2", ("residual 2",), 2 * r * d),
        ]
    return _Block(kept, operations)


def _check(a: Architecture, settings: dict) -> None:
    """Raises ValueError for settings that no training run can have."""
    for key in ("per_device_train_batch_size", "sequence_length", "num_gpus", "lora_rank"):
        if not isinstance(settings[key], int) or isinstance(settings[key], bool) or settings[key] < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, got {settings[key]!r}")
    choices = {"task": TASKS, "precision": PRECISIONS, "attn_implementation": ATTENTION, "optim": OPTIMIZERS,
               "method": METHODS, "sharding": SHARDING, "device": ("cuda", "cpu")}  # fmt: skip
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
    if settings["method"] != "full":
        linears = {name.rsplit(".")[-1] for name in a.block_linears()} | set(a.block_linears())
        unknown = [name for name in settings["lora_target_modules"] if name not in linears]
        if unknown:
            raise ValueError(f"{a.name} has no linear layer {unknown[0]!r}; choose from {', '.join(sorted(linears))}")


# PEFT's own defaults
_LORA_TARGETS = {"gpt2": ("c_attn",), "bert": ("query", "value"), "roberta": ("query", "value"),
                 "distilbert": ("q_lin", "v_lin")}  # fmt: skip


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
        lora_rank, lora_target_modules: as in peft's `LoraConfig`; PEFT's default targets when None.
        num_gpus, sharding: data parallel processes and what they share out: "ddp", "zero1", "zero2", "zero3", "fsdp".
        device: "cuda" or "cpu"; they keep different tensors for dropout, attention and autocast.

    Raises:
        ValueError: a setting is nonsense, the model is unknown, or the two do not fit together.
    """
    a = read_config(config)
    task = task or ("causal-lm" if a.is_decoder else "sequence-classification")
    targets = tuple(lora_target_modules or _LORA_TARGETS.get(a.model_type, ("q_proj", "v_proj")))
    settings = {
        "per_device_train_batch_size": per_device_train_batch_size, "sequence_length": sequence_length, "task": task,
        "precision": precision, "attn_implementation": attn_implementation, "optim": optim, "method": method, "lora_rank": lora_rank,
        "lora_target_modules": targets, "num_gpus": num_gpus, "sharding": sharding, "device": device,
    }  # fmt: skip
    _check(a, settings)
    gpu = device == "cuda"
    tokens = per_device_train_batch_size * sequence_length
    layers, d, v = a.num_hidden_layers, a.hidden_size, a.vocab_size
    parameters = a.parameters(task)
    w = 2 if precision == "pure-bf16" else 4  # bytes of a weight
    r = w  # the residual stream has the type of the weights

    # weights, gradients, optimizer state
    weights, trainable = parameters * w, parameters
    if method != "full":
        linears = a.block_linears()
        adapted = [shape for name, shape in linears.items() if name in targets or name.rsplit(".")[-1] in targets]
        trainable = layers * sum(lora_rank * (i + o) for i, o, _ in adapted)
        if method == "qlora":
            in_four_bits = layers * sum(i * o for i, o, _ in linears.values())
            w = 2  # the rest of the base model is loaded in bf16
            weights = (parameters - in_four_bits) * w + int(in_four_bits * (0.5 + 1 / 64 + 4 / (64 * 256)))
        weights += trainable * 4
    gradients = trainable * (w if method == "full" else 4)
    state = {"sgd": 0, "adamw_8bit": trainable * 2 * (1 + 4 / 256), "adafactor": 0, "muon": trainable * w}.get(
        optim, 2 * gradients
    )
    foreach = optim == "adamw_torch_foreach" or (optim == "adamw_torch" and gpu)
    largest = max([v * d, *(i * o for i, o, _ in a.block_linears().values())])
    optimizer_temporary = {"adamw_torch_fused": 0, "sgd": 0, "adamw_8bit": 0}.get(optim, 2 * largest * w)
    if foreach:
        optimizer_temporary = gradients

    # activations
    math_attention = attn_implementation == "eager"
    if attn_implementation == "sdpa" and not gpu:
        math_attention = a.attention_dropout > 0  # the CPU's fast attention has no dropout
    block = _block(a, sequence_length, precision, math_attention, gpu)
    one_block, recomputed = tokens * block.total(), tokens * block.backward_peak()
    ends = tokens * d * (3 * r if a.gated else 2 * r)
    kept = (layers * tokens * d * r if activation_checkpointing else layers * one_block) + ends
    logits = 12 * tokens * v if task in ("causal-lm", "masked-lm") else 0
    half_copies = 2 * parameters if precision in ("bf16", "fp16") and method == "full" else 0
    batch = tokens * 8 * (2 if task != "sequence-classification" else 1)

    # several processes
    share = {"weights": sharding in ("zero3", "fsdp"), "gradients": sharding in ("zero2", "zero3", "fsdp"),
             "state": sharding != "ddp"}  # fmt: skip
    if num_gpus > 1:
        weights = weights // num_gpus if share["weights"] else weights
        gradients = gradients // num_gpus if share["gradients"] else gradients
        state = state / num_gpus if share["state"] else state

    transient = max(0.0, recomputed - one_block)
    fixed = {"weights": weights, "optimizer state": state, "batch": batch}
    rest = one_block if activation_checkpointing else 0
    instants = {
        "loss": fixed | {"weights in half precision": half_copies, "activations": kept, "temporaries": logits},
        "last block": fixed | {"weights in half precision": half_copies, "activations": kept + rest,
                               "temporaries": transient + (v * d * w if task == "causal-lm" else 0)},
        "first block": fixed | {"gradients": gradients, "activations": one_block, "temporaries": transient},
        "optimizer step": fixed | {"gradients": gradients, "temporaries": optimizer_temporary},
    }  # fmt: skip
    instants = {name: {part: math.ceil(size) for part, size in parts.items()} for name, parts in instants.items()}
    title = (
        f"{a.name} ({parameters / 1e6:,.1f} M parameters), {task}, {method}, batch {per_device_train_batch_size} x "
        f"{sequence_length}, {precision}, {attn_implementation}, {optim}"
        + (", checkpointing" if activation_checkpointing else "")
        + (f", {num_gpus} GPUs with {sharding}" if num_gpus > 1 else "")
    )
    return MemoryEstimate(
        title, parameters, trainable, weights, math.ceil(gradients), math.ceil(state), math.ceil(kept), batch, instants,
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


def _tracker(existing=(), round_to: int = 1):
    """A dispatch mode that sees every tensor operation and adds up the storages that are alive, as `current`, `peak`.

    `existing` are tensors from before: when the run first touches one, it turns out to have counted from the start.
    """
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
            self.existing = {}
            for storage in filter(None.__ne__, map(storage_of, existing)):
                self.existing[id(storage)] = weakref.ref(storage)

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

        def start_phase(self):
            """Forgets the peak so far: the next one is looked for from here."""
            self.peak, self.parts = self.current, dict(self.kinds)

        def remove(self, key):
            _, size, kind = self.alive.pop(key)
            self.current -= size
            self.kinds[kind] -= size

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.add((arguments, keywords))
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
    of transformers, and for a model object as it stands (its adapters, its attention), which is not changed.

    Args:
        model: what `estimate` accepts, a config of any other architecture, or a model (then `attn_implementation`,
            `method` and the LoRA settings are the model's own).
        per_device_train_batch_size, sequence_length, task, precision, attn_implementation, activation_checkpointing,
            optim, method, lora_rank, lora_target_modules: as in `estimate`.
        padded: give the model a padding mask, as a batch of unequal lengths has.
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
    if method == "qlora":
        raise ValueError("trace() cannot follow 4-bit weights on fake tensors; use estimate() or measure()")
    # On fake tensors transformers cannot see that a batch is not packed, and would build a mask that no real one has.
    unpacked = patch.object(transformers.masking_utils, "find_packed_sequence_indices", lambda *_, **__: None)
    kernels = _cuda_kernels() if device == "cuda" else contextlib.nullcontext()
    with FakeTensorMode(), unpacked, kernels:
        if isinstance(model, torch.nn.Module):
            model = _fake_copy(model)
        else:
            model = build_model(model, task=task, precision=precision, attn_implementation=attn_implementation,
                                method=method, lora_rank=lora_rank, lora_target_modules=lora_target_modules)  # fmt: skip
        if activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        batch = build_batch(model, per_device_train_batch_size, sequence_length, padded)
        optimizers = build_optimizers(model, optim)
        tracker = _tracker(round_to=512 if device == "cuda" else 1)  # CUDA's allocator hands out multiples of 512 bytes
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
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=lora_rank, target_modules=lora_target_modules and list(lora_target_modules), task_type=kinds.get(task),
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

    parser = argparse.ArgumentParser(prog="python -m helpers.memory", description="Peak memory of a training step.")
    parser.add_argument("model", help="a known name, a checkpoint directory or a Hub id")
    parser.add_argument("--batch-size", type=int, required=True, dest="per_device_train_batch_size")
    parser.add_argument("--sequence-length", type=int, required=True)
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--attn-implementation", choices=ATTENTION, default="sdpa")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--optim", choices=OPTIMIZERS, default="adamw_torch_fused")
    parser.add_argument("--method", choices=METHODS, default="full")
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--sharding", choices=SHARDING, default="ddp")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = vars(parser.parse_args(arguments))
    try:
        print(estimate(options.pop("model"), **options))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
