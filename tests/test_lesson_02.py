"""Lesson 02 with another checkpoint and other data, by a profile alone."""

import csv
import re
from pathlib import Path

import matrix
import nbformat
import pytest
from small_models import write_llama

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "02_imdb_gpt2_classifier.ipynb"
CODE = [cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"]
PROFILE = """inherits = "reduced"

[imdb]
dataset = "./reviews"
checkpoint = "./llama"
max_train_samples = 96
max_eval_samples = 40
max_test_samples = 50
max_length = 64
"""


def test_no_cell_names_a_part_of_one_architecture():
    for source in CODE:
        assert not re.search(r"\b\w*_pdrop\b|\.transformer\b|\.score\.weight|\.lm_head\b", source), source


def test_every_checkpoint_is_loaded_in_fp32():
    loading = re.compile(r"AutoModel\w*\.from_(?:pretrained|config)\((?:[^()]|\([^()]*\))*\)")
    calls = [call for source in CODE for call in loading.findall(source)]
    assert len(calls) >= 5
    assert all("dtype=torch.float32" in call for call in calls), calls


def test_claims_about_our_reviews_are_guarded():
    """A statement on accuracies or losses holds for our model and data alone."""
    for source in CODE:
        for line in source.splitlines():
            if re.match(r"assert .*(accuracy\[|eval_loss|by_heart|log_history)", line):
                pytest.fail(f"not guarded by the profile: {line}")


@pytest.mark.slow
def test_it_runs_with_a_llama_and_a_csv_whose_labels_begin_at_one(tmp_path, build_program):
    write_llama(tmp_path / "llama")
    texts, labels = build_program("reviews").write_reviews(400, "of one's own")
    (tmp_path / "reviews").mkdir()
    with (tmp_path / "reviews" / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, (label + 1 for label in labels), strict=True)])
    assert matrix.run_lesson("02", PROFILE, tmp_path) == {}
