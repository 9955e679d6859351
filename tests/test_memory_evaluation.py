"""`helpers.memory.estimate_evaluation` against real `Trainer.evaluate()` runs, and the settings that it refuses."""

import re
import tracemalloc
from pathlib import Path

import pytest
from memory_cases import BERT, GPT2
from memory_truth import quiet

from helpers import memory
from helpers.memory import estimate, estimate_evaluation, measure

SMALL = {"vocab_size": 1000}
TEXTS = {"per_device_eval_batch_size": 8, "sequence_length": 64}


@pytest.fixture(autouse=True, scope="module")
def without_chatter():
    quiet()


def best_alone(logits, labels):
    return logits.argmax(-1)


def evaluated(directory, config, task, rows, *, loss_only=False, preprocess=None, **options):
    """Peak bytes of tensors, and of what Python and numpy allocated, in one `Trainer.evaluate()` on the CPU."""
    from transformers import Trainer, TrainingArguments

    length = TEXTS["sequence_length"]
    model = memory.build_model(config, task=task).eval()
    labels = {"labels": 1 if task == "sequence-classification" else [1] * length}
    if task == "question-answering":
        labels = {"start_positions": 1, "end_positions": 2}
    data = [{"input_ids": [1] * length, "attention_mask": [1] * length, **labels}] * rows
    arguments = TrainingArguments(
        directory,
        per_device_eval_batch_size=TEXTS["per_device_eval_batch_size"],
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    trainer = Trainer(
        model,
        arguments,
        eval_dataset=data,
        compute_metrics=None if loss_only else lambda prediction, compute_result=True: {},
        preprocess_logits_for_metrics=preprocess,
    )
    tracemalloc.start()
    try:
        return measure(trainer.evaluate).peak_bytes, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("config", "task", "rows", "options"),
    [
        (GPT2 | SMALL, "causal-lm", 44, {}),  # the last batch is half full
        (GPT2 | SMALL, "causal-lm", 44, {"eval_accumulation_steps": 2}),
        (GPT2 | SMALL, "causal-lm", 40, {"batch_eval_metrics": True}),
        (BERT, "token-classification", 64, {}),
        (BERT, "question-answering", 640, {}),
    ],
)
def test_evaluation_is_predicted(tmp_path, config, task, rows, options):
    tensors, arrays = evaluated(tmp_path, config, task, rows, **options)
    predicted = estimate_evaluation(config, task=task, rows=rows, device="cpu", **TEXTS, **options)
    assert predicted.device_bytes == pytest.approx(tensors, rel=0.02)
    if options.get("eval_accumulation_steps"):
        assert predicted.host_bytes == pytest.approx(arrays, rel=0.05)
    else:
        assert predicted.host_bytes == 0  # the CPU's arrays are its tensors


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"loss_only": True}, {"prediction_loss_only": True}),
        ({"preprocess": best_alone}, {"preprocess_logits_for_metrics": "argmax"}),
    ],
)
def test_what_keeps_fewer_numbers(tmp_path, run, said):
    settings = {"task": "causal-lm", "rows": 40, "device": "cpu", **TEXTS}
    tensors, _ = evaluated(tmp_path, GPT2 | SMALL, "causal-lm", 40, **run)
    predicted = estimate_evaluation(GPT2 | SMALL, **settings, **said)
    assert predicted.device_bytes == pytest.approx(tensors, rel=0.02)
    assert predicted.device_bytes < 0.6 * estimate_evaluation(GPT2 | SMALL, **settings).device_bytes


def test_training_fits_and_evaluation_dies():
    """GPT-2 on 2,000 texts of 512 tokens: the logits alone are 206 GB, and joining them takes that twice."""
    shape = {"sequence_length": 512, "precision": "bf16"}
    training = memory.estimate("gpt2", per_device_train_batch_size=8, **shape)
    texts = {"rows": 2000, "per_device_eval_batch_size": 8, "optim": "adamw_torch_fused", **shape}
    evaluation = estimate_evaluation("gpt2", **texts)
    assert training.peak_gb < 20
    assert evaluation.kept_bytes == 2000 * 512 * (50257 * 4 + 8)
    assert evaluation.device_bytes > 2 * evaluation.kept_bytes - 8 * 512 * 50257 * 4
    moved = estimate_evaluation("gpt2", eval_accumulation_steps=1, **texts)
    assert moved.device_bytes < training.peak_bytes < evaluation.host_bytes < moved.host_bytes
    assert estimate_evaluation("gpt2", batch_eval_metrics=True, **texts).host_bytes == 0
    argmax = estimate_evaluation("gpt2", preprocess_logits_for_metrics="argmax", **texts)
    assert argmax.kept_bytes == 2000 * 512 * 16
    assert "compute_metrics" in str(evaluation) and memory.NOT_SEEN in str(evaluation)


def test_a_row_of_question_answering_keeps_two_numbers_a_token_and_two_places():
    settings = {"task": "question-answering", "rows": 500, "device": "cpu", **TEXTS}
    assert estimate_evaluation(BERT, **settings).kept_bytes == 500 * (2 * 64 * 4 + 2 * 8)
    argmax = estimate_evaluation(BERT, preprocess_logits_for_metrics="argmax", **settings)
    assert argmax.kept_bytes == 500 * 4 * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be a whole number"),
        ({"eval_accumulation_steps": 0}, "eval_accumulation_steps must be a whole number"),
        ({"preprocess_logits_for_metrics": "softmax"}, "unknown preprocess_logits_for_metrics"),
        ({"batch_eval_metrics": 1}, "batch_eval_metrics must be True or False"),
        ({"sequence_length": 2000}, "beyond gpt2's 1024 positions"),
        ({"task": "masked-lm"}, "is a decoder"),
        ({"optim": "adamm"}, "unknown optim"),
    ],
)
def test_nonsense_raises(change, message):
    with pytest.raises(ValueError, match=message):
        estimate_evaluation("gpt2", **({"rows": 10} | TEXTS | change))


def test_what_setup_says_of_evaluation():
    """Each figure of the troubleshooting's paragraph and table is what the functions say today."""
    page = (Path(__file__).parent.parent / "SETUP.md").read_text(encoding="utf-8")
    prose = page.split("**Training fits, and `evaluate()` runs out of memory.**")[1].split("\n**")[0]
    shape, task = dict(sequence_length=512, precision="bf16"), dict(task="causal-lm")
    rows = dict(rows=1000, per_device_eval_batch_size=8, **shape, **task)
    training = estimate("gpt2", per_device_train_batch_size=8, **shape, **task).peak_gb
    plain = estimate_evaluation("gpt2", **rows)
    said = re.sub(r"\s+", " ", prose)
    assert f"8 rows of 512 tokens in {training:.1f} GB; evaluating 1,000 such rows keeps" in said
    assert f"keeps {plain.kept_bytes / 1e9:.0f} GB of logits and wants {plain.device_bytes / 1e9:.0f} GB." in said
    remedies = {
        "nothing": {},
        "`eval_accumulation_steps": dict(eval_accumulation_steps=10),
        "`preprocess_logits_for_metrics": dict(preprocess_logits_for_metrics="argmax"),
        "`batch_eval_metrics": dict(batch_eval_metrics=True),
        "`prediction_loss_only": dict(prediction_loss_only=True),
    }
    table = [line for line in prose.splitlines() if line.startswith("|")][2:]
    assert len(table) == len(remedies)
    for line, (begins, options) in zip(table, remedies.items(), strict=True):
        found = estimate_evaluation("gpt2", **rows, **options)
        assert line.startswith(f"| {begins}")
        assert f"| {found.device_bytes / 1e9:.1f} GB | {found.host_bytes / 1e9:.1f} GB |" in line
