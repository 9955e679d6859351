"""Reads a model's numbers from a known name, a checkpoint directory, the Hub, a config or a dict. Needs no torch."""

from __future__ import annotations

import json
import tomllib
from numbers import Integral, Real
from pathlib import Path

from helpers.memory.adapters import targets_fit
from helpers.memory.architecture import DECODER, ENCODER, FIRST, FULL, SLIDING, Architecture
from helpers.memory.families import FAMILIES, GATED_T5, Family
from helpers.memory.settings import Settings, shown

LARGEST = 10**9  # of any size in a config
MOST_LAYERS = 1000

# Each number of a config and the names that it goes by.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "dim", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "vocab_size": ("vocab_size",),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions"),
    "intermediate_size": ("intermediate_size", "n_inner", "hidden_dim", "d_ff"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "type_vocab_size": ("type_vocab_size",),
    "embedding_size": ("embedding_size",),
    "attention_dropout": ("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout", "dropout_rate"),
    "hidden_dropout": ("resid_pdrop", "hidden_dropout_prob", "hidden_dropout", "dropout", "dropout_rate"),
    "embedding_dropout": ("embd_pdrop", "embedding_dropout"),
}
_ACTIVATIONS = ("activation_function", "hidden_act", "hidden_activation", "activation", "dense_act_fn")

_OFF_IF_NULL = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")


def _known_models() -> dict[str, dict]:
    with open(Path(__file__).with_name("models.toml"), "rb") as file:
        families = tomllib.load(file)["family"]
    return {name: family["common"] | own for family in families for name, own in family["models"].items()}


KNOWN_MODELS = _known_models()


class NoClosedForm(ValueError):
    """A model that can be trained, but whose memory no formula here describes."""


def read_config(config) -> Architecture:
    """Reads the architecture from a known name, a checkpoint directory, a Hub id, a config object or a dict.

    A Hub id that is not in `KNOWN_MODELS` downloads its config.json alone, never the weights.

    Raises:
        NoClosedForm: the model type is not covered.
        ValueError: the name is unknown, or the numbers do not fit together.
    """
    values = config_values(config)
    name = model_name(config, values)
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise NoClosedForm(f"{name}: no closed form for model_type {shown(model_type)}; there is one for {known}")
    family = FAMILIES[model_type]
    if family.position_bias and _is_gated(values):
        family = GATED_T5
    return _Reader(name, family, values).architecture(model_type)


def _is_gated(values: dict) -> bool:
    """Whether a T5 has the MLP of its version 1.1, as Flan-T5 does."""
    return bool(values.get("is_gated_act")) or str(values.get("feed_forward_proj")).startswith("gated-")


class _Reader:
    """Reads one config: each of its numbers by any of its names, or what its family means by saying nothing."""

    def __init__(self, name: str, family: Family, values: dict):
        self.name, self.family, self.values = name, family, values

    def architecture(self, model_type: str) -> Architecture:
        sizes = self.sizes()
        window = self.sliding_window(model_type)
        biases = self.family.biases
        return Architecture(
            name=self.name,
            model_type=model_type,
            family=self.family,
            # transformers ties T5's tables whatever the config says, and reads a False as "do not scale"
            tie_word_embeddings=self.family.position_bias or self.switch("tie_word_embeddings"),
            attention_bias=self.switch(biases["attention"]),
            output_bias=self.switch(biases["output"]),
            mlp_bias=self.switch(biases["mlp"]),
            norm_bias=self.switch(self.family.norm_bias),
            unfused_gelu=self.activation() == "gelu_new",
            relu=self.activation() == "relu",
            num_labels=self.number_of_labels(),
            parallel=self.family.parallel and self.switch("use_parallel_residual", default=True),
            layer_kinds=self.layer_kinds(model_type, sizes["num_hidden_layers"], window),
            sliding_window=window,
            learned_positions=sizes["max_position_embeddings"] if self.adds_positions() else 0,
            relative_positions=self.relative_positions(),
            attention_softcap=self.first("attn_logit_softcapping") is not None,
            logits_softcap=self.first("final_logit_softcapping") is not None,
            **sizes,
            **self.dropouts(),
        )

    def first(self, *keys, default=None):
        """The first of these keys that the config has, or that the family has a default for."""
        for source in (self.values, self.family.defaults):
            for key in keys:
                if source.get(key) is not None or (key in source and key in _OFF_IF_NULL):
                    return source[key]
        return default

    def whole(self, key: str, default=None) -> int | None:
        value = self.first(*_NAMES[key], default=default)
        return value if value is None else _whole(self.name, key, value)

    def switch(self, key: bool | str, default: bool = False) -> bool:
        """A switch of the family, or the one that the config has under this key."""
        return key if isinstance(key, bool) else bool(self.first(key, default=default))

    def sizes(self) -> dict[str, int]:
        needed = {key: self.whole(key) for key in ("hidden_size", "num_attention_heads", "vocab_size")}
        if missing := [key for key, value in needed.items() if value is None]:
            raise ValueError(f"{self.name}: the config lacks {', '.join(missing)}")
        width, heads, family = needed["hidden_size"], needed["num_attention_heads"], self.family
        if self.whole("head_dim") is None and width % heads:
            raise ValueError(f"{self.name}: {heads} attention heads do not divide the width of {width}")
        kv_heads = self.whole("num_key_value_heads", heads) if family.rms else heads
        if heads % kv_heads:
            raise ValueError(f"{self.name}: {kv_heads} key/value heads do not divide {heads} attention heads")
        return needed | {
            "num_hidden_layers": self.whole("num_hidden_layers", 12),
            "max_position_embeddings": LARGEST if family.position_bias else self.whole("max_position_embeddings", 512),
            "type_vocab_size": self.whole("type_vocab_size", family.token_types) if family.norms == "stream" else 0,
            "intermediate_size": self.whole("intermediate_size", 4 * width),
            "num_key_value_heads": kv_heads,
            "head_dim": self.whole("head_dim", width // heads),
            "embedding_size": self.whole("embedding_size", width) if family.norms == "stream" else width,
        }

    def activation(self):
        """The name of the activation; of a gated T5 the part after "gated-", where gelu means gelu_new."""
        named = self.first("feed_forward_proj")
        if self.family is GATED_T5 and isinstance(named, str):
            return {"gated-gelu": "gelu_new"}.get(named, named.removeprefix("gated-"))
        return self.first(*_ACTIVATIONS)

    def adds_positions(self) -> bool:
        """Whether learned positions are added to the embeddings."""
        return self.family.positions and self.switch("position_biased_input", default=True)

    def relative_positions(self) -> int:
        """Rows of the table of relative positions in the layers of DeBERTa-v2 and v3, or of T5's biases."""
        if self.family.position_bias:
            buckets = self.first("relative_attention_num_buckets", default=32)
            return _whole(self.name, "relative_attention_num_buckets", buckets)
        if not self.family.disentangled:
            return 0
        kinds = self.first("pos_att_type", default=[])
        kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
        both = isinstance(kinds, (list, tuple)) and {"c2p", "p2c"} <= {str(kind).strip() for kind in kinds}
        shared = self.switch("share_att_key") and self.first("norm_rel_ebd") == "layer_norm"
        narrow = self.whole("embedding_size") not in (None, self.whole("hidden_size"))
        if not (self.switch("relative_attention") and both and shared) or self.first("conv_kernel_size") or narrow:
            raise NoClosedForm(f"{self.name}: no closed form for this variant of DeBERTa")
        buckets = self.first("position_buckets", default=-1)
        furthest = self.first("max_relative_positions", default=-1)
        for rows in (buckets, furthest):
            if not isinstance(rows, Integral):
                raise ValueError(f"{self.name}: {shown(rows)} relative positions; it must be a whole number")
        if buckets > 0:
            return 2 * _whole(self.name, "position_buckets", buckets)
        return 2 * _whole(
            self.name,
            "max_relative_positions",
            furthest if furthest > 0 else self.whole("max_position_embeddings", 512),
        )

    def dropouts(self) -> dict[str, float]:
        default = self.family.defaults["dropout"]
        hidden = self.share("hidden_dropout", default)
        return {
            "attention_dropout": self.share("attention_dropout", default),
            "hidden_dropout": hidden,
            "embedding_dropout": self.share("embedding_dropout", hidden),
        }

    def share(self, key: str, default: float) -> float:
        value = next((self.values[name] for name in _NAMES[key] if self.values.get(name) is not None), default)
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ValueError(f"{self.name}: {key} is {shown(value)}; it must be a number from 0 to 1")
        return value

    def number_of_labels(self) -> int:
        labels = self.values.get("id2label")
        if labels is not None and not isinstance(labels, dict):
            raise ValueError(f"{self.name}: id2label is {shown(labels)}; it must be a table of numbers and names")
        count = len(labels) if labels else self.first("num_labels", default=2)
        return _whole(self.name, "num_labels", count)

    def sliding_window(self, model_type: str) -> int:
        """Tokens that a layer with a window sees; 0 where all see everything."""
        if self.family.full_attention_every == 1:
            return 0
        if model_type == "modernbert":  # half of it to each side
            return max(_whole(self.name, "local_attention", self.first("local_attention")) // 2, 1)
        window = self.first("sliding_window")
        return 0 if window is None else _whole(self.name, "sliding_window", window)

    def layer_kinds(self, model_type: str, layers: int, window: int) -> tuple[str, ...]:
        """For each layer its kind, see `Architecture`."""
        if self.family.role == "encoder-decoder":
            of_decoder = self.first("num_decoder_layers", default=layers)
            return (ENCODER,) * layers + (DECODER,) * _whole(self.name, "num_decoder_layers", of_decoder)
        kinds = self.attention_kinds(layers, window)
        return (FIRST, *kinds[1:]) if model_type == "modernbert" else kinds

    def attention_kinds(self, layers: int, window: int) -> tuple[str, ...]:
        """For each layer whether it sees everything or a window."""
        if not window:
            return (FULL,) * layers
        types = self.values.get("layer_types")
        if isinstance(types, (list, tuple)) and len(types) == layers:
            return tuple(SLIDING if kind == "sliding_attention" else FULL for kind in types)
        every, first = self.family.full_attention_every, self.family.first_is_full
        if not every:
            return (SLIDING,) * layers
        return tuple(FULL if (layer + (not first)) % every == 0 else SLIDING for layer in range(layers))


def model_name(config, values: dict) -> str:
    """What messages call the model: the last part of its name, or its type."""
    name = str(config) if isinstance(config, (str, Path)) else getattr(config, "name_or_path", "")
    name = str(name or values.get("model_type") or "model").rstrip("/").rsplit("/")[-1]
    return name if name.isprintable() and len(name) <= 80 else shown(name)


def _whole(name: str, key: str, value) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name}: {key} is {shown(value)}; it must be a whole number")
    if value < (0 if key == "type_vocab_size" else 1):
        raise ValueError(f"{name}: {key} is {shown(value)}; it must be positive")
    if value > (most := MOST_LAYERS if key in ("num_hidden_layers", "num_decoder_layers") else LARGEST):
        raise ValueError(f"{name}: {key} is beyond {most:,}; no model is that large")
    return value


def stored_dtype(values: dict) -> str:
    """The precision that the checkpoint is stored in, as its config says; "" if it does not."""
    dtype = values.get("dtype") or values.get("torch_dtype") or ""
    return str(dtype).removeprefix("torch.")


def check_any_sizes(name: str, values: dict) -> None:
    """Raises ValueError for sizes that no model has, whatever they are called: building it would take for ever."""
    for key, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            continue
        counts_layers = key.endswith(("layer", "layers"))  # vocab_size_per_layer_input counts something else
        if value > LARGEST or (counts_layers and value > MOST_LAYERS):
            raise ValueError(f"{name}: {key} is {value:.3g}; no model is that large")


def config_values(config) -> dict:
    """What the config.json says that `config` names; see `read_config`."""
    if not isinstance(config, (str, Path)):
        if isinstance(config, dict):
            return config
        if not hasattr(config, "to_dict"):
            kinds = "a name, a directory, a transformers config or a dict"
            raise ValueError(f"config must be {kinds}, got {shown(config)}")
        return config.to_dict()
    name = str(config)
    short = name.rstrip("/").rsplit("/")[-1].lower().removesuffix("-hf")
    if (Path(name) / "config.json").is_file():
        return _read_json(Path(name) / "config.json")
    if Path(name).is_dir():
        raise ValueError(f"{name}: no config.json in this directory; give the directory of a saved checkpoint")
    if short in KNOWN_MODELS:
        return KNOWN_MODELS[short]
    if name.count("/") != 1:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(KNOWN_MODELS)}; or give a directory or a Hub id")
    return _read_json(_download_config(name))


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds a {type(values).__name__}, not the table of a config")
    return values


def _download_config(name: str) -> Path:
    from helpers.hub import check_hub
    from helpers.hub_errors import explain

    check_hub()  # before huggingface_hub is imported: it would wait long for a Hub that is not there
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:
        raise ValueError(f"{name} is not in the table; {explain(error, name)}") from None


def check_fit(a: Architecture, settings: Settings, task: str | None) -> None:
    """Raises ValueError for settings that do not fit the model."""
    if task == "causal-lm" and not a.is_decoder:
        raise ValueError(
            f"{a.name}: {a.model_type} is an encoder and does not generate; "
            "use task='masked-lm' or 'sequence-classification'"
        )
    both = a.family.role == "encoder-decoder"
    if task == "seq2seq-lm" and not both:
        raise ValueError(f"{a.name}: {a.model_type} is not a model of encoder and decoder; task='seq2seq-lm' needs one")
    if both and settings.sharding not in ("ddp", "zero1"):
        raise ValueError(f"{a.name}: sharding={settings.sharding!r} of encoder and decoder is not covered")
    if both:
        return targets_fit(a, settings)
    if task == "masked-lm" and a.is_decoder:
        raise ValueError(f"{a.name}: {a.model_type} is a decoder; use task='causal-lm' or 'sequence-classification'")
    positions = a.max_position_embeddings - (2 if a.model_type in ("roberta", "xlm-roberta") else 0)
    if settings.sequence_length > positions:
        raise ValueError(f"sequence_length {settings.sequence_length} is beyond {a.name}'s {positions} positions")
    targets_fit(a, settings)
