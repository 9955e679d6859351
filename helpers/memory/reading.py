"""Reads a model's numbers from a known name, a checkpoint directory, the Hub, a config or a dict. Needs no torch."""

from __future__ import annotations

import json
import tomllib
from numbers import Integral, Real
from pathlib import Path

from helpers.memory.adapters import targets_fit
from helpers.memory.architecture import DECODERS, ENCODERS, GATED, Architecture
from helpers.memory.settings import Settings

LARGEST = 10**9  # of any size in a config
MOST_LAYERS = 10_000

# Each number of a config and the names that it goes by.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "dim"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocab_size": ("vocab_size",),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions"),
    "intermediate_size": ("intermediate_size", "n_inner", "hidden_dim"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "type_vocab_size": ("type_vocab_size",),
    "attention_dropout": ("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout"),
    "hidden_dropout": ("resid_pdrop", "hidden_dropout_prob", "dropout"),
    "embedding_dropout": ("embd_pdrop",),
}


def _known_models() -> dict[str, dict]:
    with open(Path(__file__).with_name("models.toml"), "rb") as file:
        families = tomllib.load(file)["family"]
    return {name: family["common"] | own for family in families for name, own in family["models"].items()}


KNOWN_MODELS = _known_models()


def read_config(config) -> Architecture:
    """Reads the architecture from a known name, a checkpoint directory, a Hub id, a config object or a dict.

    A Hub id that is not in `KNOWN_MODELS` downloads its config.json alone, never the weights.

    Raises:
        ValueError: the name is unknown, the model type is not covered, or the numbers do not fit together.
    """
    values = config_values(config)
    name = model_name(config, values)
    model_type = values.get("model_type")
    if model_type not in DECODERS + ENCODERS:
        raise ValueError(
            f"{name}: no closed form for model_type {model_type!r}; trace() works for any architecture, "
            f"estimate() for {', '.join(DECODERS + ENCODERS)}"
        )
    gated = model_type in GATED
    return Architecture(
        name=name,
        model_type=model_type,
        tie_word_embeddings=bool(_first(values, "tie_word_embeddings", default=not gated)),
        attention_bias=not gated or model_type == "qwen2" or bool(_first(values, "attention_bias", default=False)),
        mlp_bias=not gated or bool(_first(values, "mlp_bias", default=False)),
        unfused_gelu=_unfused_gelu(model_type, values),
        num_labels=_number_of_labels(name, values),
        **_sizes(name, model_type, values),
        **_dropouts(name, values, default=0.0 if gated else 0.1),
    )


def model_name(config, values: dict) -> str:
    """What messages call the model: the last part of its name, or its type."""
    name = str(config) if isinstance(config, (str, Path)) else getattr(config, "name_or_path", "")
    return str(name or values.get("model_type") or "model").rstrip("/").rsplit("/")[-1]


def _first(values: dict, *keys, default=None):
    return next((values[key] for key in keys if values.get(key) is not None), default)


def _sizes(name: str, model_type: str, values: dict) -> dict[str, int]:
    def read(key, default=None):
        value = _first(values, *_NAMES[key], default=default)
        return value if value is None else _whole(name, key, value)

    needed = {key: read(key) for key in ("hidden_size", "num_attention_heads", "vocab_size")}
    if missing := [key for key, value in needed.items() if value is None]:
        raise ValueError(f"{name}: the config lacks {', '.join(missing)}")
    width, heads, gated = needed["hidden_size"], needed["num_attention_heads"], model_type in GATED
    if read("head_dim") is None and width % heads:
        raise ValueError(f"{name}: {heads} attention heads do not divide the width of {width}")
    kv_heads = read("num_key_value_heads", heads) if gated else heads
    if heads % kv_heads:
        raise ValueError(f"{name}: {kv_heads} key/value heads do not divide {heads} attention heads")
    return needed | {
        "num_hidden_layers": read("num_hidden_layers", 12),
        "max_position_embeddings": read("max_position_embeddings", 512),
        "type_vocab_size": read("type_vocab_size", 2) if model_type in ("bert", "roberta") else 0,
        "intermediate_size": read("intermediate_size", 4 * width),
        "num_key_value_heads": kv_heads,
        "head_dim": read("head_dim", width // heads),
    }


def _dropouts(name: str, values: dict, default: float) -> dict[str, float]:
    def read(key, default):
        value = _first(values, *_NAMES[key], default=default)
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ValueError(f"{name}: {key} is {value!r}; it must be a number from 0 to 1")
        return value

    hidden = read("hidden_dropout", default)
    return {
        "attention_dropout": read("attention_dropout", default),
        "hidden_dropout": hidden,
        "embedding_dropout": read("embedding_dropout", hidden),
    }


def _number_of_labels(name: str, values: dict) -> int:
    labels = values.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise ValueError(f"{name}: id2label is {labels!r}; it must be a table of numbers and names")
    return _whole(name, "num_labels", len(labels) if labels else _first(values, "num_labels", default=2))


def _unfused_gelu(model_type: str, values: dict) -> bool:
    """Whether GELU is written out as a tanh, operation by operation, as OpenAI's is."""
    if model_type == "gpt2":
        return _first(values, "activation_function", default="gelu_new") == "gelu_new"
    return _first(values, "hidden_act") == "gelu_new"


def _whole(name: str, key: str, value) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name}: {key} is {value!r}; it must be a whole number")
    if value < (0 if key == "type_vocab_size" else 1):
        raise ValueError(f"{name}: {key} is {value}; it must be positive")
    if value > (most := MOST_LAYERS if key == "num_hidden_layers" else LARGEST):
        raise ValueError(f"{name}: {key} is beyond {most:,}; no model is that large")
    return value


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
    from helpers.profiles import check_hub

    no_hub = check_hub()  # before huggingface_hub is imported: it would wait long for a Hub that is not there
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:
        reason = no_hub or (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: not in the table, and its config could not be fetched: {reason}") from None


def check_fit(a: Architecture, settings: Settings, task: str | None) -> None:
    """Raises ValueError for settings that do not fit the model."""
    if task == "causal-lm" and not a.is_decoder:
        raise ValueError(
            f"{a.name}: {a.model_type} is an encoder and does not generate; "
            "use task='masked-lm' or 'sequence-classification'"
        )
    if task == "masked-lm" and a.is_decoder:
        raise ValueError(f"{a.name}: {a.model_type} is a decoder; use task='causal-lm' or 'sequence-classification'")
    positions = a.max_position_embeddings - (2 if a.model_type == "roberta" else 0)
    if settings.sequence_length > positions:
        raise ValueError(f"sequence_length {settings.sequence_length} is beyond {a.name}'s {positions} positions")
    targets_fit(a, settings)
