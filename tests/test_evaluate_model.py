"""scripts/evaluate_model.py: its figures are scikit-learn's, its files are whole and safe, and bad input is refused."""

import csv
import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path

import datasets
import evaluate_model as script
import numpy as np
import pytest
import warm

from takehome import metrics as measures
from takehome import predictions, windows
from takehome.checkpoints import begin, damage, finish, read_marker

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "evaluate_model.py"
CLASSES = ["financial", "legal", "medical", "news", "personal", "technical"]


def documents():
    with (ROOT / "data" / "documents.csv").open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def read_csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier of documents whose head alone was trained, on 240 of them: right more often than not."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    place = ROOT / "data" / "models" / "distilbert"
    tokenizer = AutoTokenizer.from_pretrained(place)
    names = dict(enumerate(CLASSES))
    classifier = AutoModelForSequenceClassification.from_pretrained(place, num_labels=len(CLASSES), id2label=names)
    rows = documents()[:240]
    batch = tokenizer([text for text, _ in rows], padding=True, truncation=True, return_tensors="pt")
    labels = torch.tensor([CLASSES.index(label) for _, label in rows])
    with torch.no_grad():
        hidden = classifier.distilbert(**batch).last_hidden_state[:, 0]
    head = torch.nn.Sequential(classifier.pre_classifier, torch.nn.ReLU(), classifier.classifier)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(150):
        torch.nn.functional.cross_entropy(head(hidden), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("model")
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures are made and their files are there, but drawn only once, in `evaluated`."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())


@pytest.fixture(scope="module")
def evaluated(model, tmp_path_factory):
    """The directory that the program wrote for 200 other documents, and the documents."""
    folder = tmp_path_factory.mktemp("evaluated")
    rows = documents()[240:440]
    data = write_csv(folder / "test.csv", rows)
    assert run(model, data, folder / "out", "--per-device-eval-batch-size", 16) == 0
    return folder / "out", rows


def written(output):
    return sorted(name for name in os.listdir(output) if not name.startswith("."))


def run(model, data, output, *more):
    return script.main(["--model", str(model), "--data", str(data), "--output-dir", str(output), *map(str, more)])


def test_figures_agree_with_a_pipeline_and_scikit_learn(model, evaluated):
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
    from transformers import pipeline

    output, rows = evaluated
    labels = [label for _, label in rows]
    classify = pipeline("text-classification", model=str(model), device="cpu")
    answers = classify([text for text, _ in rows], truncation=True, batch_size=8)
    predicted, confidence = [a["label"] for a in answers], np.array([a["score"] for a in answers])

    metrics = json.loads((output / "metrics.json").read_text("utf-8"))
    assert metrics["n"] == 200
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["accuracy"] > metrics["majority_class_accuracy"] + 0.1
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    each = dict(zip(CLASSES, f1_score(labels, predicted, average=None, labels=CLASSES), strict=True))
    assert {name: row["f1"] for name, row in metrics["per_class"].items()} == pytest.approx(each)
    assert metrics["confusion_matrix"]["counts"] == confusion_matrix(labels, predicted, labels=CLASSES).tolist()
    right = np.array(labels) == np.array(predicted)
    edges = np.linspace(0, 1, 16)
    inside = [(confidence > low) & (confidence <= high) for low, high in itertools.pairwise(edges)]
    gaps = [abs(right[i].mean() - confidence[i].mean()) * i.mean() for i in inside if i.any()]
    assert metrics["expected_calibration_error"] == pytest.approx(sum(gaps), abs=1e-4)

    mistakes = read_csv(output / "mistakes.csv")
    assert list(mistakes[0]) == ["row", "text", "label", "predicted", "confidence"]
    expected = sorted(np.flatnonzero(~right), key=lambda n: -confidence[n])
    assert [float(m["confidence"]) for m in mistakes] == pytest.approx([confidence[n] for n in expected], abs=1e-3)
    assert {(int(m["row"]), m["text"], m["label"], m["predicted"]) for m in mistakes} == {
        (n + 2, rows[n][0], labels[n], predicted[n]) for n in expected
    }


def test_suspicious_rows_begin_with_planted_labels(model, tmp_path):
    rows = documents()[440:560]
    planted = range(0, 120, 10)
    wrong = {n: CLASSES[(CLASSES.index(rows[n][1]) + 3) % 6] for n in planted}
    data = write_csv(tmp_path / "a.csv", [(text, wrong.get(n, label)) for n, (text, label) in enumerate(rows)])
    assert run(model, data, tmp_path / "out") == 0
    ranked = [int(row["row"]) - 2 for row in read_csv(tmp_path / "out" / "suspicious.csv")]
    assert sorted(ranked) == list(range(120))
    mean_rank = np.mean([ranked.index(n) for n in planted])
    assert mean_rank < 40, "wrong labels are found sooner than by chance, which would be 60"


def test_calibration_error_by_hand():
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.35]), np.array([True, False, True, False])
    assert measures.calibration_error(confidence, correct) == pytest.approx((0.9 + 0.45 + 0.35) / 4)
    assert measures.calibration_error(np.ones(3), np.ones(3, bool)) == 0


def read_scores(output):
    """What metrics.json holds, and the same as an object."""
    metrics = json.loads((output / "metrics.json").read_text("utf-8"))
    each = {name: measures.ClassScores(**row) for name, row in metrics["per_class"].items()}
    matrix = measures.ConfusionMatrix(**metrics["confusion_matrix"])
    own = {key: value for key, value in metrics.items() if key != "max_length"}
    return metrics, measures.Scores(**own | {"per_class": each, "confusion_matrix": matrix})


def test_the_report_and_the_picture(evaluated):
    output, _ = evaluated
    metrics, scores = read_scores(output)
    shown = measures.report(scores)
    assert f"accuracy {metrics['accuracy']:.4f}" in shown and all(name in shown for name in CLASSES)
    assert (output / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    figure = measures.draw_confusion_matrix(scores)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == CLASSES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "label of the file")
    counts = [int(text.get_text()) for text in axes.texts]
    assert counts == np.ravel(metrics["confusion_matrix"]["counts"]).tolist()


def test_names_of_classes_cannot_write_to_the_terminal():
    names = ["plain", "\x1b[31mred\x07"]
    scores = measures.measure(np.array([0, 1, 1]), np.array([0, 0, 1]), np.full(3, 0.9), names)
    assert "\x1b" not in measures.report(scores) and "\\x1b[31mred" in measures.report(scores)


def test_77_classes_have_labels_that_do_not_overlap():
    names = [f"a rather long name of intent number {n}" for n in range(77)]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 77, 2000)
    metrics = measures.measure(labels, np.where(rng.random(2000) < 0.8, labels, 0), np.full(2000, 0.8), names)
    figure = measures.draw_confusion_matrix(metrics)
    figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 77
    assert all(above.y0 >= below.y1 - 1 or below.y0 >= above.y1 - 1 for above, below in itertools.pairwise(boxes))


def test_a_file_without_labels_gets_predictions(model, tmp_path, capsys):
    rows = documents()[240:260]
    data = write_csv(tmp_path / "new.csv", [(n, text) for n, (text, _) in enumerate(rows)] + [(20, "")], ("id", "body"))
    assert run(model, data, tmp_path / "out") == 0
    assert written(tmp_path / "out") == ["predictions.csv"]
    found = read_csv(tmp_path / "out" / "predictions.csv")
    assert [int(row["row"]) for row in found] == list(range(2, 22))
    assert [row["text"] for row in found] == [text for text, _ in rows]
    assert {row["predicted"] for row in found} <= set(CLASSES)
    assert "1 row without a text left out (row 22)" in capsys.readouterr().out
    other = write_csv(tmp_path / "other.csv", [(text, "inbox") for text, _ in rows], ("text", "category"))
    assert run(model, other, tmp_path / "more") == 2 and run(model, other, tmp_path / "more", "--no-labels") == 0
    assert read_csv(tmp_path / "more" / "predictions.csv") == found


def test_formulas_are_written_as_texts(model, tmp_path):
    risky = [
        '=HYPERLINK("http://example.org")',
        "+1 for the doctor",
        "-2 for the bill",
        "@bill is late",
        "fine, it is late",
    ]
    data = write_csv(tmp_path / "new.csv", [(text, CLASSES[n]) for n, text in enumerate(risky)])
    assert run(model, data, tmp_path / "out") == 0
    for name in ("mistakes.csv", "suspicious.csv"):
        for row in read_csv(tmp_path / "out" / name):
            assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
    texts = {row["text"] for row in read_csv(tmp_path / "out" / "suspicious.csv")}
    assert texts == {*(f"'{text}" for text in risky[:4]), risky[4]}
    assert [predictions.spreadsheet_safe(cell) for cell in ("-1", "2.5", 7, "a=b")] == ["-1", "2.5", 7, "a=b"]


def test_labels_are_matched_by_name_and_not_by_number(model, tmp_path):
    rows = documents()[240:300]
    same = write_csv(tmp_path / "a.csv", [(text, f" {label.upper()}") for text, label in rows if label != "financial"])
    plain = write_csv(tmp_path / "b.csv", [row for row in rows if row[1] != "financial"])
    assert run(model, same, tmp_path / "one") == run(model, plain, tmp_path / "two") == 0
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text("utf-8")) for name in ("one", "two"))
    assert one["accuracy"] == two["accuracy"] and one["per_class"]["financial"]["n"] == 0


def test_texts_are_read_as_far_as_in_training(model, tmp_path):
    data = write_csv(tmp_path / "a.csv", documents()[:20])
    trained = shutil.copytree(model, tmp_path / "trained")
    (trained / "metrics.json").write_text('{"settings": {"max_length": 24}}', encoding="utf-8")
    lengths = []
    for name, place, more in (("one", trained, ()), ("two", model, ()), ("three", trained, ("--max-length", 40))):
        assert run(place, data, tmp_path / name, *more) == 0
        lengths.append(json.loads((tmp_path / name / "metrics.json").read_text("utf-8"))["max_length"])
    assert lengths == [24, 256, 40]


def test_texts_that_are_cut_are_said(model, tmp_path, capsys):
    data = write_csv(tmp_path / "a.csv", documents()[:39])
    for length, said in ((24, "39 of 39 texts are longer than the 24 tokens that are read, and cut there"), (256, "")):
        assert run(model, data, tmp_path / f"{length}", "--max-length", length) == 0
        out = capsys.readouterr()
        assert said in out.out if said else "texts are longer" not in out.out
        assert "longer than the specified maximum" not in out.err


def test_long_texts_vote_in_windows(model, tmp_path, capsys):
    """A text of five copies of a document gets the document's label, wherever it begins."""
    rows = documents()[:12]
    long = [(" ".join([text] * 5), label) for text, label in rows]
    data, plain = write_csv(tmp_path / "a.csv", long), write_csv(tmp_path / "b.csv", rows)
    assert run(model, data, tmp_path / "long", "--windows", "--max-length", 128) == 0
    assert "12 texts read in 2 windows or more, at most" in (out := capsys.readouterr().out)
    assert "texts are longer" not in out
    assert run(model, plain, tmp_path / "plain", "--max-length", 128) == 0
    long, short = (json.loads((tmp_path / name / "metrics.json").read_text("utf-8")) for name in ("long", "plain"))
    assert abs(long["accuracy"] - short["accuracy"]) < 0.35


def test_windows_cover_a_text_and_vote_with_their_mean(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = ["One two three four five six seven eight nine ten " * 8, "A short one", ""]
    parts, owner = windows.cut_into_windows(datasets.Dataset.from_dict({"text": texts}), tokenizer, 32)
    assert owner.tolist()[-2:] == [1, 2] and (owner == 0).sum() > 2
    assert parts["text"][-2:] == ["A short one", ""]
    assert texts[0].startswith(parts["text"][0]) and texts[0].strip().endswith(parts["text"][list(owner).index(1) - 1])
    assert all(len(ids) <= 32 for ids in tokenizer(list(parts["text"]))["input_ids"])
    outputs = np.array([[0.0, 2.0], [4.0, 0.0], [1.0, 0.0]])
    means, said = windows.vote(outputs, np.array([0, 0, 1]), 2)
    assert means.tolist() == [[2.0, 1.0], [1.0, 0.0]]
    assert said == "1 text read in 2 windows or more, at most 2; of 1 the windows do not agree on the likeliest label"


def test_of_a_directory_the_test_split_is_taken(model, tmp_path, capsys):
    write_csv(tmp_path / "train.csv", documents()[:50])
    write_csv(tmp_path / "test.csv", documents()[50:80])
    assert run(model, tmp_path, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["n"] == 30
    assert "(test)" in capsys.readouterr().out


def damaged(model, folder):
    broken = shutil.copytree(model, folder / "broken")
    weights = broken / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:1000])
    return broken


def headless(model, folder):
    return ROOT / "data" / "models" / "distilbert"


def pickled(model, folder):
    broken = shutil.copytree(model, folder / "pickled")
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    return broken


def adapter(model, folder):
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder / "adapter"


REFUSED_MODELS = {
    "no such directory": (lambda model, folder: folder / "nowhere", "nowhere: no such directory"),
    "an empty directory": (lambda model, folder: folder, "holds no config.json"),
    "damaged weights": (damaged, "model.safetensors is not a safetensors file"),
    "no head": (headless, "no trained classification head"),
    "pickled weights": (pickled, "holds no .safetensors file"),
    "an adapter": (adapter, "holds an adapter only; merge it"),
}


@pytest.mark.parametrize("case", REFUSED_MODELS)
def test_models_that_cannot_be_used(case, model, tmp_path, capsys):
    make, said = REFUSED_MODELS[case]
    data = write_csv(tmp_path / "a.csv", documents()[:20])
    assert run(make(model, tmp_path), data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("evaluate_model.py: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_changed_is_measured_and_told_so(model, tmp_path, capsys):
    shutil.copytree(model, begin(tmp_path / "model", "model"), dirs_exist_ok=True)
    finish(tmp_path / "model")
    data = write_csv(tmp_path / "a.csv", documents()[:20])
    assert run(tmp_path / "model", data, tmp_path / "out") == 0
    assert "not as it was written" not in capsys.readouterr().out
    with (tmp_path / "model" / "config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert run(tmp_path / "model", data, tmp_path / "out") == 0
    assert "model is not as it was written: config.json has" in capsys.readouterr().out


def test_data_that_cannot_be_used(model, tmp_path, capsys):
    assert run(model, tmp_path / "nowhere.csv", tmp_path / "out") == 2
    assert "nowhere.csv: no such file" in capsys.readouterr().err
    data = write_csv(tmp_path / "a.csv", [*documents()[:20], ("A poem about the sea", "poetry")])
    assert run(model, data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "a.csv, row 22: label 'poetry'" in error and error.count("\n") == 1
    assert "poetry" in error.split("the file has")[1] and f"the model {', '.join(CLASSES)}" in error
    assert run(model, data, tmp_path / "out", "--label-column", "verdict") == 2
    assert "no column 'verdict'; give --label-column one of text, label" in capsys.readouterr().err
    assert run(model, data, tmp_path / "out", "--max-length", 100_000) == 2
    assert "--max-length 100000: this model takes 256 tokens" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def listing(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_is_not_its_own_stays(model, tmp_path, capsys):
    """A file, a model, a folder of somebody, results that somebody worked on: named, and as they were."""
    data = write_csv(tmp_path / "a.csv", documents()[:20])
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "metrics.json").write_text("mine", encoding="utf-8")
    shutil.copytree(model, tmp_path / "model")
    for name in ("added", "changed", "free"):
        assert run(model, data, tmp_path / name) == 0
    (tmp_path / "added" / "notes.txt").write_text("mine", encoding="utf-8")
    with (tmp_path / "changed" / "mistakes.csv").open("a", encoding="utf-8") as file:
        file.write("mine")
    before = listing(tmp_path)
    for name, said in (
        ("file", "is a file"),
        ("folder", "holds other things"),
        ("model", "holds other things"),
        ("added", "notes.txt"),
        ("changed", "mistakes.csv"),
    ):
        capsys.readouterr()
        assert run(model, data, tmp_path / name) == 2
        assert said in capsys.readouterr().err and listing(tmp_path) == before
    assert run(model, data, tmp_path / "free", "--no-labels") == 0  # its own results are replaced as a whole
    assert written(tmp_path / "free") == ["predictions.csv"]
    assert read_marker(tmp_path / "free").kind == "evaluation" and not damage(tmp_path / "free")


@pytest.mark.parametrize(
    "option",
    ["--max-length=0", "--per-device-eval-batch-size=0", "--max-length=x", "--output=x", "--encoding=klingon"],
)
def test_options_out_of_range(option, model, tmp_path, capsys):
    data = write_csv(tmp_path / "a.csv", documents()[:6])
    assert run(model, data, tmp_path / "out", option) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and option.partition("=")[0] in error


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("part", ["predict", "draw_confusion_matrix"])
def test_what_is_stopped_leaves_nothing(part, stop, model, tmp_path, capsys, monkeypatch):
    def failing(*_):
        raise stop

    data = write_csv(tmp_path / "a.csv", documents()[:20])
    monkeypatch.setattr(script, part, failing)
    assert run(model, data, tmp_path / "out") == (130 if stop is KeyboardInterrupt else 2)
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.splitlines()[-1].startswith("evaluate_model.py: ")


def test_from_the_command_line(model, tmp_path):
    data = write_csv(tmp_path / "a.csv", documents()[:30])
    words = ["--model", model, "--data", data, "--output-dir", "out"]
    done = warm.run_program(SCRIPT, *words, folder=tmp_path)
    assert done.status == 0, done.output
    assert written(tmp_path / "out") == ["confusion_matrix.png", "metrics.json", "mistakes.csv", "suspicious.csv"]
    assert "macro-F1" in done.output and "wrote confusion_matrix.png, metrics.json" in done.output
    assert "Warning" not in done.output and "100%" in done.output
