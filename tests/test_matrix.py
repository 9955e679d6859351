"""The tiny checkpoints of each architecture, and what the matrix tells of lessons; all of it for real is slow."""

import matrix
import nbformat
import pytest
import tiny_checkpoints

from helpers.profiles import load_profile


def test_each_architecture_has_a_tokenizer_and_a_shape():
    assert set(tiny_checkpoints.KINDS) == set(tiny_checkpoints.SHAPES)
    assert {*tiny_checkpoints.IN_BF16, *matrix.ENCODERS} <= set(tiny_checkpoints.SHAPES)


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("ModernBERT", "[CLS]The mill.[SEP]"),
        ("RoBERTa", "<s>The mill.</s>"),
        ("T5", "The mill.</s>"),
        ("Llama", "<s> The mill."),
        ("Qwen3", "The mill."),
        ("mBART", "The mill.</s>en_XX"),
    ],
)
def test_a_tokenizer_reads_as_those_of_its_kind(name, around):
    tokenizer = tiny_checkpoints.make_tokenizer(tiny_checkpoints.KINDS[name])
    ids = tokenizer("The mill.")["input_ids"]
    assert tokenizer.decode(ids) == around and tokenizer.unk_token_id not in ids
    assert (tokenizer.pad_token is None) == (name == "Llama")


def test_modern_checkpoints_are_stored_in_bf16(tmp_path):
    from safetensors import safe_open

    folder = tiny_checkpoints.make_checkpoint("Qwen3", tmp_path, num_hidden_layers=1, hidden_size=32)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118


def test_each_lesson_has_a_profile_that_can_be_loaded(tmp_path):
    for number, table in matrix.TABLES.items():
        file = tmp_path / f"{number}.toml"
        file.write_text(matrix.small_profile(number, "data/models/llama"), encoding="utf-8")
        assert getattr(load_profile(file), table).num_train_epochs == 1


def test_what_follows_from_an_earlier_failure_is_not_told():
    def cell(*errors, tags=()):
        outputs = [
            nbformat.v4.new_output("error", ename=name, evalue=value, traceback=["x\n----> 3 y = f(x)\n"])
            for name, value in errors
        ]
        return nbformat.v4.new_code_cell("y", outputs=outputs, metadata={"tags": list(tags)})

    cells = [cell(), cell(("ValueError", "meant")), cell(("KeyError", "'a'\nmore")), cell(("NameError", "y"))]
    cells[1].metadata["tags"] = ["raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=[*cells, cell(("AssertionError", ""))])
    assert matrix.failures(notebook) == {2: "KeyError: 'a' | 3 y = f(x)", 4: "AssertionError:  | 3 y = f(x)"}


def check_classifier(name, folder):
    """What fine_tune.py asks of a checkpoint: it loads, padding moves no answer, and adapters find its linear layers.

    Returns:
        False if transformers has no such classifier.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from takehome.classifier import add_adapters, build_model
    from takehome.tasks import make_task
    from takehome.tokenizer import load_tokenizer

    checkpoint = str(tiny_checkpoints.make_checkpoint(name, folder))
    if type(AutoConfig.from_pretrained(checkpoint)) not in AutoModelForSequenceClassification._model_mapping:
        return False
    loaded = load_tokenizer(checkpoint)
    assert 500 < loaded.limit <= tiny_checkpoints.LONGEST
    tokenizer = loaded.tokenizer
    model = build_model(checkpoint, None, make_task("classification", ["a", "b", "c"]), tokenizer.pad_token_id).model
    short, longer = "The mill.", "A longer text about the old mill at the river, and who owns it."
    with torch.no_grad():
        alone = model.eval()(**tokenizer([short], return_tensors="pt")).logits[0]
        padded = model(**tokenizer([short, longer], padding=True, return_tensors="pt")).logits[0]
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-4)
    adapted = add_adapters(model, 4, 8.0)
    assert any("lora_A" in key for key, _ in adapted.named_parameters())
    return True


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("Falcon", "XLNet", "Longformer") else pytest.mark.slow)
        for name in tiny_checkpoints.SHAPES
    ],
)
def test_a_classifier_of_each_architecture(name, tmp_path, monkeypatch):
    some = tiny_checkpoints.texts()[:150]
    monkeypatch.setattr(tiny_checkpoints, "texts", lambda: some)  # its tokenizer is made quicker
    there = check_classifier(name, tmp_path)
    assert there or name in ("Gemma 3n", "Gemma 4", "Cohere 2", "ERNIE 4.5", "LFM2", "Falcon-H1", "Granite", "Mamba")


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_checkpoints.SHAPES)
def test_an_architecture_through_the_programs(name):
    """Each runs, or says in one line why not; a prediction is within 7 % of the allocator's peak."""
    found = matrix.in_a_process(name, list(matrix.PROGRAMS))
    for program in ("fine_tune", "fine_tune --lora", "evaluate_model"):
        said = found.get(program, "runs")
        assert said == "runs" or "transformers has no" in said, (program, said)
    for way in ("estimate", "trace"):
        if not found[way].startswith(("+", "-")):
            assert "cannot be traced, because" in found[way]
            continue
        assert abs(float(found[way].split("%")[0])) < 7, (way, found[way])
