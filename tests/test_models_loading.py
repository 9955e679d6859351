"""takehome/models.py: no tensor of a checkpoint's body is random in silence, and nothing of it is run."""

import json
import shutil
from pathlib import Path

import pytest

from takehome.errors import InputError

MODELS = Path(__file__).resolve().parents[1] / "data/models"


@pytest.fixture(params=["distilbert", "bert", "gpt2"])
def checkpoint(request, tmp_path):
    return Path(shutil.copytree(MODELS / request.param, tmp_path / request.param))


def load(place, new_head=True, **more):
    from transformers import AutoModelForSequenceClassification, logging

    from takehome.models import load_model

    logging.set_verbosity_error()
    return load_model(AutoModelForSequenceClassification, str(place), new_head, num_labels=3, **more)


def change(place, rewrite):
    """Rewrites the weights by a function from {name: tensor} to the same."""
    from safetensors.torch import load_file, save_file

    weights = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    save_file(rewrite(weights), place / "model.safetensors", metadata={"format": "pt"})


def test_a_new_head_is_named_and_the_rest_is_loaded(checkpoint):
    loaded = load(checkpoint)
    assert loaded.new and all(name.startswith(("classifier", "pre_classifier", "score")) for name in loaded.new)
    with pytest.raises(InputError, match="do not fit"):
        load(checkpoint, new_head=False)
    loaded.model.save_pretrained(checkpoint)
    assert load(checkpoint, new_head=False).new == []


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_with_a_prefix_are_refused(checkpoint, prefix):
    change(checkpoint, lambda weights: {prefix + name: tensor for name, tensor in weights.items()})
    with pytest.raises(InputError, match=rf"do not fit.*{prefix}"):
        load(checkpoint)


def test_half_a_file_is_refused(checkpoint):
    change(checkpoint, lambda weights: dict(list(weights.items())[::2]))
    with pytest.raises(InputError, match="do not fit"):
        load(checkpoint)


def test_one_missing_tensor_is_refused_by_name(checkpoint):
    name = "h.1.ln_1.weight" if checkpoint.name == "gpt2" else "embeddings.LayerNorm.weight"

    def without(weights):
        (gone,) = [key for key in weights if key.endswith(name)]
        return {key: tensor for key, tensor in weights.items() if key != gone}

    change(checkpoint, without)
    with pytest.raises(InputError, match=rf" 1 of \d+ tensors .*{name}"):
        load(checkpoint)


def test_another_width_is_refused_with_both_shapes(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    name = "n_embd" if "n_embd" in config else "dim" if "dim" in config else "hidden_size"
    (checkpoint / "config.json").write_text(json.dumps(config | {name: 64}), encoding="utf-8")
    with pytest.raises(InputError, match=r"\(128,\) instead of \(64,\)"):
        load(checkpoint)


def test_a_checkpoint_without_a_pooler_is_taken(tmp_path):
    place = Path(shutil.copytree(MODELS / "bert", tmp_path / "bert"))
    change(place, lambda weights: {key: value for key, value in weights.items() if "pooler" not in key})
    assert any("pooler" in name for name in load(place).new)


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_whatever_it_is_stored_in_it_is_trained_in_float32(checkpoint, stored):
    import torch

    change(checkpoint, lambda weights: {key: value.to(getattr(torch, stored)) for key, value in weights.items()})
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | {"dtype": stored}), encoding="utf-8")
    model = load(checkpoint).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in load(checkpoint, dtype=torch.bfloat16).model.parameters()} == {torch.bfloat16}


def test_pickled_weights_and_remote_code_are_not_run(checkpoint):
    ran = checkpoint / "ran"
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    evil = {"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"}
    (checkpoint / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nModel = Config = object\n", encoding="utf-8")
    (checkpoint / "config.json").write_text(json.dumps(config | {"auto_map": evil}), encoding="utf-8")
    load(checkpoint)
    (checkpoint / "config.json").write_text(
        json.dumps(config | {"auto_map": evil, "model_type": "unheard-of"}), encoding="utf-8"
    )
    with pytest.raises(ValueError):
        load(checkpoint)
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load(checkpoint)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("config", "of_tokenizer", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 10**30, 512),
        ({"model_type": "bert", "max_position_embeddings": 512}, 128, 128),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 10**30, 512),
        ({"model_type": "longformer", "max_position_embeddings": 4098, "pad_token_id": 1}, 10**30, 4096),
        ({"model_type": "xlnet"}, 10**30, None),  # it says -1 positions
        ({"model_type": "mamba"}, 10**30, None),
        ({"model_type": "t5"}, 512, 512),
        ({"model_type": "gemma3"}, 10**30, 131072),  # it sees pictures, and the config of its text is inside
    ],
)
def test_the_longest_text_that_a_model_takes(config, of_tokenizer, longest):
    from types import SimpleNamespace

    from transformers import CONFIG_MAPPING

    from takehome.tokenizer import longest_text

    values = dict(config)
    built = CONFIG_MAPPING[values.pop("model_type")](**values)
    assert longest_text(built, SimpleNamespace(model_max_length=of_tokenizer)) == longest


def test_a_table_of_positions_is_as_long_as_is_said():
    """Longformer and MPNet count from behind the padding token; one token more and there is no row for it."""
    import torch
    from transformers import AutoModel, MPNetConfig

    from takehome.tokenizer import BEHIND_PADDING

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = AutoModel.from_config(MPNetConfig(**small, vocab_size=20, max_position_embeddings=10)).eval()
    assert "mpnet" in BEHIND_PADDING
    assert model(torch.full((1, 8), 5)).last_hidden_state.shape == (1, 8, 8)
    with pytest.raises(IndexError):
        model(torch.full((1, 9), 5))
