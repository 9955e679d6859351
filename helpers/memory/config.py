"""What is trained and how: a model's numbers, read from its config, and the settings of a run, checked.

`helpers.memory` predicts from them and `helpers.memory.tracing` builds the model from them. Nothing here needs torch.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

TASKS = ("causal-lm", "masked-lm", "sequence-classification")
PRECISIONS = ("fp32", "bf16", "fp16", "pure-bf16")
ATTENTION = ("eager", "sdpa", "flash_attention_2")
METHODS = ("full", "lora", "qlora")
SHARDING = ("ddp", "zero1", "zero2", "zero3", "fsdp")
DEVICES = ("cuda", "cpu", "mps")
OPTIMIZERS = (
    "adamw_torch_fused", "adamw_torch", "adamw_torch_foreach", "adamw_torch_forloop", "adamw_8bit", "adafactor", "sgd",
    "muon",
)  # fmt: skip

DECODERS = ("gpt2", "llama", "mistral", "qwen2")
GATED = ("llama", "mistral", "qwen2")  # RMSNorm, rotary positions, a gated MLP
ENCODERS = ("bert", "roberta", "distilbert")

# What PEFT adapts when nothing else is said; it has no default for DistilBERT.
LORA_TARGETS = {"gpt2": ("c_attn",), "bert": ("query", "value"), "roberta": ("query", "value"),
                "distilbert": ("q_lin", "v_lin"), "llama": ("q_proj", "v_proj"), "mistral": ("q_proj", "v_proj"),
                "qwen2": ("q_proj", "v_proj")}  # fmt: skip


def _known_models() -> dict[str, dict]:
    with open(Path(__file__).with_name("models.toml"), "rb") as file:
        families = tomllib.load(file)["family"]
    return {name: family["common"] | own for family in families for name, own in family["models"].items()}


KNOWN_MODELS = _known_models()


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
    embedding_dropout: float
    attention_bias: bool
    mlp_bias: bool
    unfused_gelu: bool
    num_labels: int

    @property
    def is_decoder(self) -> bool:
        """Whether it generates: each token sees only those before it."""
        return self.model_type in DECODERS

    @property
    def gated(self) -> bool:
        """Whether its blocks have Llama's shape: RMSNorm, rotary positions, a gated MLP."""
        return self.model_type in GATED

    def block_linears(self) -> dict[str, tuple[int, int, bool]]:
        """(in_features, out_features, has bias) of each linear layer of one block, by its module's name."""
        d, f = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        if self.model_type == "gpt2":
            return {"c_attn": (d, 3 * d, True), "attn.c_proj": (d, d, True), "c_fc": (d, f, True),
                    "mlp.c_proj": (f, d, True)}  # fmt: skip
        if self.gated:
            bias, mlp_bias = self.attention_bias, self.mlp_bias
            return {"q_proj": (d, q, bias), "k_proj": (d, kv, bias), "v_proj": (d, kv, bias),
                    "o_proj": (q, d, bias and self.model_type == "llama"), "gate_proj": (d, f, mlp_bias),
                    "up_proj": (d, f, mlp_bias), "down_proj": (f, d, mlp_bias)}  # fmt: skip
        if self.model_type == "distilbert":
            names = ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")
        else:
            names = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
        return dict(zip(names, [(d, d, True)] * 4 + [(d, f, True), (f, d, True)], strict=True))

    def parameter_shapes(self, task: str) -> dict[str, list[tuple[int, ...]]]:
        """Shapes of the parameters of the embeddings, of one block, of the final norm and of the head, in order."""
        d, v = self.hidden_size, self.vocab_size
        norm = [(d,)] if self.gated else [(d,), (d,)]
        embeddings = [(v, d)]
        if not self.gated:
            embeddings += [(self.max_position_embeddings, d)]
        if self.type_vocab_size:
            embeddings += [(self.type_vocab_size, d)]
        if not self.is_decoder:
            embeddings += norm
        block = []
        for inputs, outputs, bias in self.block_linears().values():
            block += [(inputs, outputs), (outputs,)] if bias else [(inputs, outputs)]
        block += 2 * norm
        untied = [] if self.tie_word_embeddings else [(v, d)]
        if task == "causal-lm":
            head = untied
        elif task == "masked-lm":  # a dense layer, a norm and a bias per word before the decoder
            head = [(v,), (d, d), (d,), *norm, *untied]
        elif self.is_decoder:
            head = [(self.num_labels, d)]
        else:  # a pooler or dense layer, then the classifier
            head = [(d, d), (d,), (self.num_labels, d), (self.num_labels,)]
        return {"embeddings": embeddings, "block": block, "norm": norm if self.is_decoder else [], "head": head}

    def parameter_groups(self, task: str) -> dict[str, int]:
        """Number of parameters of the embeddings, of one block, of the final norm and of the head."""
        return {part: sum(map(math.prod, shapes)) for part, shapes in self.parameter_shapes(task).items()}

    def parameters(self, task: str = "causal-lm") -> int:
        """Number of parameters of the model with the head of `task`."""
        groups = self.parameter_groups(task)
        return sum(groups.values()) + (self.num_hidden_layers - 1) * groups["block"]

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
    values = config_values(config)
    name = str(config) if isinstance(config, (str, Path)) else getattr(config, "name_or_path", "")
    name = (name or values.get("model_type") or "model").rstrip("/").rsplit("/")[-1]
    model_type = values.get("model_type")
    if model_type not in DECODERS + ENCODERS:
        raise ValueError(
            f"{name}: no closed form for model_type {model_type!r}; trace() works for any architecture, "
            f"estimate() for {', '.join(DECODERS + ENCODERS)}"
        )

    def first(*keys, default=None):
        return next((values[key] for key in keys if values.get(key) is not None), default)

    sizes = {
        "hidden_size": first("hidden_size", "n_embd", "dim"),
        "num_attention_heads": first("num_attention_heads", "n_head", "n_heads"),
        "vocab_size": first("vocab_size"),
        "num_hidden_layers": first("num_hidden_layers", "n_layer", "n_layers", default=12),
        "max_position_embeddings": first("max_position_embeddings", "n_positions", default=512),
        "type_vocab_size": first("type_vocab_size", default=2) if model_type in ("bert", "roberta") else 0,
        "num_labels": len(values["id2label"]) if values.get("id2label") else first("num_labels", default=2),
    }
    if missing := [key for key, value in sizes.items() if value is None]:
        raise ValueError(f"{name}: the config lacks {', '.join(missing)}")
    _check_sizes(name, sizes)
    width, heads, gated = sizes["hidden_size"], sizes["num_attention_heads"], model_type in GATED
    if first("head_dim") is None and width % heads:
        raise ValueError(f"{name}: {heads} attention heads do not divide the width of {width}")
    sizes |= {
        "intermediate_size": first("intermediate_size", "n_inner", "hidden_dim", default=4 * width),
        "num_key_value_heads": first("num_key_value_heads", default=heads) if gated else heads,
        "head_dim": first("head_dim", default=width // heads),
    }
    _check_sizes(name, sizes)
    if heads % (kv_heads := sizes["num_key_value_heads"]):
        raise ValueError(f"{name}: {kv_heads} key/value heads do not divide {heads} attention heads")
    dropout = 0.0 if gated else 0.1
    hidden_dropout = first("resid_pdrop", "hidden_dropout_prob", "dropout", default=dropout)
    gelu = first("activation_function", default="gelu_new") if model_type == "gpt2" else first("hidden_act")
    return Architecture(
        name=name,
        model_type=model_type,
        tie_word_embeddings=bool(first("tie_word_embeddings", default=not gated)),
        attention_dropout=first("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout", default=dropout),
        hidden_dropout=hidden_dropout,
        embedding_dropout=first("embd_pdrop", default=hidden_dropout),
        attention_bias=not gated or model_type == "qwen2" or bool(first("attention_bias", default=False)),
        mlp_bias=not gated or bool(first("mlp_bias", default=False)),
        unfused_gelu=gelu == "gelu_new",
        **sizes,
    )


def _check_sizes(name: str, sizes: dict) -> None:
    for key, value in sizes.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(f"{name}: {key} is {value!r}; it must be a whole number")
        if value < (0 if key == "type_vocab_size" else 1):
            raise ValueError(f"{name}: {key} is {value}; it must be positive")


def config_values(config) -> dict:
    """What the config.json says that `config` names; see `read_config`."""
    if not isinstance(config, (str, Path)):
        if isinstance(config, dict):
            return config
        if not hasattr(config, "to_dict"):
            raise ValueError(f"config must be a name, a directory, a transformers config or a dict, got {config!r}")
        return config.to_dict()
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
    from helpers.profiles import check_hub

    no_hub = check_hub()  # before huggingface_hub is imported: it would wait long for a Hub that is not there
    try:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(name, "config.json")
    except Exception as error:
        reason = no_hub or (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: not in the table, and its config could not be fetched: {reason}") from None
    return json.loads(Path(path).read_text(encoding="utf-8"))


def check_settings(settings: dict) -> None:
    """Raises ValueError for a setting that no run can have, whatever the model."""
    for key in ("per_device_train_batch_size", "sequence_length", "num_gpus", "lora_rank"):
        value = settings.get(key, 1)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, got {value!r}")
    for key in ("activation_checkpointing", "padded"):
        if not isinstance(settings.get(key, False), bool):
            raise ValueError(f"{key} must be True or False, got {settings[key]!r}")
    choices = {"task": TASKS, "precision": PRECISIONS, "attn_implementation": ATTENTION, "optim": OPTIMIZERS,
               "method": METHODS, "sharding": SHARDING, "device": DEVICES}  # fmt: skip
    for key, allowed in choices.items():
        if settings.get(key) is not None and settings[key] not in allowed:
            raise ValueError(f"unknown {key} {settings[key]!r}; choose from {', '.join(allowed)}")
    if settings["attn_implementation"] == "flash_attention_2" and settings["precision"] == "fp32":
        raise ValueError("flash_attention_2 works in half precision only: use precision='bf16'")
    if isinstance(settings.get("lora_target_modules"), str):
        raise ValueError("lora_target_modules must be a list of names, such as ['q_proj', 'v_proj']")
    if settings.get("sharding", "ddp") != "ddp" and settings["num_gpus"] == 1:
        raise ValueError(f"sharding={settings['sharding']!r} needs num_gpus of at least 2: one GPU shares with nobody")
    if settings["method"] == "qlora" and settings.get("sharding", "ddp") not in ("ddp", "zero1"):
        raise ValueError("sharding of 4-bit weights is not covered: use sharding='ddp' or 'zero1' with QLoRA")


def check_fit(a: Architecture, settings: dict) -> None:
    """Raises ValueError for settings that do not fit the model."""
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
        targets = settings["lora_target_modules"]
        if targets is not None and not targets:
            raise ValueError("lora_target_modules is empty: nothing would be trained")
        for name in targets or ():
            if name not in linears:
                raise ValueError(f"{a.name} has no linear layer {name!r}; choose from {', '.join(sorted(linears))}")
