"""The recipe that lesson 03 recommends: its steps, and over three seeds its worth."""

import json

import pretraining_experiments as experiments
import pytest
import recipes
import torch
from transformers import GPT2Config

from takehome.gpt2 import build_model, build_optimizers
from takehome.recipe import Recipe


def test_muon_steps_as_far_with_conv1d_as_with_linear():
    """transformers' GPT-2 stores its matrices transposed, and Muon's rate follows from the shape."""
    recipe = Recipe(1, 1, learning_rate=1e-3, weight_decay=0.1, warmup_steps=0, optim="muon", muon_learning_rate=0.02)
    torch.manual_seed(0)
    model = build_model(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    block = model.transformer.h[0]
    matrices = [block.attn.c_attn.weight, block.attn.c_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight]
    _, muon = build_optimizers(recipe, model)
    as_linear = [torch.nn.Parameter(matrix.detach().T.clone()) for matrix in matrices]
    reference = torch.optim.Muon(as_linear, lr=0.02, weight_decay=0.1)
    for _ in range(3):
        for matrix, linear in zip(matrices, as_linear, strict=True):
            matrix.grad = torch.randn_like(matrix)
            linear.grad = matrix.grad.T.clone()
        muon.step()
        reference.step()
    for matrix, linear in zip(matrices, as_linear, strict=True):
        assert torch.allclose(matrix.T, linear, atol=1e-3)  # it rounds to bf16 on the way


@pytest.mark.slow
def test_muon_needs_fewer_tokens_than_adamw():
    shares = recipes.main(["--seeds", "3"])
    assert None not in shares and max(shares) <= 0.6


def test_stored_experiments_are_those_of_the_program():
    stored = json.loads(experiments.RESULTS.read_text(encoding="utf-8"))
    losses = stored["techniques"]["losses"]
    assert tuple(losses) == experiments.TECHNIQUES and {len(found) for found in losses.values()} == {experiments.SEEDS}
    assert stored["techniques"]["steps"] == experiments.STEPS and stored["long"]["prompt"] == experiments.PROMPT
    muon = stored["muon"]
    assert muon["steps"]["Muon"] == round(experiments.MUON_SHARE * muon["steps"]["AdamW"])
    assert [len(found) for found in muon["losses"].values()] == 2 * [experiments.SEEDS]
    points = stored["long"]["points"]
    assert len(points) == len(experiments.SHARES) and all(point["written"].strip() for point in points)
    assert [point["loss"] for point in points] == sorted((point["loss"] for point in points), reverse=True)


@pytest.mark.slow
def test_a_stored_experiment_can_be_repeated(tmp_path):
    again = experiments.main(["--only", "techniques", "--seeds", "1", "--results", str(tmp_path / "again.json")])
    stored = json.loads(experiments.RESULTS.read_text(encoding="utf-8"))
    for name, (loss,) in again["techniques"]["losses"].items():
        assert loss == pytest.approx(stored["techniques"]["losses"][name][0], abs=0.02), name
