"""Lesson 11: its pieces, other data and checkpoints by a profile alone, and its claims on three seeds."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "11_question_answering.ipynb"
CODE = [cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"]
TEXT = (
    "It rained. "
    + "Nobody sang, and nobody danced. " * 4
    + "The bridge was built in 1890 by Ada Hill, who also built the mill."
)
ASKED = {"When was the bridge built?": "1890", "Who built the mill?": "Ada Hill"}


def run(until: str, profile: str, folder: Path, monkeypatch) -> dict:
    """The names that the cells leave behind, up to the one that holds `until`."""
    (folder / "mine.toml").write_text(profile, encoding="utf-8")
    monkeypatch.setenv("FINETUNING_PROFILE", str(folder / "mine.toml"))
    monkeypatch.chdir(folder)
    names = {}
    for source in CODE[: next(n for n, cell in enumerate(CODE) if until in cell) + 1]:
        exec(source, names)
    return names


def in_the_columns_of_squad(unanswerable: bool) -> list[dict]:
    rows = []
    for number in range(40):
        text = TEXT.replace("It rained.", f"It rained for {number} days.")
        for question, answer in ASKED.items():
            answers = {"text": [answer], "answer_start": [text.index(answer)]}
            if unanswerable and number % 4 == 0:
                answers = {"text": [], "answer_start": []}
            rows.append({"id": number, "title": "a", "context": text, "question": question, "answers": answers})
    return rows


def write(rows: list[dict], folder: Path, *splits: str) -> None:
    (folder / "squad").mkdir()
    for split in splits:
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "squad" / f"{split}.jsonl").write_text(lines, encoding="utf-8")


FEW = """inherits = "reduced"
[squad]
dataset = "./squad"
max_train_samples = 40
max_eval_samples = 10
max_test_samples = 12
max_length = 40
doc_stride = 10
num_train_epochs = 1
"""


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The lesson up to its windows and its reading of logits, on rows like those of the first SQuAD."""
    folder = tmp_path_factory.mktemp("lesson")
    rows = in_the_columns_of_squad(unanswerable=False)
    rows[0] = rows[0] | {"answers": {"text": ["1890"], "answer_start": [3]}}  # not there
    write(rows, folder, "train", "validation")
    with pytest.MonkeyPatch.context() as patch:
        return run("def compute_metrics", FEW, folder, patch)


def test_rows_whose_answer_is_elsewhere_are_left_out_and_no_context_is_in_two_splits(pieces):
    assert pieces["rows_before"] == {"train": 80, "validation": 80}
    assert pieces["squad"]["test"].num_rows == 79 and pieces["squad"]["train"].num_rows < 79 - 9
    contexts = {split: set(pieces["squad"][split]["context"]) for split in ("train", "validation")}
    assert not contexts["train"] & contexts["validation"]
    assert pieces["test"]["id"][:] == [str(number) for number in range(12)]


def test_a_text_that_is_longer_than_a_model_reads_brings_no_warning(pieces):
    row = {"question": "Who?", "context": TEXT * 40, "answers": {"text": ["Ada Hill"], "answer_start": [0]}}
    pieces["first_hit"](row)
    told = pieces["tokenizer"].deprecation_warnings
    assert not told
    pieces["tokenizer"](row["question"], row["context"])
    assert told  # which there would be


def test_labels_give_back_the_answers_and_windows_overlap(pieces):
    assert len(pieces["train_windows"]) > len(pieces["train"])
    labelled = pieces["labelled"]
    assert {window["id"] for window in labelled} == set(pieces["train"]["id"])
    assert all(pieces["read_back"](window) in ASKED.values() for window in labelled)
    for window in pieces["train_windows"]:
        assert len(window["input_ids"]) <= 40
        assert (window["start_positions"] == 0) == (window["end_positions"] == 0)


@pytest.mark.parametrize(
    ("start", "end", "right"),
    [(0, 2, (2, 2)), (3, 11, (3, 4)), (4, 8, (3, 4)), (12, 16, (0, 0)), (8, 16, (0, 0))],
)
def test_label(pieces, start, end, right):
    """A question of one token, then "so", "Ada", "Hill" of a text whose rest is in another window."""
    offsets = [(0, 0), (0, 0), (0, 2), (3, 6), (7, 11), (0, 0)]
    assert pieces["label"](offsets, start, end) == right


def test_the_best_pair_is_in_the_context_in_order_and_short(pieces):
    offsets = [(0, 0), (0, 0), *[(n, n + 1) for n in range(40)]]
    start, end = np.full((2, 42), -5.0)
    start[1], end[0] = 9, 9  # the question and the first token
    start[30], end[10], start[12], end[32] = 8, 8, 5, 5
    assert pieces["best_pair"](start, end, offsets) == (13.0, 30, 32)
    end[32] = -5  # now the best end is before the best start, and the other is too far away
    score, first, last = pieces["best_pair"](start, end, offsets)
    assert first <= last < first + pieces["settings"].max_answer_length and score == 3.0


def test_the_windows_of_a_question_are_read_together(pieces):
    cut = {"id": ["0", "0"], "offset_mapping": [[(0, 0), (0, 2), (3, 6)], [(0, 0), (3, 6), (7, 11)]]}
    rows = {"id": ["0"], "context": ["so Ada Hill sang"]}
    start = [np.array([5.0, 0, 0]), np.array([1.0, 4, 0])]
    end = [np.array([5.0, 0, 0]), np.array([1.0, 0, 4])]
    texts, probabilities = pieces["read"]((start, end), cut, rows)
    assert texts == ["Ada Hill"] and probabilities[0] == pytest.approx(1 / (1 + np.exp(8 - 2)))
    assert pieces["final"](texts, probabilities, 0.5) == ["Ada Hill"]
    assert pieces["final"](texts, probabilities, 0.001) == [""]


def test_a_threshold_is_chosen_only_where_a_question_has_no_answer(pieces):
    probabilities = np.array([0.9] * 10, dtype=np.float32)
    assert pieces["choose_threshold"](["1890"] * 10, probabilities, pieces["validation"]) == 1.0
    answers = [{"text": [], "answer_start": []}] * 5 + [{"text": ["1890"], "answer_start": [0]}] * 5
    rows = pieces["datasets"].Dataset.from_list([{"id": str(n), "answers": a} for n, a in enumerate(answers)])
    probabilities[5:] = 0.2
    assert pieces["choose_threshold"](["1890"] * 10, probabilities, rows) == pytest.approx(0.2)


def test_every_checkpoint_is_loaded_in_fp32_and_claims_are_guarded():
    loads = re.findall(r"AutoModel\w+\.from_(?:pretrained|config)\(((?:[^()]|\([^()]*\))*)\)", "\n".join(CODE))
    assert len(loads) >= 2 and all("dtype=torch.float32" in arguments for arguments in loads)
    for source in CODE:
        for line in source.splitlines():
            assert not re.match(r"assert .*(f1\[|table|recall|threshold)", line), f"not guarded: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["BERT", "RoBERTa", "ModernBERT", "DeBERTa-v3"])
@pytest.mark.parametrize("unanswerable", [False, True])
def test_it_runs_on_other_data_with_other_checkpoints(architecture, unanswerable, tmp_path, monkeypatch):
    from tiny_checkpoints import make_checkpoint

    write(in_the_columns_of_squad(unanswerable), tmp_path, "train", "validation")
    make_checkpoint(architecture, tmp_path / "checkpoint")
    names = run("checks.lesson_11_best_threshold", FEW + 'checkpoint = "./checkpoint"\n', tmp_path, monkeypatch)
    assert names["some_unanswerable"] is unanswerable
    assert ("F1, none" in names["table"]) == unanswerable


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_model_beats_what_needs_no_model_and_its_random_twin(seed, tmp_path, monkeypatch):
    """The whole lesson on three seeds: 15 points of F1 above every baseline."""
    profile = f'inherits = "reduced"\n[squad]\nseed = {seed}\n'
    names = run("table.round(1)", profile, tmp_path, monkeypatch)
    f1, shape = names["table"]["F1"], names["trainer"].model.config
    names["set_seed"](seed)
    random = names["AutoModelForQuestionAnswering"].from_config(shape, dtype=names["torch"].float32)
    twin = names["new_trainer"]("twin", model=random, eval_strategy="no")
    twin.train()
    f1["random twin"] = names["scores"](names["answers_of"](twin))["F1"]
    print(f"seed {seed}: {f1.round(1).to_dict()}")
    assert f1["fine-tuned"] > f1.drop(["fine-tuned", "form"]).max() + 15
    assert f1["fine-tuned"] > f1["form"]


def test_grouping_by_length_reorders_evaluation_as_the_lesson_says(tmp_path):
    import torch
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": [1] * (number * 7 % 20 + 1)} for number in range(20)]

    def lengths(rows):
        return {"lengths": torch.tensor([len(row["input_ids"]) for row in rows])}

    order = {}
    for way in ("random", "group_by_length"):
        arguments = TrainingArguments(tmp_path, train_sampling_strategy=way, remove_unused_columns=False, use_cpu=True)
        trainer = Trainer(torch.nn.Linear(1, 1), arguments, eval_dataset=rows, data_collator=lengths)
        order[way] = [length for batch in trainer.get_eval_dataloader() for length in batch["lengths"].tolist()]
    assert order["random"] == [len(row["input_ids"]) for row in rows]
    assert order["group_by_length"] != order["random"]
    prose = "\n".join(cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "markdown")
    assert "group_by_length" in prose
