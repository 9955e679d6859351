"""Several labels a text, pairs and scores: how they are found in a table, measured, trained, resumed and loaded."""

import csv
import json
from pathlib import Path

import evaluate_model
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fine_tune_runs import MODEL, Run, documents, fine_tune, refused, same_model, write_csv

from helpers.profiles import ROOT
from takehome.checkpoints import damage
from takehome.classifier import begin_head, build_model
from takehome.errors import InputError
from takehome.tables import read_table
from takehome.tasks import make_task
from takehome.tasks.labels import Labels, best_threshold
from takehome.tasks.scores import Scale, ranks

TEXTS = [text for text, _ in documents()[:60]]
SETS = [(), ("late",), ("late", "rude"), ("rude",), ("late", "rude", "lost"), ("lost",)]
SETS = [SETS[n % 6] for n in range(60)]
SHORT = ("--num-train-epochs=2", "--eval-steps=4", "--max-length=16")


def flags(own, yes="1", no="0"):
    return [yes if name in own else no for name in ("late", "rude", "lost")]


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def json_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


# ------------------------------------------------------------------ how labels are written

FORMS = {
    "lists in JSON lines": lambda f: json_lines(
        f / "a.jsonl", [{"text": t, "labels": list(s)} for t, s in zip(TEXTS, SETS, strict=True)]
    ),
    "lists in Parquet": lambda f: parquet(f / "a.parquet", text=TEXTS, tags=[list(s) for s in SETS]),
    "lists as Python prints them": lambda f: write_csv(
        f / "a.csv", zip(TEXTS, map(list, SETS), strict=True), ("text", "labels")
    ),
    "lists as JSON": lambda f: write_csv(
        f / "a.csv", [(t, json.dumps(s)) for t, s in zip(TEXTS, SETS, strict=True)], ("text", "labels")
    ),
    "lists as NumPy prints them": lambda f: write_csv(
        f / "a.csv",
        [(t, f"[{' '.join(map(repr, s))}]") for t, s in zip(TEXTS, SETS, strict=True)],
        ("text", "labels"),
    ),
    "a column of 0 and 1 for each label": lambda f: write_csv(
        f / "a.csv", [(t, *flags(s)) for t, s in zip(TEXTS, SETS, strict=True)], ("text", "late", "rude", "lost")
    ),
    "a column of True and False for each label": lambda f: write_csv(
        f / "a.csv",
        [(n, t, *flags(s, "True", "False")) for n, (t, s) in enumerate(zip(TEXTS, SETS, strict=True))],
        ("id", "text", "late", "rude", "lost"),
    ),
}
LABELLED = [n for n in range(60) if SETS[n]]
SEPARATED = {";": "a;b", "|": "a|b", ", ": "a, b"}


def sets_of(table) -> list[tuple[str, ...]]:
    return [tuple(n for n, yes in zip(table.labels, row["label"], strict=True) if yes) for row in table.dataset]


@pytest.mark.parametrize("form", FORMS)
def test_several_labels_are_found_however_they_are_written(form, tmp_path):
    table = read_table(FORMS[form](tmp_path), task=None)
    assert (table.task, table.labels) == ("multi-label", ["late", "lost", "rude"])
    assert sets_of(table) == [tuple(sorted(own)) for own in SETS]
    assert any("--task multi-label" in remark for remark in table.remarks)
    assert "A text has 1.33 labels on average, 10 rows none." in table.remarks


@pytest.mark.parametrize("separator", SEPARATED)
def test_labels_with_a_separator_are_several(separator, tmp_path):
    """A combination such as "MM;PR" was a class of its own."""
    rows = [(TEXTS[n], separator.join(SETS[n])) for n in LABELLED]
    path = write_csv(tmp_path / "a.csv", rows)
    table = read_table(path, task=None)
    assert table.task == "multi-label" and sets_of(table) == [tuple(sorted(SETS[n])) for n in LABELLED]
    assert f"{separator.strip()!r} separates several labels in column 'label': --task multi-label" in table.remarks[0]
    assert read_table(path, task="classification").task == "classification"
    assert read_table(path, task="multi-label").remarks == table.remarks[1:]


def test_a_list_beside_a_column_of_labels_is_not_taken_for_labels(tmp_path):
    rows = [{"text": t, "label": "ab"[n % 2], "tokens": t.split()[:3]} for n, t in enumerate(TEXTS)]
    table = read_table(json_lines(tmp_path / "a.jsonl", rows), task=None)
    assert (table.task, table.label_column) == ("classification", "label")


def test_columns_that_are_told_are_the_labels(tmp_path):
    rows = [(t, *flags(s)) for t, s in zip(TEXTS, SETS, strict=True)]
    path = write_csv(tmp_path / "a.csv", rows, ("text", "late", "rude", "lost"))
    table = read_table(path, label_column="late,rude", task="multi-label")
    assert table.labels == ["late", "rude"] and table.label_column == "late, rude"


NO_SEVERAL = {
    "names with commas": [f"{name}, {place}" for name in ("Smith", "Jones", "Frost") for place in ("Oslo", "Rome")],
    "classes with a slash": ["sci/tech", "arts/film", "sports"],
    "plain classes": ["late", "rude", "lost"],
}


@pytest.mark.parametrize("names", NO_SEVERAL)
def test_what_is_not_obviously_several_is_a_class(names, tmp_path):
    names = NO_SEVERAL[names]
    path = write_csv(tmp_path / "a.csv", [(t, names[n % len(names)]) for n, t in enumerate(TEXTS)])
    assert read_table(path, task=None).task == "classification"
    assert len(read_table(path, task=None).labels) == len(names)


def test_a_label_of_one_row_is_left_out_and_said(tmp_path):
    rows = [*zip(TEXTS, map(list, SETS), strict=True), ("A text like no other", ["late", "once"])]
    table = read_table(write_csv(tmp_path / "a.csv", rows), task=None)
    assert table.labels == ["late", "lost", "rude"]
    assert "Labels of a single row left out: once." in table.remarks


def test_labels_of_test_that_train_has_not_are_said(tmp_path):
    write_csv(tmp_path / "train.csv", zip(TEXTS, map(list, SETS), strict=True))
    write_csv(tmp_path / "test.csv", [("Another one", ["late", "new"]), ("And another", ["rude"])])
    table = read_table(tmp_path, task=None)
    assert "Labels of test that train has not, left out: new." in table.remarks
    assert [row["label"] for row in table.splits["test"]] == [[1, 0, 0], [0, 0, 1]]


PAIRS = ["sentence1 sentence2", "premise hypothesis", "text_a text_b", "question1 question2", "#1 String,#2 String"]


@pytest.mark.parametrize("names", PAIRS)
def test_pairs_are_found_by_their_names(names, tmp_path):
    names = names.split(",") if "," in names else names.split()
    rows = [(TEXTS[n], TEXTS[-n], "yes" if n % 3 else "no") for n in range(1, 30)]
    table = read_table(write_csv(tmp_path / "a.csv", rows, (*names, "label")), task=None)
    assert [table.text_column, table.pair_column] == names and table.task == "classification"
    assert [(row["text"], row["pair"]) for row in table.dataset] == [row[:2] for row in rows]
    assert table.remarks == [f"Columns {names[0]!r} and {names[1]!r} are read as a pair of texts."]


def test_pairs_that_are_told(tmp_path):
    rows = [(TEXTS[n], TEXTS[-n], "yes" if n % 3 else "no") for n in range(1, 30)]
    path = write_csv(tmp_path / "a.csv", rows, ("ours", "theirs", "label"))
    assert read_table(path, pairs=True).pair_column == "theirs"
    table = read_table(path, text_column="theirs", pair_column="ours")
    assert (table.text_column, table.pair_column) == ("theirs", "ours")
    assert read_table(path, pair_column="ours").text_column == "theirs"
    with pytest.raises(InputError, match="ours, theirs may each be the text"):
        read_table(path, task=None)
    with pytest.raises(InputError, match="no column 'mine'; give --pair-column one of"):
        read_table(path, pair_column="mine")


def test_a_pair_and_its_turned_copy_are_two(tmp_path):
    rows = [
        (TEXTS[0], TEXTS[1], "a"),
        (TEXTS[1], TEXTS[0], "b"),
        *[(TEXTS[n], TEXTS[1], "ab"[n % 2]) for n in range(2, 9)],
    ]
    table = read_table(write_csv(tmp_path / "a.csv", rows, ("sentence1", "sentence2", "label")), task=None)
    assert len(table.dataset) == 9


def test_scores_are_found_and_read_as_people_write_them(tmp_path):
    rows = [(t, f"{n / 7:.2f}".replace(".", ",")) for n, t in enumerate(TEXTS)]
    table = read_table(write_csv(tmp_path / "a.csv", rows, ("text", "score")), task=None)
    assert table.task == "regression" and table.labels == []
    assert table.dataset["label"] == pytest.approx([round(n / 7, 2) for n in range(60)])
    assert table.remarks == ["Column 'score' holds numbers with fractions: --task regression."]


def test_stars_are_classes_until_a_score_is_asked_for(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(t, n % 5 + 1) for n, t in enumerate(TEXTS)], ("text", "stars"))
    classes = read_table(path, task=None)
    assert classes.task == "classification" and "--task regression predicts a score" in classes.remarks[0]
    scores = read_table(path, task="regression")
    assert scores.dataset["label"][:6] == [1, 2, 3, 4, 5, 1]
    assert scores.remarks == ["The scores are 1 to 5: predictions lie between them too; rounded, they are stars again."]


@pytest.mark.parametrize(
    ("rows", "header", "options", "said"),
    [
        ([(t, "a") for t in TEXTS], ("text", "label"), {"task": "regression"}, "no column holds numbers"),
        ([(t, "a") for t in TEXTS], ("text", "label"), {"task": "regression", "label_column": "label"}, "no numbers"),
        ([(t, n, -n) for n, t in enumerate(TEXTS)], ("text", "a", "b"), {"task": "regression"}, "a, b may each be"),
        ([(t, "['a']") for t in TEXTS], ("text", "label"), {"task": "multi-label"}, "1 labels of two rows or more"),
        ([(t, "[1]", "[2]") for t in TEXTS], ("text", "x", "z"), {"task": None}, "x, z are lists and may each be"),
        ([(t, "a") for t in TEXTS], ("text", "label"), {"pairs": True}, "which two columns are the pair?"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line(rows, header, options, said, tmp_path):
    path = write_csv(tmp_path / "a.csv", rows, header)
    with pytest.raises(InputError) as caught:
        read_table(path, **options)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)


# ------------------------------------------------------------------ how good


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        answers, values = rng.random(50) < 0.3, rng.random(50).round(1)
        threshold, f1 = best_threshold(answers, values)

        def score(limit, answers=answers, values=values):
            guesses = values >= limit
            return 2 * (guesses & answers).sum() / max(1, guesses.sum() + answers.sum())

        assert score(threshold) == pytest.approx(f1)
        assert f1 == pytest.approx(max(score(limit) for limit in np.arange(0, 1.05, 0.05)))


def test_metrics_of_labels_are_scikit_learns():
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(1)
    answers = (rng.random((200, 3)) < [0.5, 0.2, 0.1]).astype(float)
    outputs = rng.normal(size=(200, 3)) + 2 * answers
    task = make_task("multi-label", ["a", "b", "c"])
    task.choose_thresholds(answers, outputs)
    scores, guesses = task.measure(answers, outputs), task.decide(outputs)
    assert scores.micro_f1 == pytest.approx(f1_score(answers, guesses, average="micro"))
    assert scores.macro_f1 == pytest.approx(f1_score(answers, guesses, average="macro"))
    assert scores.mean_average_precision == pytest.approx(average_precision_score(answers, outputs, average="macro"))
    assert scores.macro_f1 >= make_task("multi-label", ["a", "b", "c"]).measure(answers, outputs).macro_f1
    assert scores.exact_match == (guesses == answers).all(1).mean()


def test_metrics_of_scores_are_scikit_learns_and_scipys():
    from scipy.stats import pearsonr, rankdata, spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    rng = np.random.default_rng(2)
    answers = rng.integers(1, 6, 100).astype(float)
    outputs = answers + rng.normal(size=100)
    scores = make_task("regression", [], Scale(3, 1.4, 1, 5, True)).measure(answers, outputs)
    assert scores.rmse == pytest.approx(root_mean_squared_error(answers, outputs))
    assert scores.mae == pytest.approx(mean_absolute_error(answers, outputs))
    assert scores.r2 == pytest.approx(r2_score(answers, outputs))
    assert scores.pearson == pytest.approx(pearsonr(answers, outputs).statistic)
    assert scores.spearman == pytest.approx(spearmanr(answers, outputs).statistic)
    assert scores.rounded_accuracy == (outputs.round() == answers).mean()
    assert ranks(answers).tolist() == rankdata(answers).tolist()
    assert make_task("regression", []).measure(answers, np.full(100, 2.0)).spearman == 0


# ------------------------------------------------------------------ whole runs


def write_data(task: str, folder: Path) -> Path:
    """A folder with train.csv and test.csv for a task."""
    rows = documents()[::4][:100]
    names = sorted({label for _, label in rows})
    made = {
        "multi-label": lambda n: (rows[n][0], f"{rows[n][1]};{names[n % 6]}" if n % 2 else rows[n][1]),
        "pairs": lambda n: (rows[n][0], rows[n - 1][0], "same" if rows[n][1] == rows[n - 1][1] else "other"),
        "regression": lambda n: (rows[n][0], names.index(rows[n][1]) + n % 10 / 10),
    }
    header = ("sentence1", "sentence2", "label") if task == "pairs" else ("text", "label")
    folder.mkdir(parents=True)
    write_csv(folder / "train.csv", [made[task](n) for n in range(70)], header)
    write_csv(folder / "test.csv", [made[task](n) for n in range(70, 100)], header)
    return folder


TASKS = ["multi-label", "pairs", "regression"]


@pytest.fixture(scope="module", params=TASKS)
def run(request, tmp_path_factory) -> Run:
    """A finished run of a task."""
    folder = tmp_path_factory.mktemp("task")
    run = Run(folder / "model", write_data(request.param, folder / "data"), *SHORT, pictures=True).finish()
    run.task, run.data = request.param, folder / "data"
    return run


def test_it_says_the_task_and_the_baselines(run):
    found = {"multi-label": "multi-label", "pairs": "classification", "regression": "regression"}[run.task]
    before = run.text[: run.text.index("step 4")]
    assert f"task        {found}" in before and "GB for the longest step" in before
    metrics = run.metrics
    shown = make_task(found, []).shown
    assert set(metrics["baselines"]) == {next(iter(metrics["baselines"])), "words counted (TF-IDF, linear)"}
    for own in metrics["baselines"].values():
        assert own.keys() == shown.keys() and all(np.isfinite(value) for value in own.values())
    assert "Traceback" not in run.text and "Warning" not in run.text
    assert metrics["validation"]["step"] in (4, 8)


def test_the_card_and_the_pictures(run):
    import yaml

    card = (run.output / "README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification"
    task = make_task(run.metrics["data"]["task"], [])
    index = front["model-index"][0]["results"][0]["metrics"]
    assert [entry["name"] for entry in index] == list(task.shown.values())
    assert [entry["value"] for entry in index] == pytest.approx(
        [run.metrics["test"][name] for name in task.shown], abs=1e-4
    )
    assert "words counted (TF-IDF, linear)" in card and "\n\n\n\n" not in card
    for picture in [line.split("](")[1][:-1] for line in card.splitlines() if line.startswith("![")]:
        assert (run.output / picture).read_bytes().startswith(b"\x89PNG")


def test_a_pipeline_gives_what_was_measured(run):
    from transformers import pipeline
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with (run.data / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    classify = pipeline("text-classification", str(run.output), device="cpu")
    texts = [{"text": row[0], "text_pair": row[1]} if run.task == "pairs" else row[0] for row in rows]
    found = [classify(text, truncation=True, top_k=None) for text in texts]
    test = run.metrics["test"]
    if run.task == "regression":
        errors = [one[0]["score"] - float(row[-1]) for one, row in zip(found, rows, strict=True)]
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(test["rmse"], rel=1e-3)
    elif run.task == "pairs":
        right = [one[0]["label"] == row[-1] for one, row in zip(found, rows, strict=True)]
        assert np.mean(right) == pytest.approx(test["accuracy"])
    else:
        limits = dict(zip(classify.model.config.id2label.values(), classify.model.config.thresholds, strict=True))
        sets = [{own["label"] for own in one if own["score"] >= limits[own["label"]]} for one in found]
        right = [own == set(row[-1].split(";")) for own, row in zip(sets, rows, strict=True)]
        assert np.mean(right) == pytest.approx(test["exact_match"])


def test_evaluate_model_measures_the_same_and_labels(run, tmp_path, capsys):
    told = ["--model", str(run.output), "--data", str(run.data / "test.csv"), "--output-dir"]
    assert evaluate_model.main([*told, str(tmp_path / "out")]) == 0, capsys.readouterr().err
    measured = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    for name in make_task(run.metrics["data"]["task"], []).shown:
        assert measured[name] == pytest.approx(run.metrics["test"][name], rel=1e-3, abs=1e-3)
    assert (tmp_path / "out/mistakes.csv").exists()

    with (run.data / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    bare = write_csv(tmp_path / "bare.csv", [row[:-1] for row in rows[1:]], rows[0][:-1])
    assert evaluate_model.main([*told[:2], "--data", str(bare), "--output-dir", str(tmp_path / "bare")]) == 0
    with (tmp_path / "bare/predictions.csv").open(encoding="utf-8-sig") as file:
        found = list(csv.DictReader(file))
    assert [row["row"] for row in found] == [str(n) for n in range(2, 32)]
    assert all(row["predicted"] or run.task == "multi-label" for row in found)
    assert not (tmp_path / "bare/metrics.json").exists()


def test_killed_and_resumed_it_is_the_same_model(run, tmp_path):
    if run.task == "pairs":
        pytest.skip("a class for a pair goes on as a class for a text does: test_fine_tune_stops.py")
    again = Run(tmp_path / "model", run.data, *SHORT, slow=0.2)
    again.wait(until=lambda: damage(again.work / "checkpoint-4") == "")
    again.process.kill()
    again.process.join()
    resumed = Run(again.output, run.data, *SHORT).finish()
    assert "checkpoint-4" in resumed.text
    assert same_model(resumed, run)


def test_another_task_is_another_run(tmp_path, capsys):
    data = write_data("multi-label", tmp_path / "data") / "train.csv"
    told = ["--data", str(data), "--output-dir", str(tmp_path / "model"), "--checkpoint", MODEL]
    assert "--class-weights balanced: there are no classes in multi-label" in refused(
        capsys, *told, "--class-weights=balanced", "--max-length=16"
    )
    assert "no column holds numbers" in refused(capsys, *told, "--task=regression")
    assert "invalid choice: 'translation'" in refused(capsys, *told, "--task=translation")


@pytest.mark.parametrize("name", ["gpt2", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_head_without_a_bias_learns_a_score_and_lora_too(name, tmp_path):
    """GPT-2's head cannot be shifted; an adapter is merged before the scale goes into the head."""
    data = write_data("regression", tmp_path / "data")
    checkpoint, more = (str(ROOT / "data/models/gpt2"), ()) if name == "gpt2" else (MODEL, ("--lora",))
    run = Run(tmp_path / "model", data, "--max-steps=4", "--max-length=16", *more, checkpoint=checkpoint).finish()
    told = ["--model", str(run.output), "--data", str(data / "test.csv"), "--output-dir", str(tmp_path / "out")]
    assert evaluate_model.main(told) == 0
    measured = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert measured["rmse"] == pytest.approx(run.metrics["test"]["rmse"], rel=1e-3)


@pytest.mark.parametrize("name", ["multi-label", "regression"])
def test_the_loss_teaches_what_the_metric_measures(name):
    """70 steps on sentences whose words decide the answer, and sentences of the same kind that were not seen."""
    import torch

    from takehome.classifier import build_model
    from takehome.tokenizer import load_tokenizer

    rng = np.random.default_rng(1)
    says = {"late": "The bill came too late.", "rude": "The doctor was rude to me."}
    given = [[own for own in says if rng.random() < 0.5] for _ in range(240)]
    texts = [" ".join([*(says[own] for own in row), "The train is here."]) for row in given]
    sets = [[float(own in row) for own in says] for row in given]
    answers = np.array(sets if name == "multi-label" else [10 + 3 * late - 2 * rude for late, rude in sets])
    task = make_task(name, list(says) if name == "multi-label" else [], Scale(10.5, 1.8, 8, 13, True))
    torch.manual_seed(0)
    tokenizer = load_tokenizer(MODEL).tokenizer
    model = build_model(MODEL, None, task, tokenizer.pad_token_id).model
    encoded = task.encode(tokenizer, {"text": texts, "label": answers.tolist()}, 24)
    rows = [{key: values[n] for key, values in encoded.items()} for n in range(240)]
    optimizer, collate, loss = torch.optim.AdamW(model.parameters(), lr=1e-3), task.collator(tokenizer), task.loss(None)
    for _ in range(70):
        batch = collate([rows[n] for n in rng.integers(0, 200, 16)])
        labels = batch.pop("labels")
        loss(model(**batch), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    batch = collate([{"input_ids": row["input_ids"]} for row in rows[200:]])
    with torch.inference_mode():
        scores = task.measure(answers[200:], task.outputs(model.eval()(**batch).logits.numpy()))
    assert getattr(scores, task.best) > 0.9


@pytest.mark.parametrize("kept", [False, True], ids=["new head", "head of the checkpoint"])
def test_a_new_head_for_several_labels_begins_at_their_shares(kept, tmp_path):
    import torch
    from datasets import Dataset

    task, checkpoint = make_task("multi-label", ["late", "rude", "lost"]), MODEL
    if kept:
        saved = build_model(MODEL, None, task, 0).model
        saved.classifier.bias.data.fill_(0.25)
        saved.save_pretrained(checkpoint := str(tmp_path / "before"))
    loaded = build_model(checkpoint, None, task, 0)
    begin_head(loaded, task.begin(Dataset.from_dict({"labels": [[0.0, float(n < 9), 1.0] for n in range(98)]})))
    begins = loaded.model.classifier.bias.sigmoid()
    assert torch.allclose(begins, torch.full((3,), 0.25).sigmoid() if kept else torch.tensor([0.01, 0.1, 0.99]))


def test_a_new_head_for_entities_begins_at_the_shares_of_the_tags():
    import torch
    from datasets import Dataset

    task = make_task("tokens", ["O", "B-PER", "I-PER"])
    loaded = build_model(MODEL, None, task, 0)
    begin_head(loaded, task.begin(Dataset.from_dict({"labels": [[-100, 0, 0, 1, -100], [0] * 14]})))
    assert torch.allclose(loaded.model.classifier.bias.softmax(0), torch.tensor([0.85, 0.1, 0.05]))


def letters(folder: Path, seed: int) -> Path:
    """A table of 300 letters about one to three of twelve complaints, beside sentences that say nothing."""
    rng = np.random.default_rng(seed)
    complaints = {
        "late": ["it came two weeks late", "I waited and waited for the parcel"],
        "torn": ["the box was torn", "the wrapping had a hole"],
        "loud": ["it hums all night", "the fan is far too loud"],
        "dear": ["it costs too much", "the price went up again"],
        "rude": ["the man on the telephone shouted", "nobody was polite to me"],
        "small": ["it is two sizes too small", "it does not fit my arm"],
        "bill": ["the sum on the bill is wrong", "you took the money twice"],
        "lost": ["you lost my letter", "my order is nowhere"],
        "colour": ["it is green and not blue", "the paint comes off"],
        "smell": ["it smells of smoke", "there is a smell of glue"],
        "page": ["page nine is missing in the booklet", "the drawing shows another model"],
        "login": ["your website does not know my password", "I cannot open my account"],
    }
    idle = [
        "Good morning.",
        "I write to you again.",
        "I am a customer since spring.",
        "Please answer soon.",
        "Regards.",
    ]
    rows = []
    for _ in range(300):
        own = rng.choice(list(complaints), size=rng.integers(1, 4), replace=False)
        parts = [*(f"{rng.choice(complaints[name])}." for name in own), *rng.choice(idle, size=2, replace=False)]
        rows.append((" ".join(rng.permutation(parts)), ";".join(own)))
    return write_csv(folder / f"letters-{seed}.csv", rows, ("text", "labels"))


@pytest.mark.slow
def test_few_rows_with_several_labels_are_learned(tmp_path, monkeypatch):
    """Beside the same runs with a head that begins at random, as it does elsewhere."""
    scores = {}
    for begin in ("shares", "random"):
        if begin == "random":
            monkeypatch.setattr(Labels, "begin", lambda *_: None)
        for seed in range(3):
            told = ["--data", str(letters(tmp_path, seed)), "--checkpoint", MODEL, "--use-cpu", f"--seed={seed}"]
            output = tmp_path / f"{begin}-{seed}"
            assert fine_tune.main([*told, "--output-dir", str(output)]) == 0
            test = json.loads((output / "metrics.json").read_text("utf-8"))["test"]
            scores.setdefault(begin, []).append((test["micro_f1"], test["mean_average_precision"]))
    print(scores)
    for (f1, precision), (f1_before, precision_before) in zip(scores["shares"], scores["random"], strict=True):
        assert f1 > f1_before + 0.3
        assert precision > precision_before + 0.3
