"""Lessons 04, 05 and 06 train the same model: the loops of the notebooks themselves, step by step, against Trainer."""

import ast
import difflib
import itertools
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in ("05_mrpc_pytorch_loop", "06_mrpc_accelerate")]
LESSONS = [ROOT / "notebooks" / "04_mrpc_trainer.ipynb", *NOTEBOOKS]
SETTINGS = SimpleNamespace(
    per_device_train_batch_size=16, learning_rate=3e-4, weight_decay=0.01, warmup_steps=0.1, seed=42
)


def cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def functions(path):
    """The source of each function of a notebook, by name; of those defined twice, both in order."""
    found = {}
    for cell in cells(path):
        code = "".join(cell["source"])
        for node in ast.parse(code).body:
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append(ast.get_source_segment(code, node))
    return found


@pytest.fixture(scope="module")
def pairs():
    """44 tokenised pairs to train on (the last batch of 16 has 12 rows) and 30 to validate on."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "models" / "bert")
    rows = datasets.load_dataset(str(ROOT / "data" / "glue"), "mrpc", split="train")
    columns = tokenizer(rows[:74]["sentence1"], rows[:74]["sentence2"], truncation=True, max_length=128)
    rows = datasets.Dataset.from_dict({**columns, "labels": rows[:74]["label"]}).with_format("torch")
    return tokenizer, rows.select(range(44)), rows.select(range(44, 74))


@pytest.fixture(scope="module")
def recipe(pairs):
    """What the cells above a lesson's loop define, on few rows; `build(dropout, notebook, ...)` adds its functions."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, get_scheduler, set_seed

    tokenizer, train_rows, eval_rows = pairs

    class Metric:
        """Accuracy, collected over batches."""

        def __init__(self):
            self.right = []

        def add_batch(self, predictions, references):
            self.right += (predictions == references).tolist()

        def compute(self):
            right, self.right = self.right, []
            return {"accuracy": sum(right) / len(right), "rows": len(right)}

    def fresh_model(dropout):
        set_seed(SETTINGS.seed)
        changed = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        checkpoint = ROOT / "data" / "models" / "bert"
        return AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2, **changed)

    def build(dropout, notebook=NOTEBOOKS[0], which=0, **more):
        order, collate = torch.Generator(), DataCollatorWithPadding(tokenizer)
        sampler = RandomSampler(train_rows, generator=order)
        place = {
            **{"torch": torch, "nn": torch.nn, "math": math, "sys": sys, "islice": itertools.islice},
            **{"get_scheduler": get_scheduler, "set_seed": set_seed, "settings": SETTINGS, "order": order},
            **{"device": torch.device("cpu"), "metric": Metric(), "batch_size": 16, "lengths": [], "few": 6},
            "progress": lambda steps, total: steps,
            "fresh_model": lambda: fresh_model(dropout),
            "train_loader": DataLoader(train_rows, 16, sampler=sampler, collate_fn=collate),
            "eval_loader": DataLoader(eval_rows, 8, collate_fn=collate),
        } | more
        for name, sources in functions(notebook).items():
            if name in ("parameter_groups", "optimizer_and_scheduler", "bare", "clipped", "accumulated", "loss_func"):
                exec(sources[0], place)
        for name in ("validate", "train"):
            exec("@torch.no_grad()\n" * (name == "validate") + functions(notebook)[name][which], place)
        return SimpleNamespace(**place)

    return build


@pytest.fixture(scope="module")
def by_trainer(pairs, recipe, tmp_path_factory):
    """`run(dropout, **changes)`: the losses of all steps and the accuracies of two epochs, by Trainer."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    tokenizer, train_rows, eval_rows = pairs

    def run(dropout, loss_func=None, **changes):
        arguments = TrainingArguments(
            tmp_path_factory.mktemp("trainer"),
            **{"num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "epoch", "save_strategy": "no"},
            **{"use_cpu": True, "disable_tqdm": True, "per_device_eval_batch_size": 8},
            **(vars(SETTINGS) | changes),
        )
        trainer = Trainer(
            recipe(dropout).fresh_model(),
            arguments,
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda outcome: {
                "accuracy": float((outcome.predictions.argmax(-1) == outcome.label_ids).mean())
            },
            compute_loss_func=loss_func,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        log = trainer.state.log_history
        return [row["loss"] for row in log if "loss" in row], [
            row["eval_accuracy"] for row in log if "eval_loss" in row
        ]

    return run


def apart(ours, theirs):
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_three_loops_one_curve(recipe, by_trainer, dropout):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    losses_04, accuracies_04 = by_trainer(dropout)
    AcceleratorState._reset_state(reset_partial_state=True)
    plain = recipe(dropout)
    accelerated = recipe(dropout, NOTEBOOKS[1], which=1, accelerator=Accelerator(cpu=True))
    for lesson in (plain, accelerated):
        losses, history = lesson.train(lesson.fresh_model(), lesson.train_loader, lesson.eval_loader, 6)
        assert len(losses) == 6 and apart(losses, losses_04) < 1e-6
        assert [metrics["accuracy"] for metrics in history] == pytest.approx(accuracies_04, abs=1e-6)
        assert [metrics["rows"] for metrics in history] == [30, 30]


def test_what_the_comparison_would_notice(recipe, by_trainer):
    """The losses part when one of the recipe's details is left out."""
    lesson = recipe(0.0)
    losses, _ = lesson.train(lesson.fresh_model(), lesson.train_loader, lesson.eval_loader, 6)
    assert apart(losses, by_trainer(0.0, max_grad_norm=0)[0]) > 1e-4
    assert apart(losses, by_trainer(0.0, warmup_steps=0)[0]) > 1e-4
    assert apart(losses, by_trainer(0.0, data_seed=43)[0]) > 1e-4


def test_accumulation_is_the_whole_batch(recipe, by_trainer):
    """Two halves to a step, in lesson 05's way and in Trainer's with lesson 05's loss function; at last 8 and 4."""
    lesson = recipe(0.0)
    whole, _ = lesson.train(lesson.fresh_model(), lesson.train_loader, lesson.eval_loader, 6)
    model = lesson.fresh_model().train()
    optimizer, scheduler = lesson.optimizer_and_scheduler(model, 6)
    losses = []
    for epoch in range(2):
        lesson.order.manual_seed(SETTINGS.seed + epoch)
        for batch in lesson.train_loader:
            losses.append(lesson.accumulated(model, batch))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert apart(losses, whole) < 1e-5
    halves = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    assert apart(by_trainer(0.0, lesson.loss_func, **halves)[0], whole) < 1e-5


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_weight_decay_spares_what_trainer_spares(recipe, kind, tmp_path):
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

    model = AutoModelForSequenceClassification.from_pretrained(ROOT / "data" / "models" / kind, num_labels=2)
    trainer = Trainer(model, TrainingArguments(tmp_path, use_cpu=True))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = recipe(0.0).parameter_groups(model)
    assert {names[id(p)] for p in decayed["params"]} == set(trainer.get_decay_parameter_names(model))
    assert decayed["weight_decay"] == SETTINGS.weight_decay and spared["weight_decay"] == 0


def test_lesson_06_starts_from_lesson_05_and_changes_little():
    before, after = (functions(path) for path in NOTEBOOKS)
    new = 0
    for name in ("train", "validate"):
        assert before[name] == after[name][:1]
        changed = difflib.ndiff(*(source.splitlines() for source in after[name]))
        new += sum(line.startswith("+ ") for line in changed)
    assert new <= 5


def test_committed_lessons_show_the_same_losses():
    """All three print some losses of their whole run and the last metrics; executed on one machine they agree."""
    shown = {}
    for path in (path for path in LESSONS if path.exists()):
        texts = ["".join(output.get("text", "")) for cell in cells(path) for output in cell["outputs"]]
        text = next(text for text in texts if re.search(r"^step +1: loss", text, re.MULTILINE))
        losses = [float(loss) for loss in re.findall(r"^step +\d+: loss ([\d.]+)$", text, re.MULTILINE)]
        assert len(losses) == 4, path.name  # of steps 1, 2, 10, and the last of the reduced run
        shown[path.name] = losses, ast.literal_eval(text.strip().splitlines()[-1])
    (losses, metrics), *others = shown.values()
    assert set(metrics) == {"accuracy", "f1"} and len(shown) >= 2
    for their_losses, their_metrics in others:
        assert apart(losses, their_losses) < 2e-6, f"execute them on one machine, one after another: {shown}"
        assert metrics == their_metrics
