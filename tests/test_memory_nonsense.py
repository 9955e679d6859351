"""`helpers.memory` on configs and settings that make no sense: one clear line, whatever they hold."""

import json
import random

import pytest
from memory_cases import BERT, GPT2, LLAMA

from helpers.memory import estimate, estimate_evaluation, prediction, read_config
from helpers.memory.families import FAMILIES
from helpers.memory.reading import check_any_sizes

SHAPE = {"per_device_train_batch_size": 4, "sequence_length": 32}
NONSENSE = [
    None,
    True,
    -1,
    0,
    5,
    2.5,
    10**9,
    10**30,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    "",
    "text",
    "12",
    b"8",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    {0: "x"},
    (),
    (1, 2),
    set(),
    object(),
    print,
    1j,
    "\n\x1b[31m",
]


def valid_configs():
    """One small config for each family that has a closed form."""
    for model_type, family in FAMILIES.items():
        base = GPT2 if model_type == "gpt2" else LLAMA if family.role == "decoder" else BERT
        config = base | {"model_type": model_type}
        if family.disentangled:
            config |= {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
            config |= {"norm_rel_ebd": "layer_norm", "position_buckets": 16}
        yield config


EXTRA_KEYS = (
    "id2label",
    "num_labels",
    "head_dim",
    "sliding_window",
    "layer_types",
    "tie_word_embeddings",
    "attention_bias",
    "attention_dropout",
    "hidden_dropout_prob",
    "embedding_size",
    "local_attention",
    "hidden_act",
    "dtype",
    "final_logit_softcapping",
    "type_vocab_size",
    "max_relative_positions",
    "name_or_path",
)


def refuse_to_trace(config, settings):
    raise ValueError("this one would be traced")


def broken(draw, configs):
    config, settings = dict(draw.choice(configs)), dict(SHAPE)
    for _ in range(draw.randint(1, 3)):
        key = draw.choice([*config, *EXTRA_KEYS])
        if draw.random() < 0.2:
            config.pop(key, None)
        else:
            config[key] = draw.choice(NONSENSE)
    if draw.random() < 0.3:
        names = (
            "per_device_train_batch_size",
            "sequence_length",
            "task",
            "precision",
            "attn_implementation",
            "optim",
            "activation_checkpointing",
            "method",
            "lora_rank",
            "lora_target_modules",
            "num_gpus",
            "sharding",
            "padded",
            "device",
        )
        settings[draw.choice(names)] = draw.choice(NONSENSE)
    return config, settings


def test_two_thousand_broken_configs(monkeypatch):
    """An estimate or a ValueError of one line: no other exception, no hang. What would be traced is tried below."""
    monkeypatch.setattr(prediction, "trace_with", refuse_to_trace)
    draw, configs = random.Random(15), list(valid_configs())
    assert all(estimate(config, **SHAPE).peak_bytes > 0 for config in configs)
    refused = 0
    for _ in range(2000):
        config, settings = broken(draw, configs)
        try:
            str(estimate(config, **settings))
        except ValueError as error:
            assert "\n" not in str(error) and 10 < len(str(error)) < 600, (config, settings)
            refused += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} for {config}, {settings}") from error
    assert 1000 < refused < 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": 5}, "id2label is 5"),
        ({"model_type": 5}, "model_type 5"),
        ({"model_type": ["gpt2"]}, "model_type"),
        ({"n_layer": 10**9}, "num_hidden_layers is beyond 1,000"),
        ({"n_embd": 10**400}, "hidden_size is beyond"),
        ({"vocab_size": float("nan")}, "vocab_size is nan; it must be a whole number"),
        ({"resid_pdrop": float("nan")}, "hidden_dropout is nan; it must be a number from 0 to 1"),
        ({"resid_pdrop": "0.1"}, "hidden_dropout is '0.1'"),
    ],
)
def test_nonsense_is_named(change, message):
    for function in (
        estimate,
        lambda config, **_: estimate_evaluation(config, rows=5, per_device_eval_batch_size=2, sequence_length=8),
    ):
        with pytest.raises(ValueError, match=message):
            function(GPT2 | change, **SHAPE)


def test_layers_are_counted_where_they_are_meant():
    """Gemma 3n has a vocabulary of its own for each layer, which is not a number of layers."""
    check_any_sizes("any", {"vocab_size_per_layer_input": 262144, "n_layer": 1000, "encoder_layers": 48})
    for key in ("n_layer", "encoder_layers", "num_hidden_layers"):
        with pytest.raises(ValueError, match=f"{key} is 1e.03; no model is that large"):
            check_any_sizes("any", {key: 1001})


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "three"},
        {"hidden_size": -64},
        {"hidden_size": float("nan")},
        {"vocab_size": 10**400},
        {"num_attention_heads": 0},
        {"id2label": 5},
        {"ffn_dim": [1]},
        {"activation_function": "\x1b[31m"},
    ],
)
def test_nonsense_that_would_be_traced(change):
    opt = {"model_type": "opt", "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
           "vocab_size": 100, "word_embed_proj_dim": 64}  # fmt: skip
    with pytest.raises(ValueError, match="opt: ") as refused:
        estimate(opt | change, **SHAPE)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "5", '"gpt2"', "null", "[" * 100_000, "\xff\xfe"])
def test_a_config_file_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json") as refused:
        estimate(tmp_path, **SHAPE)
    assert "\n" not in str(refused.value)


def test_a_config_that_holds_other_things_than_a_table(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GPT2 | {"id2label": {}}), encoding="utf-8")
    assert read_config(tmp_path).num_labels == 2
    for config in (None, 5, 2.5, [], object()):
        with pytest.raises(ValueError, match="config must be a name"):
            estimate(config, **SHAPE)
