"""takehome/entity_files.py and tasks/entities.py: marked words however they are written, and how they count."""

import json
from pathlib import Path

import evaluate_model
import numpy as np
import pytest
from fine_tune_runs import Run

from helpers.profiles import ROOT
from takehome.entity_files import is_conll, looks_marked, read_entities, to_bio
from takehome.errors import InputError
from takehome.table_files import Place
from takehome.tasks import make_task
from takehome.tasks.entities import KINDS, mistakes_of, repaired
from takehome.texts import Source
from takehome.tokenizer import load_tokenizer

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
SENTENCES = [
    (["Anna", "Berg", "lives", "in", "Oslo", "."], ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]),
    (["New", "York", "is", "far"], ["B-LOC", "I-LOC", "O", "O"]),
    (["It", "rains"], ["O", "O"]),
]
TEXT = "Anna Berg lives in Oslo."


def conll(sentences=SENTENCES, between=" ", more="") -> str:
    return "\n\n".join("\n".join(f"{w}{more}{between}{t}" for w, t in zip(*s, strict=True)) for s in sentences) + "\n"


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def lines(*rows) -> str:
    return "\n".join(map(json.dumps, rows))


def found(path: Path) -> list[tuple[list[str], list[str]]]:
    assert looks_marked(Place(path))
    table = read_entities(Place(path))
    return [(row["text"].split(" "), [table.labels[n] for n in row["label"]]) for row in table.dataset]


FILES = {
    "CoNLL with spaces": ("a.conll", conll()),
    "CoNLL with tabs": ("a.txt", conll(between="\t")),
    "CoNLL with four columns": ("a.txt", "-DOCSTART- -X- O O\n\n" + conll(more=" NN B-NP")),
    "CoNLL with comments": ("a.bio", "# source = ours\n" + conll()),
    "tokens and tags": ("a.jsonl", lines(*({"tokens": w, "ner_tags": t} for w, t in SENTENCES))),
}


@pytest.mark.parametrize("form", FILES)
def test_words_with_tags(form, tmp_path):
    assert found(put(tmp_path / FILES[form][0], FILES[form][1])) == SENTENCES


SPANS = {
    "lists": [[0, 9, "PER"], [19, 23, "LOC"]],
    "Prodigy": [{"start": 0, "end": 9, "label": "PER"}, {"start": 19, "end": 23, "label": "LOC"}],
    "Label Studio": [{"start": 0, "end": 9, "labels": ["PER"]}, {"start": 19, "end": 23, "labels": ["LOC"]}],
    "doccano": [
        {"start_offset": 0, "end_offset": 9, "label": "PER"},
        {"start_offset": 19, "end_offset": 23, "label": "LOC"},
    ],
}


@pytest.mark.parametrize("form", SPANS)
@pytest.mark.parametrize("name", ["spans", "entities", "label"])
def test_texts_with_spans(form, name, tmp_path):
    path = put(tmp_path / "a.jsonl", lines({"text": TEXT, name: SPANS[form]}, {"text": "It rains", name: []}))
    assert found(path) == [SENTENCES[0], SENTENCES[2]]


def test_spans_inside_words_and_over_each_other_are_said(tmp_path):
    rows = [
        {"text": TEXT, "spans": [[0, 3, "PER"], [19, 23, "LOC"]]},
        {"text": TEXT + " Yes.", "spans": [[0, 9, "PER"], [5, 9, "LOC"], [19, 23, "LOC"]]},
    ]
    table = read_entities(Place(put(tmp_path / "a.jsonl", lines(*rows))))
    assert [table.labels[n] for n in table.dataset[0]["label"]][:2] == ["B-PER", "O"]
    assert [table.labels[n] for n in table.dataset[1]["label"]][:2] == ["B-PER", "I-PER"]
    assert table.remarks == [
        "1 span inside a word made as long as the word (row 1).",
        "1 span that overlap a longer one left out (row 2).",
    ]


def test_other_schemes_become_bio():
    assert to_bio(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"]) == ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]
    assert to_bio(["B-PER", "E-PER", "S-LOC", "S-LOC"]) == ["B-PER", "I-PER", "B-LOC", "B-LOC"]
    assert to_bio(["B-PER", "L-PER", "U-LOC", "I-LOC"]) == ["B-PER", "I-PER", "B-LOC", "B-LOC"]


def test_the_course_s_own_data_and_a_folder_with_splits(tmp_path):
    own = read_entities(Place(ROOT / "data/conll2003"))
    assert len(own.dataset) == 3200 and {name: len(part) for name, part in own.splits.items()}["test"] == 600
    assert own.labels == ["O", *(f"{mark}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for mark in "BI")]
    put(tmp_path / "train.conll", conll())
    put(tmp_path / "dev.conll", conll(SENTENCES[:1]))
    table = read_entities(Place(tmp_path))
    assert (len(table.dataset), len(table.splits["validation"]), table.labels) == (3, 1, NAMES)


def test_a_table_of_texts_is_no_table_of_entities(tmp_path):
    assert not is_conll(put(tmp_path / "a.tsv", "text\tlabel\nA good one\tgood\nA bad one\tbad\n"))
    assert not looks_marked(
        Place(put(tmp_path / "b.jsonl", lines({"text": "A", "label": "x"}, {"text": "B", "label": "y"})))
    )
    assert not looks_marked(Place(put(tmp_path / "c.jsonl", lines({"text": "A", "labels": ["x"]}))))
    assert not looks_marked(Place(ROOT / "data/documents.csv"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", lines({"tokens": ["a", "b"], "tags": ["O"]}), "row 1: 2 words and 1 tags; give each word one"),
        ("a.jsonl", lines({"tokens": ["a"], "tags": [1]}), "'1' is no tag such as B-PER"),
        ("a.jsonl", lines({"text": "ab", "spans": [[0, 9, "X"]]}), "the span 0–9 is not in the text of 2 characters"),
        ("a.jsonl", lines({"text": "ab", "spans": [["X", 0]]}), 'a span is not [start, end, "LABEL"]'),
        ("a.jsonl", lines({"text": "ab", "label": "x"}), "a span is not"),
        ("a.jsonl", lines({"body": "ab"}), "no words with tags and no text with spans (columns: body)"),
        ("a.conll", conll([(["a", "b"], ["O", "O"])]), "no word is marked"),
        ("a.conll", conll() * 20 + "alone\n", "line 281: not a word and a tag such as B-PER or O"),
    ],
)
def test_what_cannot_be_read_is_one_line(name, content, said, tmp_path):
    path = put(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        read_entities(Place(path))
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)


# ------------------------------------------------------------------ how they count


def test_entities_count_as_a_whole_and_agree_with_seqeval():
    from seqeval.metrics import f1_score, precision_score, recall_score

    rng = np.random.default_rng(0)
    truth = [rng.integers(0, 5, 12).tolist() for _ in range(40)]
    guesses = [[t if rng.random() < 0.8 else int(rng.integers(0, 5)) for t in row] for row in truth]
    task = make_task("tokens", NAMES)
    named = [[repaired([NAMES[n] for n in row]) for row in side] for side in (truth, guesses)]
    numbers = [[NAMES.index(tag) for tag in row] for row in named[0]]
    scores = task.measure(numbers, guesses)
    assert scores.f1 == pytest.approx(f1_score(*named))
    assert scores.precision == pytest.approx(precision_score(*named))
    assert scores.recall == pytest.approx(recall_score(*named))
    assert scores.entities == sum(row.n for row in scores.per_kind.values())
    assert tuple(scores.mistakes) == KINDS


def test_mistakes_by_kind():
    truth = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-PER", "O", "O", "B-LOC", "I-LOC"]
    guess = ["B-PER", "O", "O", "B-PER", "O", "O", "B-LOC", "O", "B-PER", "O"]
    assert mistakes_of(truth, guess) == ["other borders", "other kind", "missed", "other borders and kind", "invented"]
    assert mistakes_of(truth, truth) == []


def test_no_entity_at_all_is_zero_and_no_error():
    scores = make_task("tokens", NAMES).measure([[0, 0]], [[0, 0]])
    assert (scores.f1, scores.entities) == (0.0, 0)


@pytest.mark.parametrize("checkpoint", ["distilbert", "gpt2"])
def test_the_first_token_of_each_word_has_its_tag(checkpoint):
    loaded = load_tokenizer(str(ROOT / "data/models" / checkpoint)).for_words()
    words, tags = SENTENCES[0]
    batch = {"text": [" ".join(words)], "label": [[NAMES.index(tag) for tag in tags]]}
    encoded = make_task("tokens", NAMES).encode(loaded.tokenizer, batch, 64)
    own = [n for n in encoded["labels"][0] if n >= 0]
    assert [NAMES[n] for n in own] == tags
    assert len(encoded["labels"][0]) == len(encoded["input_ids"][0])


def test_sentences_of_one_length_keep_their_tags():
    import datasets

    task = make_task("tokens", NAMES)
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d"], "label": [[0, 1], [3, 4]]})
    assert list(task.answers(rows)) == [[0, 1], [3, 4]]


# ------------------------------------------------------------------ a whole run

SHORT = ("--num-train-epochs=2", "--eval-steps=4", "--max-length=24")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A finished run on 80 sentences of the course's own data, and 20 to test."""
    folder = tmp_path_factory.mktemp("entities")
    own = read_entities(Place(ROOT / "data/conll2003"))
    for name, rows in (("train", range(60)), ("test", range(60, 80))):
        rows = own.dataset.select(rows)
        pairs = [(r["text"].split(" "), [own.labels[n] for n in r["label"]]) for r in rows]
        put(folder / f"{name}.conll", conll(pairs))
    run = Run(folder / "model", folder, *SHORT, pictures=True).finish()
    run.data = folder
    return run


def test_a_run_on_entities(run):
    import yaml
    from transformers import pipeline
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    before = run.text[: run.text.index("step 4")]
    assert "task        tokens" in before and "GB for the longest step" in before
    assert "Traceback" not in run.text and "Warning" not in run.text
    metrics, card = run.metrics, (run.output / "README.md").read_text("utf-8")
    assert set(metrics["baselines"]) == {"no entity", "a list of the training rows' words"}
    assert metrics["baselines"]["no entity"]["f1"] == 0
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "token-classification"
    assert (run.output / "mistakes.png").read_bytes().startswith(b"\x89PNG")
    mark = pipeline("token-classification", str(run.output), aggregation_strategy="first", device="cpu")
    assert all(own["entity_group"] in metrics["test"]["per_kind"] for own in mark("Anna Berg lives in Oslo."))


def test_evaluate_model_measures_the_same_and_marks_plain_texts(run, tmp_path, capsys):
    told = ["--model", str(run.output), "--output-dir", str(tmp_path / "out")]
    assert evaluate_model.main([*told, "--data", str(run.data / "test.conll")]) == 0, capsys.readouterr().err
    measured = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    for name in ("f1", "precision", "recall", "mistakes", "entities"):
        assert measured[name] == pytest.approx(run.metrics["test"][name])
    plain = put(tmp_path / "new.csv", "text\nAnna Berg lives in Oslo.\nDr Gill will follow Patel.\n")
    assert evaluate_model.main([*told, "--data", str(plain)]) == 0, capsys.readouterr().err
    rows = (tmp_path / "out/predictions.csv").read_text("utf-8-sig").splitlines()
    assert rows[0] == "row,text,predicted,tags"
    assert rows[1].split(",")[1] == "Anna Berg lives in Oslo ."


def test_resumed_it_is_the_same_model(run, tmp_path):
    from fine_tune_runs import same_model

    from takehome.checkpoints import damage

    again = Run(tmp_path / "model", run.data, *SHORT, slow=0.2)
    again.wait(until=lambda: damage(again.work / "checkpoint-4") == "")
    again.process.kill()
    again.process.join()
    assert same_model(Run(again.output, run.data, *SHORT).finish(), run)


def test_the_source_finds_the_task(tmp_path):
    path = put(tmp_path / "a.jsonl", lines(*({"tokens": w, "tags": t} for w, t in SENTENCES)))
    assert Source(str(path)).read(tmp_path / "cache").task == "tokens"
