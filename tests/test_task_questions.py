"""Questions about texts: read however they are written, cut into windows, scored, trained, resumed, answered."""

import csv
import json
import random
from pathlib import Path

import evaluate_model
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fine_tune_runs import Run, refused, same_model, write_csv
from small_models import write_small_model

from helpers.profiles import ROOT
from takehome.checkpoints import damage
from takehome.errors import InputError
from takehome.reading import ANSWERS, Reading, answer_tokens, best_spans, best_windows, cut
from takehome.tables import read_table
from takehome.tasks import make_task
from takehome.tasks.questions import KINDS, closest_sentence, mistake_of
from takehome.texts import divide
from takehome.tokenizer import load_tokenizer

TEXT = "Ada Hill built the mill in 1890. “Too late”, said Bo Frost."
ASKED = [
    ("Who built the mill?", "Ada Hill"),
    ("When was it built?", "1890"),
    ("Why?", None),
    ("Who spoke?", "Bo Frost"),
]


def answers_of(answer, context=TEXT):
    return {"text": [answer], "answer_start": [context.index(answer)]} if answer else {"text": [], "answer_start": []}


ROWS = [{"id": str(n), "context": TEXT, "question": q, "answers": answers_of(a)} for n, (q, a) in enumerate(ASKED)]
ANSWERED = [row for row in ROWS if row["answers"]["text"]]


def squad(rows=ROWS, version="v2.0", first="version"):
    """SQuAD's JSON as it is downloaded."""
    asked = []
    for row in rows:
        own = [{"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]
        more = {"is_impossible": not own, "plausible_answers": [{"text": "mill", "answer_start": 19}] * (not own)}
        asked.append(
            {"id": row["id"], "question": row["question"], "answers": own} | (more if version == "v2.0" else {})
        )
    article = {"title": "Mills", "paragraphs": [{"context": TEXT, "qas": asked}]}
    whole = {"version": version, "data": [article]}
    return whole if first == "version" else dict(reversed(whole.items()))


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def lines(rows) -> str:
    return "\n".join(map(json.dumps, rows))


def in_a_table(path: Path, show, rows=ROWS) -> Path:
    header = ("question", "context", "answers")
    return write_csv(path, [(r["question"], r["context"], show(r["answers"])) for r in rows], header)


def numpy_text(answers) -> str:
    """As pandas writes a data set's column into a CSV."""
    texts, starts = f"array({answers['text']!r}, dtype=object)", f"array({answers['answer_start']!r}, dtype=int32)"
    return f"{{'text': {texts}, 'answer_start': {starts}}}"


def listed(row):
    return [{"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]


def with_place(answers):
    return [answers["text"][0], answers["answer_start"][0]] if answers["text"] else ["", ""]


FORMS = {
    "SQuAD 2.0": lambda f: put(f / "dev-v2.0.json", json.dumps(squad())),
    "SQuAD 2.0, data first": lambda f: put(f / "dev-v2.0.json", json.dumps(squad(first="data"))),
    "SQuAD 2.0 on many lines": lambda f: put(f / "dev.json", json.dumps(squad(), indent=2)),
    "JSON lines": lambda f: put(f / "a.jsonl", lines(ROWS)),
    "lists of answers": lambda f: put(f / "a.jsonl", lines({**r, "answers": listed(r)} for r in ROWS)),
    "texts only": lambda f: put(f / "a.jsonl", lines({**r, "answers": r["answers"]["text"]} for r in ROWS)),
    "Parquet": lambda f: pq.write_table(pa.Table.from_pylist(ROWS), f / "a.parquet") or f / "a.parquet",
    "Python's text": lambda f: in_a_table(f / "a.csv", str),
    "JSON's text": lambda f: in_a_table(f / "a.csv", json.dumps),
    "NumPy's text": lambda f: in_a_table(f / "a.csv", numpy_text),
    "answer and answer_start": lambda f: write_csv(
        f / "a.csv",
        [(r["context"], r["question"], *with_place(r["answers"])) for r in ROWS],
        ("context", "question", "answer", "answer_start"),
    ),
    "the answer alone": lambda f: write_csv(
        f / "a.csv",
        [(r["question"], r["context"], with_place(r["answers"])[0]) for r in ROWS],
        ("question", "context", "answer"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_questions_are_found_however_they_are_written(form, tmp_path):
    table = read_table(FORMS[form](tmp_path), task=None)
    assert (table.task, table.text_column, table.pair_column) == ("questions", "question", "context")
    found = [(row["question"], row["answers"], row["start"], row["context"]) for row in table.dataset]
    assert found == [(q, [a] if a else [], TEXT.index(a) if a else -1, TEXT) for q, a in ASKED]
    assert table.remarks == []


def test_squad_one_and_the_course_s_own(tmp_path):
    table = read_table(put(tmp_path / "train-v1.1.json", json.dumps(squad(ANSWERED, "1.1", "data"))), task=None)
    assert [row["answers"] for row in table.dataset] == [["Ada Hill"], ["1890"], ["Bo Frost"]]
    own = read_table(ROOT / "data/squad", task=None)
    assert (len(own.dataset), len(own.splits["test"]), own.remarks) == (7200, 600, [])


def test_what_is_no_question_with_a_marked_answer_is_not_taken_for_one(tmp_path):
    yes = [(f"Is it {n}?", f"Text {n} of many words", ("yes", "no")[n % 2]) for n in range(40)]
    for header in (("question", "passage", "answer"), ("question", "context", "answer")):
        table = read_table(write_csv(tmp_path / "a.csv", yes, header), label_column="answer", task=None, pairs=True)
        assert table.task == "classification"
    data = [{"data": f"A text of {n} words", "label": "ab"[n % 2]} for n in range(40)]
    assert read_table(put(tmp_path / "b.jsonl", lines(data)), task=None).task == "classification"


# ------------------------------------------------------------------ what is wrong with them

WRONG = [
    ({"answer_start": [3]}, "1 row with a wrong place of the answer, which stands once in the context: found there"),
    ({"text": ["Bo Hill"]}, "1 row whose answer does not stand in the context left out"),
    ({"text": ["ill"], "answer_start": [2]}, "stands in the context several times, and none of them is said"),
    ({"text": ["Frost left"], "answer_start": [52]}, "1 row whose context ends before its answer left out"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_an_answer_that_is_not_at_its_place(change, said, tmp_path):
    bad = ROWS[0] | {"id": "9", "question": "Who?", "answers": ROWS[0]["answers"] | change}
    path = put(tmp_path / "a.jsonl", lines([*ROWS, bad]))
    table = read_table(path, task="questions")
    (remark,) = table.remarks
    assert said in remark and "(row 5)" in remark
    if "found there" in said:
        assert (table.dataset[4]["answers"], table.dataset[4]["start"]) == (["Ada Hill"], 0)
    else:
        assert len(table.dataset) == 4
        kept = read_table(path, task="questions", training=False)  # it counts, whether a model can find it or not
        assert kept.dataset[4]["answers"] == change["text"] and "kept: its text alone counts" in kept.remarks[0]


def test_rows_without_a_text_repeated_rows_and_repeated_ids(tmp_path):
    again = ROWS[0] | {"answers": {"text": ["Hill"], "answer_start": [4]}}
    empty = [ROWS[0] | {"id": "7", "context": " "}, ROWS[0] | {"id": "8", "question": None}]
    table = read_table(put(tmp_path / "a.jsonl", lines([*ROWS, again, *empty, ROWS[2]])), task="questions")
    assert table.remarks == [
        "2 rows without a question or a context left out (rows 6, 7).",
        "2 rows with the question and the context of an earlier one: their answers go together (rows 5, 8).",
        "2 ids in more than one row: rows are told apart by where they stand.",
    ]
    assert table.dataset["answers"][:] == [["Ada Hill", "Hill"], ["1890"], [], ["Bo Frost"]]
    assert len(read_table(tmp_path / "a.jsonl", task="questions", training=False).dataset) == 6


def test_an_impossible_question_has_no_answer_whatever_is_written(tmp_path):
    rows = [{**row, "is_impossible": "True" if row["id"] == "1" else "False"} for row in ROWS]
    table = read_table(put(tmp_path / "a.jsonl", lines(rows)), task="questions")
    assert table.dataset["answers"][1] == [] and table.dataset["start"][1] == -1


def test_a_table_without_answers_is_read_and_halves_of_characters_too(tmp_path):
    rows = [{"question": f"{q} \ud83d", "context": TEXT} for q, _ in ASKED]
    table = read_table(put(tmp_path / "a.jsonl", lines(rows)), task="questions", labelled=None, training=False)
    assert table.label_column is None and table.dataset.column_names == ["question", "context", "row"]
    bare = squad()
    for asked in bare["data"][0]["paragraphs"][0]["qas"]:
        del asked["answers"]
    path = put(tmp_path / "b.json", json.dumps(bare))
    assert read_table(path, task="questions", labelled=None, training=False).label_column is None


def test_what_is_no_question_in_squad_s_file_is_left_out(tmp_path):
    whole = squad()
    paragraphs = whole["data"][0]["paragraphs"]
    paragraphs[0]["qas"] += ["Who?", {"id": 7}]
    paragraphs += [None, {"context": TEXT}]
    whole["data"] += [None, {"title": "no paragraphs"}]
    table = read_table(put(tmp_path / "a.json", json.dumps(whole)), task=None)
    assert len(table.dataset) == 4
    assert table.remarks == ["2 rows without a question or a context left out (rows 5, 6)."]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("asked", "context", "answers"), "no column of questions; name it with --text-column"),
        (("question", "where", "answers"), "no column of contexts; name it with --pair-column"),
        (("question", "context", "said"), "no column of answers; name it with --label-column"),
    ],
)
def test_missing_columns_are_named_and_can_be_told(names, said, tmp_path):
    path = write_csv(tmp_path / "a.csv", [(r["question"], TEXT, r["answers"]["text"][0]) for r in ANSWERED], names)
    with pytest.raises(InputError) as caught:
        read_table(path, task="questions")
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)
    told = dict(zip(("text_column", "pair_column", "label_column"), names, strict=True))
    assert len(read_table(path, task="questions", **told).dataset) == 3


def test_nothing_to_learn_from_is_one_line(tmp_path):
    path = put(tmp_path / "a.jsonl", lines([ROWS[2]]))
    with pytest.raises(InputError, match="none of the 1 rows has an answer that stands in its context"):
        read_table(path, task="questions")


def test_no_context_is_in_two_parts(tmp_path):
    rows = [
        {"question": f"Who is {n}?", "context": f"{TEXT} Notice {n // 5}.", "answers": answers_of("Ada Hill")}
        for n in range(200)
    ]
    table = read_table(put(tmp_path / "a.jsonl", lines(rows)), task=None)
    parts, _ = divide(table, 0, None, [], make_task("questions", []))
    contexts = {name: set(part.select()["context"]) for name, part in parts.items()}
    assert all(contexts.values()) and sum(map(len, contexts.values())) == 40
    put(tmp_path / "train.jsonl", lines(rows[:103])), put(tmp_path / "test.jsonl", lines(rows[103:]))
    (tmp_path / "a.jsonl").unlink()
    remarks = []
    parts, _ = divide(read_table(tmp_path, task=None), 0, None, remarks, make_task("questions", []))
    assert remarks == ["3 rows of train left out: their contexts are also in another split."]


# ------------------------------------------------------------------ windows, and back

LONG = "It rained. " + "Nobody sang, and nobody danced. " * 20 + TEXT


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(ROOT / "data/models/bert")).tokenizer


def test_windows_overlap_and_give_back_their_answers(tokenizer):
    asked = [(q * (1 + 40 * (q == "Why?")), a) for q, a in ASKED]  # one question is longer than a window
    batch = {
        "question": [q for q, _ in asked],
        "context": [LONG] * 4,
        "answers": [[a] if a else [] for _, a in asked],
        "start": [LONG.index(a) if a else -1 for _, a in asked],
    }
    windows = cut(tokenizer, batch, 64, 24)
    assert max(map(len, windows["input_ids"])) <= 64 and len(windows["owner"]) > 12
    back = {}
    for row, (start, end, first, last), piece, offsets in zip(
        *(windows[name] for name in ("owner", "labels", "piece", "offsets")), strict=True
    ):
        assert piece in LONG and len(offsets) == 2 * (last - first + 1)
        if start:
            back.setdefault(row, set()).add(piece[offsets[2 * (start - first)] : offsets[2 * (end - first) + 1]])
    assert back == {n: {a} for n, (_, a) in enumerate(ASKED) if a}


def test_what_the_windows_lose_is_said(tokenizer):
    import datasets

    task = make_task("questions", [], reading=Reading(48, 12, 12))
    batch = {"question": ["Who? " * 40, "Who?"], "context": [LONG, LONG], "answers": [["It rained"], [LONG[:300]]]}
    encoded = task.encode(tokenizer, batch | {"start": [0, 0]}, 48)
    rows = datasets.Dataset.from_dict({name: encoded[name] for name in ("owner", "labels")})
    assert task.remark_windows(rows, batch["answers"]) == [
        "1 training answer whole in no window: taken for none.",
        "1 training question cut after 28 tokens.",
    ]


@pytest.mark.parametrize(("start", "end", "right"), [(0, 2, (0, 0)), (3, 11, (1, 2)), (4, 8, (1, 2)), (8, 16, None)])
def test_an_answer_is_whole_or_not_there(start, end, right):
    assert answer_tokens(np.array([(0, 2), (3, 6), (7, 11)]), start, end) == right


def test_the_best_span_of_a_window_is_the_best_of_all_pairs():
    import torch

    torch.manual_seed(0)
    start, end = torch.randn(2, 4, 40)
    labels = torch.tensor([[0, 0, 5, 30], [0, 0, 3, 39], [0, 0, 1, 0], [0, 0, 8, 8]])
    spans = best_spans(start, end, labels, 6)
    for n, (_, _, first, last) in enumerate(labels.tolist()):
        pairs = [(a, b) for a in range(first, last + 1) for b in range(a, min(last + 1, a + 6))]
        if not pairs:
            assert spans[n, 0] < -1e8 and spans[n, 4] < -1e8
            continue
        a, b = max(pairs, key=lambda pair: start[n, pair[0]] + end[n, pair[1]])
        inside = [0, *range(first, last + 1)]
        probability = start[n, inside].softmax(0)[inside.index(a)] * end[n, inside].softmax(0)[inside.index(b)]
        right = [start[n, a] + end[n, b], a - first, b - first, start[n, 0] + end[n, 0], probability.log()]
        assert spans[n].tolist() == pytest.approx([float(value) for value in right], abs=1e-4)


def test_the_windows_of_a_question_are_read_together():
    spans = np.array([[3.0, 0, 0, 5, -1], [8, 1, 2, 2, -0.1], [1, 0, 0, 1, -2]])
    chosen, none = best_windows(spans, np.array([4, 4, 2]))
    assert chosen.tolist() == [2, 1]
    assert none == pytest.approx([0.5, 1 / (1 + np.exp(8 - 2))])


def test_the_loss_is_that_of_transformers_and_steps_add_up(tokenizer):
    """Where a text fills the window, nothing else can be marked, and no question is before it."""
    import torch
    from transformers.modeling_outputs import QuestionAnsweringModelOutput

    torch.manual_seed(0)
    start, end = torch.randn(2, 6, 20)
    labels = torch.tensor([[n, n + 2, 1, 19] for n in range(6)])
    loss = make_task("questions", []).loss(None)
    whole = loss(QuestionAnsweringModelOutput(start_logits=start, end_logits=end), labels)
    right = [torch.nn.functional.cross_entropy(x, labels[:, n]) for n, x in enumerate((start, end))]
    assert whole == pytest.approx(sum(right) / 2)
    halves = [
        loss(QuestionAnsweringModelOutput(start_logits=start[rows], end_logits=end[rows]), labels[rows], labels.numel())
        for rows in (slice(0, 3), slice(3, 6))
    ]
    assert sum(halves) == pytest.approx(whole)


# ------------------------------------------------------------------ how good


def test_scores_and_threshold_are_those_of_lesson_11_s_metric():
    evaluate = pytest.importorskip("evaluate")
    rng, words = random.Random(0), ["the", "Mill", "of", "Ada", "Hill", "1890,", "built"]

    def some(most):
        return " ".join(rng.choices(words, k=rng.randint(0, most)))

    answers = np.empty(80, object)
    answers[:] = [[] if rng.random() < 0.3 else [some(3) or "Ada", "a Hill of"] for _ in range(80)]
    outputs = np.array([(some(3), 0.5, rng.random()) for _ in range(80)], ANSWERS)
    task = make_task("questions", [])
    task.choose_thresholds(answers, outputs)
    metric = evaluate.load(str(ROOT / "data/metrics/squad"), "squad_v2")
    right = metric.compute(
        predictions=[
            {"id": str(n), "prediction_text": row["text"], "no_answer_probability": row["none"]}
            for n, row in enumerate(outputs)
        ],
        references=[
            {"id": str(n), "answers": {"text": own, "answer_start": [0] * len(own)}} for n, own in enumerate(answers)
        ],
        no_answer_threshold=task.threshold,
    )
    scores = task.measure(answers, outputs)
    assert 0 < right["best_f1_thresh"] < task.threshold < 1
    assert (100 * scores.exact, 100 * scores.f1) == (pytest.approx(right["exact"]), pytest.approx(right["f1"]))
    assert 100 * scores.per_kind["with an answer"].f1 == pytest.approx(right["HasAns_f1"])
    assert 100 * scores.per_kind["without an answer"].f1 == pytest.approx(right["NoAns_f1"])
    assert tuple(scores.mistakes) == KINDS
    assert sum(scores.mistakes.values()) == task.is_wrong(answers, outputs).sum() == round((1 - scores.exact) * 80)


def test_no_threshold_where_every_question_has_an_answer():
    task, answers = make_task("questions", []), np.empty(2, object)
    answers[:] = ["Ada"], ["Bo", "Bo Frost"]
    outputs = np.array([("Ada", 0.5, 0.99), ("Frost", 0.5, 0.2)], ANSWERS)
    task.choose_thresholds(answers, outputs)
    assert task.thresholds == [1.0] and task.final(outputs) == ["Ada", "Frost"]
    assert task.measure(answers, outputs).mistakes == {kind: int(kind == "other ends") for kind in KINDS}


@pytest.mark.parametrize(
    ("said", "answers", "kind"),
    [
        ("", [], None),
        ("", ["Ada"], "missed"),
        ("Ada", [], "invented"),
        ("the Ada.", ["ada"], None),
        ("Ada", ["Ada Hill"], "other ends"),
        ("Bo", ["Ada Hill"], "another place"),
    ],
)
def test_mistakes_by_kind(said, answers, kind):
    assert mistake_of(said, answers) == kind


def test_the_closest_sentence():
    assert closest_sentence("Who built the mill?", LONG) == "Ada Hill built the mill in 1890."
    assert closest_sentence("Why?", "one line\nand another") == "one line"


# ------------------------------------------------------------------ a whole run

SHORT = ("--num-train-epochs=2", "--eval-steps=6", "--max-length=48", "--learning-rate=3e-3")


def write_data(folder: Path, impossible: bool) -> Path:
    """Notices, four questions about each; every third notice is longer than a window, some lack a fact."""
    rng, rows = random.Random(0), []
    for number in range(40):
        name, house = f"{rng.choice(['Ada', 'Bo', 'Cleo'])} Hill", rng.choice(["Birch Hall", "Calton Mill", "Old Barn"])
        facts = {f"Who leads group {number}?": f"{name} leads it.", "Where is it?": f"It meets in {house}."}
        answers = dict(zip(facts, (name, house), strict=True))
        missing = rng.choice(list(facts)) if impossible and number % 3 == 0 else None
        shown = [fact for question, fact in facts.items() if question != missing]
        context = " ".join([f"Notice {number}.", *["Nobody sang, and nobody danced."] * (number % 3 * 5), *shown])
        for question, answer in answers.items():
            found = answers_of(None if question == missing else answer, context)
            rows.append({"question": question, "context": context, "answers": found})
    folder.mkdir()
    put(folder / "train.jsonl", lines(rows[:64]))
    put(folder / "test.jsonl", lines(rows[64:]))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("small") / "bert", "bert"))


@pytest.fixture(scope="module", params=["all with an answer", "some without"])
def run(request, small, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("questions")
    data = write_data(folder / "data", request.param == "some without")
    run = Run(folder / "model", data, *SHORT, checkpoint=small, pictures=True).finish()
    run.data, run.impossible = data, request.param == "some without"
    return run


def test_a_run_on_questions(run):
    import yaml

    before, metrics = run.text[: run.text.index("step 6")], run.metrics
    assert "task        questions" in before and "GB for the longest step" in before
    assert "in several windows" in before and metrics["data"]["windows"]["test"] > metrics["data"]["rows"]["test"]
    assert "Traceback" not in run.text and "Warning" not in run.text
    assert next(iter(metrics["baselines"])) == "no answer" and len(metrics["baselines"]) == 3
    none = metrics["test"]["per_kind"]["without an answer"]["n"]
    assert metrics["baselines"]["no answer"]["f1"] == pytest.approx(none / metrics["test"]["n"])
    assert (metrics["test"]["threshold"] < 1) == run.impossible == (none > 0)
    card = (run.output / "README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == front["model-index"][0]["results"][0]["task"]["type"] == "question-answering"
    assert [m["type"] for m in front["model-index"][0]["results"][0]["metrics"]] == ["f1", "exact_match"]
    assert ("or says that there is none" in card) == run.impossible and "in windows of 48 tokens" in card
    assert (run.output / "mistakes.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_model_measures_the_same_and_answers(run, tmp_path, capsys):
    told = ["--model", str(run.output), "--output-dir", str(tmp_path / "out"), "--data"]
    assert evaluate_model.main([*told, str(run.data / "test.jsonl")]) == 0, capsys.readouterr().err
    measured = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    for name in ("n", "f1", "exact", "threshold", "mistakes"):
        assert measured[name] == pytest.approx(run.metrics["test"][name])
    rows = [json.loads(line) for line in (run.data / "test.jsonl").read_text("utf-8").splitlines()]
    bare = write_csv(tmp_path / "new.csv", [(r["question"], r["context"]) for r in rows], ("question", "context"))
    written = (tmp_path / "out/predictions.csv").read_bytes()
    assert evaluate_model.main([*told, str(bare)]) == 0, capsys.readouterr().err
    assert not (tmp_path / "out/metrics.json").exists()
    with (tmp_path / "out/predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["row", "question", "context", "predicted", "probability", "no_answer_probability"]
    for own, row in zip(found, rows, strict=True):
        assert own["predicted"] in row["context"] and 0 <= float(own["probability"]) <= 1
    with_labels = list(csv.DictReader(written.decode("utf-8-sig").splitlines()))
    assert [own["predicted"] for own in with_labels] == [own["predicted"] for own in found]
    assert evaluate_model.main([*told, str(bare), "--windows"]) == 2
    assert "--windows is for single texts" in capsys.readouterr().err
    assert evaluate_model.main([*told, str(bare), "--max-length=16"]) == 2
    assert "--max-length 16: a question and a text need 32 tokens" in capsys.readouterr().err


def test_the_code_of_the_card_gives_the_same_answer(run, tmp_path, capsys):
    from try_model import ask

    from takehome.saved_models import load_classifier

    code = (run.output / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    question, context = "Where is it?", "Notice 7. It meets in Birch Hall. Ada Hill leads it."
    code = code.replace("path/to/this/directory", run.output.as_posix())
    code = code.replace('"A question?", "A text that answers it."', f"{question!r}, {context!r}")
    capsys.readouterr()
    exec(code, {})
    ((answer, probability),) = ask(load_classifier(str(run.output), None), question, context).items()
    assert capsys.readouterr().out.strip() == answer and 0 < probability <= 1


def test_killed_and_resumed_it_is_the_same_model(run, small, tmp_path):
    if not run.impossible:
        pytest.skip("a run goes on in the same way where every question has an answer")
    again = Run(tmp_path / "model", run.data, *SHORT, checkpoint=small, slow=0.2)
    again.wait(until=lambda: damage(again.work / "checkpoint-6") == "")
    again.process.kill()
    again.process.join()
    resumed = Run(again.output, run.data, *SHORT, checkpoint=small).finish()
    assert "checkpoint-6" in resumed.text and same_model(resumed, run)


def test_a_window_that_is_too_short_is_refused(small, tmp_path, capsys):
    data = put(tmp_path / "a.jsonl", lines(ROWS))
    told = ["--data", str(data), "--output-dir", str(tmp_path / "model"), "--checkpoint", small, "--max-length=16"]
    assert "--max-length 16: a question and a text need 32 tokens at least" in refused(capsys, *told)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "lora"])
def test_a_decoder_answers_and_adapters_learn(name, small, tmp_path):
    data = write_data(tmp_path / "data", impossible=True)
    checkpoint, more = (str(ROOT / "data/models/gpt2"), ()) if name == "gpt2" else (small, ("--lora",))
    run = Run(tmp_path / "model", data, "--max-steps=4", "--max-length=48", *more, checkpoint=checkpoint).finish()
    told = ["--model", str(run.output), "--data", str(data / "test.jsonl"), "--output-dir", str(tmp_path / "out")]
    assert evaluate_model.main(told) == 0
    measured = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert measured["f1"] == pytest.approx(run.metrics["test"]["f1"])
