"""diagnose() is right about runs trained here, whatever way they were logged; plot() draws what was logged, once."""

import json
import math
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from helpers.curves import plot
from helpers.diagnosis import diagnose

ROOT = str(Path(__file__).resolve().parents[1])

# The runs. Each is a real one of a second or less, and named for what its settings must lead to.


@cache
def data(name):
    """Train and validation tensors of a task: ten digits, two noisy classes, or characters of a random language."""
    import torch
    from sklearn.datasets import load_digits, make_classification

    if name == "characters":  # each of 30 characters is followed by one of four
        generator = torch.Generator().manual_seed(0)
        follows = torch.randint(0, 30, (30, 4), generator=generator)
        text = torch.zeros(1400, 17, dtype=torch.long)
        for position in range(1, 17):
            choice = torch.randint(0, 4, (1400,), generator=generator)
            text[:, position] = follows[text[:, position - 1], choice]
        inputs, targets = text[:, :-1], text[:, 1:]
    else:
        if name == "digits":
            inputs, targets = load_digits(return_X_y=True)
            inputs = inputs / 16
        else:
            inputs, targets = make_classification(1800, 40, n_informative=10, flip_y=0.1, random_state=1)
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
        inputs, targets = torch.tensor(inputs, dtype=torch.float32)[order], torch.tensor(targets)[order]
    return (inputs[:-400], targets[:-400]), (inputs[-400:], targets[-400:])


def train(task, learning_rate, epochs=3, rows=1000, width=64, batch=16, every=5, warmup=0, evaluate="epoch", seed=0):
    """Train a small model as Trainer does by default (AdamW, clipping, linear decay); return a history like its own."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    (inputs, targets), (held_out, answers) = data(task)
    inputs, targets = inputs[:rows], targets[:rows]
    first = nn.Embedding(30, width) if task == "characters" else nn.Linear(inputs.shape[1], width)
    classes = {"characters": 30, "digits": 10, "noisy": 2}[task]
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    steps_per_epoch = math.ceil(rows / batch)
    total = steps_per_epoch * epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / warmup if step < warmup else (total - step) / max(1, total - warmup)
    )

    def loss_of(x, y):
        return nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())

    history, losses, step = [], [], 0
    for _ in range(epochs):
        for rows_of_batch in torch.randperm(rows).split(batch):
            loss = loss_of(inputs[rows_of_batch], targets[rows_of_batch])
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            losses.append(loss.item())
            place = {"epoch": step / steps_per_epoch, "step": step}
            if step % every == 0:
                history.append({"loss": sum(losses) / len(losses), "grad_norm": norm.item(), **place})
                losses = []
            if step % (steps_per_epoch if evaluate == "epoch" else evaluate) == 0:
                with torch.no_grad():
                    accuracy = (model(held_out).argmax(-1) == answers).float().mean().item()
                    history.append({"eval_loss": loss_of(held_out, answers).item(), "eval_accuracy": accuracy, **place})
    return [*history, {"train_runtime": 1.0, "train_loss": 0.5, "total_flos": 1e9, **place}]


RUNS = {
    "ten digits": ("healthy", dict(task="digits", learning_rate=1e-3)),
    "batches of four": ("healthy", dict(task="digits", learning_rate=5e-4, batch=4)),
    "logged once an epoch": ("healthy", dict(task="digits", learning_rate=1e-3, epochs=4, every=63)),
    "noisy classes": ("healthy", dict(task="noisy", learning_rate=1e-3, width=16)),
    "language model with warm-up": ("healthy", dict(task="characters", learning_rate=5e-3, warmup=30)),
    "sixty examples": ("overfitting", dict(task="noisy", learning_rate=3e-3, rows=60, epochs=30, evaluate=12)),
    "ten epochs": ("overfitting", dict(task="noisy", learning_rate=2e-3, rows=400, epochs=10)),
    "eight sentences": ("overfitting", dict(task="characters", learning_rate=1e-2, rows=8, epochs=80, evaluate=10)),
    "learning rate 1e-6": ("underfitting", dict(task="digits", learning_rate=1e-6)),
    "learning rate 1e-6, batches of four": ("underfitting", dict(task="noisy", learning_rate=1e-6, batch=4)),
    "language model at 1e-6": ("underfitting", dict(task="characters", learning_rate=1e-6)),
    "warm-up that never ends": ("underfitting", dict(task="digits", learning_rate=3e-4, warmup=9000)),
    "learning rate 3": ("diverging", dict(task="digits", learning_rate=3.0)),
    "learning rate 3, two classes": ("diverging", dict(task="noisy", learning_rate=3.0)),
    "language model at 3": ("diverging", dict(task="characters", learning_rate=3.0)),
    "learning rate that rises to 1": ("diverging", dict(task="digits", learning_rate=1.0, warmup=189)),
}


@cache
def run(name):
    return train(**RUNS[name][1])


@pytest.mark.parametrize("name", RUNS)
def test_the_pattern_of_a_real_run(name):
    expected, settings = RUNS[name]
    for seed in range(2):
        history = run(name) if seed == 0 else train(**settings, seed=seed)
        assert diagnose(history).pattern == expected, (seed, diagnose(history), history)


def in_any_order(history):
    entries = history[:-1]
    random.Random(0).shuffle(entries)
    return [*entries, history[-1]]


def resumed(history):
    """Killed after two thirds, resumed from a checkpoint at half: what lies between was logged twice."""
    steps = max(entry["step"] for entry in history)
    lost = [{**entry, "loss": 9.9} if "loss" in entry else entry for entry in history]
    killed = [e for e in history if e["step"] <= steps / 2] + [e for e in lost if steps / 2 < e["step"] <= steps / 1.5]
    return killed + [entry for entry in history if entry["step"] > steps / 2]


def in_other_units(history):
    return [{**entry, "step": 37 * entry["step"], "epoch": 3 * entry["epoch"]} for entry in history]


def noisier(history):
    draw = random.Random(0)
    return [{**e, "loss": e["loss"] * draw.gauss(1, 0.02)} if "loss" in e else e for e in history]


def logged_half_as_often(history):
    result, waiting = [], None
    for entry in history:
        if "loss" not in entry:
            result.append(entry)
        elif waiting is None:
            waiting = entry["loss"]
        else:
            result.append({**entry, "loss": (waiting + entry["loss"]) / 2})
            waiting = None
    return result


def from_trainer_state_json(history):
    return json.loads(json.dumps(history))


def with_speed_in_every_entry(history):
    """As Trainer logs with include_num_input_tokens_seen."""
    return [{**e, "num_input_tokens_seen": 9, "train_runtime": 0.5, "train_tokens_per_second": 18.0} for e in history]


def with_steppy_accuracy(history):
    return [{**e, "eval_accuracy": round(4 * e["eval_accuracy"]) / 4} if "eval_loss" in e else e for e in history]


def evaluated_again_after_training(history):
    """trainer.evaluate() with the best model, or on the test split, adds an eval_loss at the last step."""
    place = {"epoch": history[-1]["epoch"], "step": history[-1]["step"]}
    best = min(entry["eval_loss"] for entry in history if "eval_loss" in entry)
    return [*history, {"eval_loss": best / 2, **place}]


CHANGES = [
    in_any_order,
    resumed,
    in_other_units,
    noisier,
    logged_half_as_often,
    from_trainer_state_json,
    with_speed_in_every_entry,
    with_steppy_accuracy,
    evaluated_again_after_training,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", RUNS)
def test_the_pattern_does_not_depend_on_the_way_it_was_logged(name, change):
    assert diagnose(change(run(name))).pattern == RUNS[name][0], diagnose(change(run(name)))


def test_a_run_without_validation_is_called_diverging_or_stuck_but_never_healthy():
    for name, (expected, _) in RUNS.items():
        found = diagnose([entry for entry in run(name) if "eval_loss" not in entry])
        assert found.pattern == (expected if expected in ("diverging", "underfitting") else "too few points"), name
    assert "eval_strategy" in diagnose([entry for entry in run("ten digits") if "eval_loss" not in entry]).action


def test_validation_without_training_losses_points_to_logging_steps():
    found = diagnose([entry for entry in run("sixty examples") if "loss" not in entry])
    assert found.pattern == "too few points"
    assert "logging_steps" in found.action


@pytest.mark.parametrize("history", [[], [{"loss": 0.7, "step": 1}], [{"total_flos": 1e9, "train_loss": 0.6}]])
def test_too_few_points(history):
    assert diagnose(history).pattern == "too few points"


def test_classes_guessed_are_recognised_after_a_jump_hidden_in_the_first_report():
    guess = math.log(2)
    history = [{"step": 10 * i, "loss": 2.9 if i == 1 else guess + 0.004 * (-1) ** i} for i in range(1, 21)]
    history += [{"step": 50 * i, "eval_loss": guess + 0.001 * i} for i in range(1, 5)]
    assert diagnose(history).pattern == "underfitting"
    assert "0.693 = ln(2)" in diagnose(history).evidence


def test_a_slight_rise_at_the_end_is_still_healthy_and_a_steady_one_is_not():
    def history(validation):
        train = [{"step": step, "loss": 0.69 * 0.9 ** (step / 10) + 0.2} for step in range(0, 100, 2)]
        return train + [{"step": 20 * i + 20, "eval_loss": loss} for i, loss in enumerate(validation)]

    assert diagnose(history([0.60, 0.52, 0.47, 0.45, 0.455])).pattern == "healthy"
    assert diagnose(history([0.60, 0.50, 0.45, 0.47, 0.50])).pattern == "overfitting"
    assert "the validation loss went from 0.5 to 0.505" in diagnose(history([0.50, 0.51, 0.505])).evidence


def warm_start(validation, seed=0, drop=0.03, batches=22):
    """A pretrained language model, trained with dropout at a constant rate: its first batches happen to be hard."""
    noise = random.Random(seed)
    epochs, history = len(validation) - 1, [{"epoch": 0.0, "eval_loss": validation[0]}]
    for batch in range(1, epochs * batches + 1):
        hard = 0.12 if batch <= 6 else 0.0
        loss = 2.77 + hard - drop * batch / batches + noise.gauss(0, 0.08)
        history.append({"epoch": batch / batches, "loss": loss})
    return history + [{"epoch": float(epoch), "eval_loss": loss} for epoch, loss in enumerate(validation[1:], 1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_has_only_begun_to_learn_is_not_told_to_keep_its_settings(seed):
    """As lesson 01's run at a thousandth of the rate: hard first batches make the training loss seem to fall."""
    slow = diagnose(warm_start([2.73, 2.715, 2.702, 2.69], seed))
    assert slow.pattern == "underfitting" and "raise the learning rate" in slow.action, slow
    assert diagnose(warm_start([2.73, 2.66, 2.645, 2.642], seed, drop=0.06)).pattern == "healthy"  # it has settled
    assert diagnose(warm_start([2.73, 2.4, 2.07, 1.75], seed, drop=0.33)).pattern == "healthy"  # steady, and much


def test_a_crawl_is_told_by_its_validation_loss():
    slow = [entry for entry in warm_start([2.73, 2.715, 2.702, 2.69]) if "eval_loss" in entry]
    hard_start = [{"epoch": 0.1 + i / 10, "loss": 2.95 if i < 3 else 2.72} for i in range(30)]
    assert diagnose(hard_start + slow).evidence.startswith("The validation loss fell from 2.73 to 2.69 only")


def test_a_gap_is_told_from_a_turn():
    """Both losses fall to the end. If training ends far below validation, the settings are not simply to be kept."""

    def found(end_of_training):
        train = [{"step": step, "loss": end_of_training + 1.7 * 0.8**step} for step in range(1, 41)]
        return diagnose(train + [{"step": 10 * i, "eval_loss": 0.36 + 0.8**i} for i in range(1, 5)])

    near, far = found(0.3), found(0.02)
    assert near.pattern == far.pattern == "healthy"
    assert "Keep these settings" in near.action and "gap" not in near.evidence
    assert "a wide gap, but no turn" in far.evidence
    assert "Keep these settings" not in far.action and "calibration" in far.action


def test_few_examples_make_the_accuracy_steppy_and_many_do_not():
    def scored(history, examples):
        count = {id(e): round(e["eval_accuracy"] * examples) for e in history if "eval_loss" in e}
        return [{**e, "eval_accuracy": count[id(e)] / examples} if "eval_loss" in e else e for e in history]

    history = train("noisy", learning_rate=1e-3, width=16, evaluate=12)
    few = diagnose(scored(history, 23), metric="accuracy")
    assert few.pattern == "steppy" and "steps of 1/23, and stood still" in few.evidence
    assert "more examples" in few.action
    assert diagnose(scored(history, 23)).pattern == "healthy"  # nobody asked about the accuracy
    assert diagnose(scored(history, 409), metric="eval_accuracy").pattern == "healthy"
    stuck = [{**e, "eval_accuracy": 0.75} if "eval_loss" in e else e for e in history]
    assert diagnose(stuck, metric="accuracy").pattern == "healthy"  # a constant tells no step
    assert diagnose(scored(run("sixty examples"), 23), metric="accuracy").pattern == "overfitting"
    with pytest.raises(ValueError, match=r"has no eval_f1; its metrics are: loss, accuracy"):
        diagnose(history, metric="f1")


def test_a_trainer_that_counts_tokens_ends_a_run_only_once(tmp_path):
    """include_num_input_tokens_seen puts train_runtime into every entry that Trainer logs."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        main_input_name = "x"

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x, labels):
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    rows = [{"x": x, "labels": int(x[0] > 0)} for x in torch.randn(64, 4)]
    arguments = TrainingArguments(
        tmp_path,
        learning_rate=0.1,
        logging_steps=1,
        eval_strategy="epoch",
        include_num_input_tokens_seen=True,
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
    )
    trainer = Trainer(Model(), arguments, train_dataset=rows, eval_dataset=rows[:32])
    trainer.train()
    last = trainer.evaluate(rows[32:])["eval_loss"]  # after the end: not on the curve
    history = trainer.state.log_history
    assert sum("train_runtime" in entry for entry in history) == 25  # each logged step, and the end
    assert diagnose(history).pattern == "healthy"
    training, validation = plot(history).axes[0].lines
    assert (len(training.get_xdata()), len(validation.get_xdata())) == (24, 3)
    assert last not in validation.get_ydata()


def test_lesson_04_shows_every_pattern():
    """In the committed outputs: each is a real run, which may come out otherwise when data or checkpoint change."""
    notebook = json.loads((Path(ROOT) / "notebooks" / "04_mrpc_trainer.ipynb").read_text(encoding="utf-8"))
    outputs = json.dumps([cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"])
    shown = set(re.findall(r"Pattern:\s+(\w+)", outputs))
    assert {"healthy", "steppy", "underfitting", "diverging", "overfitting"} <= shown


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["loss", "eval_loss"])
def test_nan_and_infinity_are_diverging(bad, key):
    history = [{"step": step, key: bad if step == 3 else 0.7 - step / 20} for step in range(1, 6)]
    found = diagnose(history)
    assert found.pattern == "diverging"
    assert f"{bad} at step 3" in found.evidence


def test_the_evidence_holds_the_figures_and_the_action_the_remedy():
    history = run("ten epochs")
    found = diagnose(history)
    validation = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert f"{min(validation):.3g}" in found.evidence
    assert f"{validation[-1]:.3g}" in found.evidence
    assert "load_best_model_at_end" in found.action
    assert "warm-up" in diagnose(run("learning rate 3")).action
    assert "learning rate" in diagnose(run("learning rate 1e-6")).action


def test_a_diagnosis_is_three_short_lines_and_cannot_be_changed():
    for name in RUNS:
        lines = str(diagnose(run(name))).splitlines()
        assert [line.split(":")[0] for line in lines] == ["Pattern", "Evidence", "Action"]
        assert max(map(len, lines)) <= 130, lines
    with pytest.raises(AttributeError):
        diagnose([]).pattern = "healthy"


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ({"loss": [0.7, 0.6]}, TypeError, "history must be a list of dicts"),
        (None, TypeError, "history must be a list of dicts, such as trainer.state.log_history, not a NoneType"),
        ([{"step": 1, "loss": 0.7}, 0.6], TypeError, "entry 1 of history must be a dict"),
        ([{"step": 1, "loss": 0.7}, {"step": 2, "loss": "0.6"}], TypeError, "entry 1 of the history has loss = '0.6'"),
        ([{"step": 1, "loss": None}], TypeError, "entry 0 of the history has loss = None"),
        ([{"step": "one", "loss": 0.7}], TypeError, "entry 0 of the history has step = 'one'"),
        ([{"step": 1, "loss": 0.7}, {"loss": 0.6}], ValueError, "entry 1 of history has no step, but entry 0"),
        ([{"step": 1, "loss": 0.7}, {"epoch": 1, "eval_loss": 0.6}], ValueError, "entry 1 of history has no step"),
        ([{"step": 1, "val_loss": 0.7}], ValueError, "no entry of history has a loss or eval_loss; the keys are step"),
    ],
)
def test_bad_input_is_named(history, error, message):
    with pytest.raises(error) as caught:
        diagnose(history)
    assert message in str(caught.value)


def test_numpy_and_torch_scalars_are_numbers():
    import numpy
    import torch

    plain = run("ten digits")
    assert diagnose([{k: numpy.float32(v) for k, v in e.items()} for e in plain]).pattern == "healthy"
    assert diagnose([{k: torch.tensor(v) for k, v in e.items()} for e in plain]).pattern == "healthy"


def test_a_trainer_that_hides_nan_losses_is_diverging(tmp_path):
    """Trainer logs 0.0 for a training loss of NaN (logging_nan_inf_filter); the gradient norm gives it away."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x, labels):
            logits = self.layer(x) * 1e30
            return {"loss": torch.nn.functional.cross_entropy(logits * logits, labels), "logits": logits}

    rows = [{"x": torch.randn(4), "labels": i % 2} for i in range(64)]
    arguments = TrainingArguments(
        tmp_path, max_steps=12, logging_steps=2, disable_tqdm=True, use_cpu=True, save_strategy="no"
    )
    trainer = Trainer(model=Model(), args=arguments, train_dataset=rows)
    trainer.train()
    history = trainer.state.log_history
    assert [entry["loss"] for entry in history if "loss" in entry][-1] == 0.0
    assert diagnose(history).pattern == "diverging"


# The figures.


@pytest.fixture(autouse=True)
def no_window():
    import matplotlib

    matplotlib.use("Agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        matplotlib.pyplot.close("all")


def test_a_figure_has_every_logged_value_and_its_labels():
    history = run("ten epochs")
    figure = plot(history, metric="accuracy")
    loss, accuracy = figure.axes
    training, validation = loss.lines
    assert list(training.get_ydata()) == [entry["loss"] for entry in history if "loss" in entry]
    assert list(validation.get_ydata()) == [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert list(validation.get_xdata()) == list(range(1, 11))
    assert list(accuracy.lines[0].get_ydata()) == [e["eval_accuracy"] for e in history if "eval_loss" in e]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("Epoch", "Loss")
    assert accuracy.get_ylabel() == "Validation accuracy"
    for panel in figure.axes:
        assert not panel.spines["top"].get_visible() and not panel.spines["right"].get_visible()


def test_several_runs_differ_in_colour_and_in_marker():
    names = ["ten digits", "learning rate 1e-6", "batches of four"]
    lines = plot({name: run(name) for name in names}).axes[0].lines
    validation = [line for line in lines if "validation" in line.get_label()]
    assert [line.get_label() for line in validation] == [f"{name}, validation" for name in names]
    assert len({line.get_color() for line in validation}) == len({line.get_marker() for line in validation}) == 3


def test_one_epoch_is_drawn_over_steps_and_an_explosion_on_a_log_scale():
    short = [{"step": s, "epoch": s / 10, "loss": 3 / s} for s in range(1, 11)]
    assert plot(short).axes[0].get_xlabel() == "Step"
    assert plot([{"loss": 3.0}, {"loss": 2.0}]).axes[0].get_xlabel() == "Entry"
    both = plot({"good": run("ten digits"), "3": run("learning rate 3")}).axes[0]
    assert both.get_yscale() == "log" and both.get_ylabel() == "Loss (log scale)"


def test_the_legend_tells_where_a_loss_was_lost():
    history = [{"step": s, "loss": 0.5 if s < 4 else math.nan} for s in range(1, 8)]
    assert plot(history).axes[0].get_legend().get_texts()[0].get_text() == "training (nan at step 4)"


def test_given_axes_are_used():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    assert plot(run("ten digits"), ax=axes[0]) is figure
    assert plot(run("ten digits"), metric="eval_accuracy", ax=axes) is figure
    with pytest.raises(ValueError, match="a pair of axes"):
        plot(run("ten digits"), metric="accuracy", ax=axes[0])


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="no run"):
        plot({})
    with pytest.raises(ValueError, match="mine has no loss to draw"):
        plot({"mine": []})
    with pytest.raises(ValueError, match=r"has no eval_f1; its metrics are: loss, accuracy"):
        plot(run("ten digits"), metric="f1")


@pytest.mark.parametrize(
    ("cell", "pictures"),
    [
        ("plot(history)", 1),
        ("plot(history)\ndiagnose(history)", 1),
        ("figure = plot(history, metric='accuracy')", 1),
        ("for _ in range(2):\n    plot(history)", 2),
        ("import matplotlib.pyplot as plt\nplot(history, ax=plt.subplots()[1])", 1),
    ],
)
def test_a_notebook_cell_shows_each_figure_once(kernel, cell, pictures):
    assert kernel(cell) == pictures


@pytest.fixture(scope="module")
def kernel():
    """A running Jupyter kernel as a function: it executes a cell and counts the pictures that appear."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    client = NotebookClient(notebook, kernel_name="python3", timeout=60)
    setup = f"from helpers.curves import diagnose, plot\nhistory = {run('ten digits')!r}"

    with client.setup_kernel(cwd=ROOT):

        def execute(source):
            cell = nbformat.v4.new_code_cell(source)
            notebook.cells.append(cell)
            client.execute_cell(cell, len(notebook.cells) - 1)
            return sum("image/png" in output.get("data", {}) for output in cell.outputs)

        execute(setup)
        yield execute


def test_importing_the_module_imports_no_matplotlib_and_no_numpy():
    code = "import sys, helpers.curves; print(sorted({'matplotlib', 'numpy', 'torch'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
