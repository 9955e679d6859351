"""scripts/fine_tune.py: what it says and saves, and what it refuses. What survives a stop: test_fine_tune_stops.py."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fine_tune_runs import DOCUMENTS, MODEL, SHORT, Run, documents, refused, write_csv, write_small

from helpers.profiles import ROOT
from takehome import forecast, settings, telling, texts
from takehome.checkpoints import MARKER, damage
from takehome.tables import read_table
from takehome.trainer import LengthSampler
from takehome.unfinished import compare


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    return documents()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small) -> Run:
    return Run(tmp_path_factory.mktemp("run") / "model", small, *SHORT, pictures=True).finish()


# --- Splits, weights, order ----------------------------------------------------------------------


def test_the_order_groups_lengths_and_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(5, 200, size=5003)
    sampler = LengthSampler(lengths, 16, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(5003))
    assert list(sampler) == first
    sampler.epoch = 1
    assert list(sampler) != first
    batches = np.array(first[:5000]).reshape(-1, 8)
    waste = lengths[batches].max(1).sum() * 8 / lengths[batches].sum()
    assert waste < 1.1  # at random it is 1.7
    means = lengths[batches].mean(1)
    assert abs(np.corrcoef(means[:-2], means[2:])[0, 1]) < 0.1  # and yet long and short steps take turns


def test_class_weights_when_the_imbalance_asks_for_it():
    def weights(counts, kind="auto"):
        return settings.class_weights(kind, counts)[0]

    assert weights([300, 120]) is None
    assert weights([400, 100]) == pytest.approx([0.625**0.5, 2.5**0.5])
    assert weights([400, 100], "none") is None
    assert weights([300, 120], "balanced") == pytest.approx([0.7, 1.75])
    assert max(weights([100_000, 3])) == 10


def test_few_rows_are_looked_at_more_often():
    def epochs(rows, classes, batch_size=16):
        return settings.choose_epochs(rows, classes, batch_size)

    assert [epochs(25_000, 2), epochs(1800, 2), epochs(1800, 77), epochs(300, 2)] == [3, 5, 10, 10]
    assert [epochs(8000, 77), epochs(16_000, 77)] == [10, 5]  # 77 labels take longer to tell apart than two
    assert epochs(1800, 2, batch_size=32) == 9


# --- What a run will take ------------------------------------------------------------------------


def test_timing_leaves_the_model_as_it_was():
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    model[1].weight.data[0] = -0.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer, seconds = forecast.time_update(model)
    assert seconds > 0
    assert len(optimizer.state) == len(list(model.parameters()))  # the averages are there while steps are timed
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_optimizer_that_is_timed_is_the_one_that_trains(monkeypatch, tmp_path):
    """Not fused, AdamW takes ten times as long on a CPU, which was announced."""
    import torch
    from transformers import TrainingArguments

    timed, adamw = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, **named: timed.append(named) or adamw(*given, **named))
    forecast.time_update(torch.nn.Linear(4, 4))
    trains = TrainingArguments(tmp_path, use_cpu=True).optim
    assert (trains.value, timed[0]["fused"]) == ("adamw_torch_fused", True)


def test_bf16_is_taken_on_a_cpu_where_it_is_clearly_faster(monkeypatch):
    import torch

    able, seconds = [True], {}
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able[0])
    monkeypatch.setattr(forecast, "time_step", lambda model, batches, loss, bf16: seconds[bf16])
    for bf16, faster in ((0.5, True), (0.9, False), (1.5, False)):
        seconds.update({True: bf16, False: 1.0})
        assert forecast.faster_in_bf16(None, None, None) is faster
    able[0] = False
    seconds.clear()  # nothing is timed where it would be emulated
    assert forecast.faster_in_bf16(None, None, None) is False


def test_what_is_not_decided_yet_is_no_other_run():
    saved = {"seed": 1, "bf16": True, "rows_digest": "a"}
    assert compare(saved, saved | {"bf16": None}) == ""
    assert compare(saved, saved | {"bf16": False}) == "bf16 was True, is False"
    assert compare(saved, saved | {"rows_digest": "b"}) == "the data has other rows"


# --- A run ---------------------------------------------------------------------------------------


def test_it_says_what_it_found_and_what_it_will_take_before_it_trains(finished):
    text = finished.text
    before = text[: text.index("step 4")]
    for told in (
        "160 rows; texts in 'text', labels in 'label'",
        "6: ",
        "train 128, validation 16, test 16",
        "--max-length 64 (as told)",
        "learning rate 0.001, the default for a width of 128",
        "class weights",
        "16 steps of 16 rows, 2 epochs; validation every 4",
        "GB for the longest step",
        "from 3 timed steps",
    ):
        assert told in before, told
    assert "Traceback" not in text
    assert "Warning" not in text


def test_the_output_is_whole_and_says_what_the_model_does(finished, small):
    import yaml
    from datasets import Dataset  # noqa: F401
    from transformers import pipeline
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    files = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "metrics.json",
        "curves.png",
        "confusion_matrix.png",
        "README.md",
        MARKER,
    }
    assert {path.name for path in finished.output.iterdir()} == files
    assert not finished.work.exists()
    metrics, names = finished.metrics, ["financial", "legal", "medical", "news", "personal", "technical"]
    matrix = np.array(metrics["test"]["confusion_matrix"]["counts"])
    assert metrics["data"]["labels"] == names
    assert matrix.sum() == metrics["test"]["n"] == 16
    assert metrics["test"]["accuracy"] == pytest.approx(matrix.trace() / 16)
    assert metrics["majority_class"]["accuracy"] < 0.5
    assert metrics["predicted"]["steps"] == metrics["measured"]["steps"] == 16
    if held := metrics["measured"]["peak_memory_bytes"]:  # Windows does not tell
        assert held == pytest.approx(metrics["predicted"]["memory_bytes"], rel=0.15)
    best = max(entry["eval_macro_f1"] for entry in metrics["log_history"] if "eval_macro_f1" in entry)
    assert metrics["validation"]["macro_f1"] == best

    # The model that was saved is the one that was measured: it gives the same answers to the test rows.
    table = read_table(small)
    labels = np.array(table.dataset["label"])
    test = texts.split_rows(labels, texts.hash_texts(table.dataset), seed=42)["test"]
    classify = pipeline("text-classification", str(finished.output), device="cpu")
    answers = classify([table.dataset[int(i)]["text"] for i in test], truncation=True)
    again = np.zeros((6, 6), int)
    for truth, answer in zip(labels[test], answers, strict=True):
        again[truth, names.index(answer["label"])] += 1
    assert (again == matrix).all()

    card = (finished.output / "README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification"
    assert "base_model" not in front  # a directory here is nothing to others
    assert f"| this model | {metrics['test']['accuracy']:.3f} | {metrics['test']['macro_f1']:.3f} |" in card
    assert str(ROOT) not in card
    for picture in ("curves.png", "confusion_matrix.png"):
        assert (finished.output / picture).read_bytes().startswith(b"\x89PNG")


def test_lora_is_merged(small, tmp_path):
    from transformers import AutoModelForSequenceClassification

    run = Run(tmp_path / "model", small, "--lora", "--max-steps=4", "--max-length=32").finish()
    assert "learning rate 0.003, the default for a width of 128 with LoRA" in run.text
    model = AutoModelForSequenceClassification.from_pretrained(run.output)
    assert type(model).__name__ == "DistilBertForSequenceClassification"
    assert not list(run.output.glob("adapter*"))
    base = AutoModelForSequenceClassification.from_pretrained(MODEL)
    name = "distilbert.transformer.layer.0.attention.q_lin.weight"
    assert (model.get_parameter(name) != base.get_parameter(name)).any()
    assert "Warning" not in run.text


def test_what_a_tokenizer_was_last_used_with_is_not_saved(small, tmp_path):
    """Some checkpoints come with padding and a cut at 128 tokens in their tokenizer.json."""
    checkpoint = shutil.copytree(MODEL, tmp_path / "checkpoint")
    there = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    there["truncation"] = {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0}
    there["padding"] = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None}
    there["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (checkpoint / "tokenizer.json").write_text(json.dumps(there), encoding="utf-8")
    told = ("--max-steps=4", "--max-length=32", "--warmup-steps=500")
    run = Run(tmp_path / "model", small, *told, checkpoint=str(checkpoint)).finish()
    saved = json.loads((run.output / "tokenizer.json").read_text("utf-8"))
    assert saved["truncation"] is None and saved["padding"] is None
    assert "--warmup-steps 500 is as long as the run" in run.text[: run.text.index("step 4")]


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--learning-rate=0"], "argument --learning-rate: 0 is out of range: above 0"),
        (["--learning-rate=nan"], "nan is no finite number"),
        (["--learning-rate=2"], "at most 0.1"),
        (["--num-train-epochs=-1"], "out of range: above 0"),
        (["--per-device-train-batch-size=0"], "at least 1"),
        (["--per-device-train-batch-size=many"], "invalid whole number value: 'many'"),
        (["--warmup-steps=-5"], "at least 0"),
        (["--weight-decay=3"], "at most 1"),
        (["--seed=-1"], "at least 0"),
        (["--lora-rank=0"], "at least 1"),
        (["--early-stopping-patience=1.5"], "invalid whole number value: '1.5'"),
        (["--epochs=3"], "unrecognized arguments: --epochs=3"),
        (["--output=x"], "unrecognized arguments: --output=x"),
        (["--output-dir=/"], "is a mount point"),
        (["--max-length=257"], "--max-length 257: {model} takes at most 256 tokens"),
        (["--checkpoint=no/such-model"], "--checkpoint no/such-model is not in the cache of this machine"),
        (["--checkpoint={tmp}"], "--checkpoint {tmp} cannot be loaded"),
        (["--text-column=body"], "{small}"),
        (["--encoding=klingon"], "--encoding klingon: no such encoding"),
        (["--data={tmp}/none.csv"], "none.csv: no such file"),
        (["--resume"], "holds no checkpoint to go on from"),
        (["--output-dir={small}"], "is a file"),
        (["--output-dir={small}/model"], "cannot be written"),
        (["--output-dir=/proc/model"], "cannot be written"),
        (["--output-dir={home}"], "holds other things"),
        (["--output-dir={done}"], "holds a finished model: name another, or add --overwrite"),
    ],
)
def test_bad_arguments_are_refused(arguments, expected, capsys, small, finished, tmp_path):
    places = {"model": MODEL, "small": small, "tmp": tmp_path, "done": finished.output, "home": small.parent}
    before = sorted(tmp_path.rglob("*")), sorted(finished.output.iterdir()), sorted(small.parent.iterdir())
    told = ["--data", str(small), "--output-dir", str(tmp_path / "model"), "--checkpoint", MODEL]
    line = refused(capsys, *told, *(argument.format(**places) for argument in arguments))
    assert line.startswith("fine_tune.py: ")
    assert expected.format(**places) in line
    assert before == (sorted(tmp_path.rglob("*")), sorted(finished.output.iterdir()), sorted(small.parent.iterdir()))


def test_bad_data_is_refused_and_nothing_is_left(capsys, tmp_path):
    few = write_csv(
        tmp_path / "few.csv",
        [["A text of one kind", "a"], ["Another text", "a"], ["A third one", "b"], ["And a fourth", "b"]],
    )
    one = write_csv(tmp_path / "one.csv", [[f"Text number {i}", "same"] for i in range(20)])
    for data, expected in ((few, "at least one label needs three"), (one, "one.csv")):
        line = refused(capsys, "--data", str(data), "--output-dir", str(tmp_path / "model"), "--checkpoint", MODEL)
        assert expected in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.csv", "one.csv"]


def test_a_second_run_keeps_out(capsys, small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT, slow=0.3)
    run.wait(until=lambda: (run.work / "data" / "facts.json").exists())
    told = ["--data", str(small), "--output-dir", str(run.output), "--checkpoint", MODEL]
    assert "another run writes to" in refused(capsys, *told, *SHORT)
    assert run.work.exists()
    run.process.kill()


def test_a_loss_that_is_no_number_is_named(small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT, "--learning-rate=0.1", diverge=True)
    assert "the loss of step 1 is nan: lower --learning-rate (it is 0.1)" in run.refusal()
    assert sorted(tmp_path.iterdir()) == []


def test_what_learned_nothing_is_told_so(finished):
    score = finished.metrics["test"]["macro_f1"]
    assert "learned nothing" in telling.advise(score, {"always 'news'": score, "words": 0.0})
    assert "words: better than the model" in telling.advise(score + 0.1, {"always 'news'": score, "words": 1.0})
    assert not telling.advise(score + 0.1, {"always 'news'": score, "words": score})


def test_a_file_that_cannot_be_written(small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT, file_size=2_000_000)  # the data fits, a checkpoint does not
    line = run.refusal()
    assert "could not be written" in line
    assert "MB are free there: make room; nothing is kept" in line
    assert sorted(tmp_path.iterdir()) == []


def test_a_full_disk(finished, small, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    run = Run(folder / "model", small, *SHORT, disk=(folder, 24_000_000))  # a checkpoint takes 14 MB
    run.wait()
    if run.process.exitcode == 77:
        pytest.skip("mounting a small disk is not allowed here")
    assert "make room; the same command goes on after step 4" in run.refusal()
    left = run.text.split("left behind:")[1]
    assert "model.unfinished/checkpoint-4/trainer_state.json" in left
    assert "checkpoint-8" not in left
    assert "'model/" not in left


# --- Slow: many rows, two processes, other models ------------------------------------------------


def launch(output: Path, data, *arguments: str, command=()) -> tuple[str, int]:
    """Runs the program as a reader does; returns what it said and its peak memory in bytes."""
    told = [*command, str(ROOT / "scripts/fine_tune.py"), "--data", str(data), "--output-dir", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    log = output.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *told, *arguments], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, log.read_text("utf-8")[-3000:]
    return log.read_text("utf-8"), usage.ru_maxrss * 1024


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_rows(rows, tmp_path):
    peaks = {}
    for number in (10_000, 200_000):
        rng = random.Random(number)

        def texts(number=number, rng=rng):
            for i in range(number):
                text, label = rng.choice(rows)
                yield f"{i}: {text} {rng.random()}", label

        data = write_csv(tmp_path / f"{number}.csv", texts())
        told = ["--checkpoint", MODEL, "--max-steps=20", "--max-length=64", "--eval-steps=20"]
        said, peaks[number] = launch(tmp_path / f"run-{number}", data, *told)
        assert f"{number:,} rows" in said
        data.unlink()
    print({number: f"{peak / 1e6:.0f} MB" for number, peak in peaks.items()})
    assert peaks[200_000] < 1.1 * peaks[10_000]


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(small, tmp_path):
    gpt2 = str(ROOT / "data/models/gpt2")  # it has no dropout, which each process would draw for itself
    one = Run(tmp_path / "one", small, *SHORT, checkpoint=gpt2).finish()
    config = str(ROOT / "scripts/launch/ddp_cpu.yaml")
    command = ["-m", "accelerate.commands.launch", "--config_file", config]
    told = [*SHORT, "--checkpoint", gpt2, "--per-device-train-batch-size=8"]
    said, _ = launch(tmp_path / "two", small, *told, command=command)
    assert said.count("train 128, validation 16, test 16") == 1  # one process speaks
    assert "2 processes" in said
    two = json.loads((tmp_path / "two/metrics.json").read_text("utf-8"))
    losses = [[entry["loss"] for entry in metrics["log_history"] if "loss" in entry] for metrics in (two, one.metrics)]
    assert len(losses[0]) == 16
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert two["test"]["confusion_matrix"] == one.metrics["test"]["confusion_matrix"]


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step(small, tmp_path):
    config = str(ROOT / "scripts/launch/ddp_cpu.yaml")
    command = ["-m", "accelerate.commands.launch", "--config_file", config, str(ROOT / "scripts/fine_tune.py")]
    output, log = tmp_path / "model", tmp_path / "log"
    told = ["--data", str(small), "--output-dir", str(output), "--checkpoint", str(ROOT / "data/models/gpt2"), *SHORT]
    told += ["--per-device-train-batch-size=4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, *command, *told], env=environment, stdout=file, stderr=file)
        while "step 4 " not in log.read_text("utf-8"):
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.1)
        process.terminate()
        assert process.wait(120) != 0
    (line,) = [line for line in log.read_text("utf-8").splitlines() if line.startswith("fine_tune.py: ")]
    step = int(line.split()[-1])
    assert "the same command goes on after step" in line and step > 4
    assert damage(output.with_name("model.unfinished") / f"checkpoint-{step}") == ""
    said, _ = launch(output, small, *told[4:], command=command[:-1])
    assert f"checkpoint-{step}" in said


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["distilbert", "bert", "gpt2"])
def test_defaults_learn(checkpoint, tmp_path):
    run = Run(tmp_path / "model", DOCUMENTS, checkpoint=str(ROOT / "data/models" / checkpoint)).finish()
    metrics = run.metrics
    print(checkpoint, {name: metrics[name]["macro_f1"] for name in ("test", "majority_class")}, metrics["measured"])
    assert metrics["test"]["macro_f1"] > 0.7
