"""The offline metric of SQuAD agrees with figures worked out by hand, and has the keys of the Hub's two."""

import os
from pathlib import Path

import pytest

METRIC = str(Path(__file__).resolve().parents[1] / "data" / "metrics" / "squad")


@pytest.fixture(scope="module")
def load():
    """`evaluate.load`, imported with its network use switched off (the flag is read at import)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "HF_EVALUATE_OFFLINE", "1")
        import evaluate

        yield evaluate.load


def references(*answers):
    """Each argument is the list of the accepted answers of a question."""
    return [
        {"id": str(number), "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}
        for number, texts in enumerate(answers)
    ]


def predictions(*texts, probabilities=None):
    rows = [{"id": str(number), "prediction_text": text} for number, text in enumerate(texts)]
    if probabilities is None:
        return rows
    return [row | {"no_answer_probability": p} for row, p in zip(rows, probabilities, strict=True)]


@pytest.mark.parametrize(
    ("said", "answers", "exact", "f1"),
    [
        ("1976", ["1976"], 100, 100),
        ("The Norman Conquest!", ["norman conquest"], 100, 100),  # capitals, articles and punctuation do not count
        ("Norman conquest of England", ["the Norman conquest"], 0, 100 * 2 * 2 / (4 + 2)),
        ("in 1066", ["1976", "October 1066"], 0, 100 * 2 * 1 / (2 + 2)),  # the answer that fits best
        ("1066", ["1976", "1066"], 100, 100),
        ("a cat a cat", ["cat dog"], 0, 100 * 2 * 1 / (2 + 2)),  # a word counts as often as both have it
        ("king", ["queen"], 0, 0),
        ("", ["queen"], 0, 0),
        ("theatre", ["the atre"], 0, 0),  # an article is a whole word
    ],
)
def test_one_answer(load, said, answers, exact, f1):
    result = load(METRIC, "squad").compute(predictions=predictions(said), references=references(answers))
    assert result == {"exact_match": pytest.approx(exact), "f1": pytest.approx(f1)}
    both = load(METRIC, "squad_v2").compute(
        predictions=predictions(said, probabilities=[0.0]), references=references(answers)
    )
    assert (both["exact"], both["f1"]) == (pytest.approx(exact), pytest.approx(f1))


def test_the_mean_over_questions_in_any_order(load):
    said = predictions("Paris", "in Rome", "Oslo")
    right = references(["Paris"], ["Rome"], ["Bern"])
    expected = {"exact_match": pytest.approx(100 / 3), "f1": pytest.approx(100 * (1 + 2 / 3) / 3)}
    assert load(METRIC, "squad").compute(predictions=said, references=right[::-1]) == expected
    metric = load(METRIC, "squad")
    metric.add_batch(predictions=said[:2], references=right[:2])
    metric.add_batch(predictions=said[2:], references=right[2:])
    assert metric.compute() == expected


def test_questions_without_an_answer_count_apart(load):
    """Four questions: right; half right; no answer and none given; no answer, and one was invented."""
    said = predictions("Paris", "in Rome", "", "Oslo", probabilities=[0.1, 0.3, 0.9, 0.2])
    result = load(METRIC, "squad_v2").compute(predictions=said, references=references(["Paris"], ["Rome"], [], []))
    assert result == {
        "exact": pytest.approx(50),
        "f1": pytest.approx(100 * (1 + 2 / 3 + 1) / 4),
        "total": 4,
        "HasAns_exact": pytest.approx(50),
        "HasAns_f1": pytest.approx(100 * (1 + 2 / 3) / 2),
        "HasAns_total": 2,
        "NoAns_exact": pytest.approx(50),
        "NoAns_f1": pytest.approx(50),
        "NoAns_total": 2,
        # in the order of their probabilities: 2 (nothing answered), 3 with Paris, 2 with Oslo, then Rome
        "best_exact": pytest.approx(75),
        "best_exact_thresh": pytest.approx(0.1),
        "best_f1": pytest.approx(75),
        "best_f1_thresh": pytest.approx(0.1),
    }


def test_a_threshold_turns_answers_into_none(load):
    said = predictions("Paris", "Oslo", probabilities=[0.1, 0.6])
    right = references(["Paris"], [])
    assert load(METRIC, "squad_v2").compute(predictions=said, references=right)["exact"] == 50
    cautious = load(METRIC, "squad_v2").compute(predictions=said, references=right, no_answer_threshold=0.5)
    assert cautious["exact"] == cautious["f1"] == 100


def test_without_such_questions_nothing_is_said_of_them(load):
    said = predictions("Paris", probabilities=[0.0])
    result = load(METRIC, "squad_v2").compute(predictions=said, references=references(["Paris"]))
    assert result["HasAns_total"] == 1 and not [key for key in result if key.startswith("NoAns")]


def test_nonsense_is_refused(load):
    with pytest.raises(ValueError, match="choose squad or squad_v2"):
        load(METRIC, "squad_v1")
    with pytest.raises(ValueError, match="no prediction for 1 of the references, the first with id 1"):
        load(METRIC, "squad").compute(
            predictions=[*predictions("a"), {"id": "7", "prediction_text": ""}], references=references(["a"], ["b"])
        )
    with pytest.raises(ValueError, match="Predictions and/or references don't match the expected format"):
        load(METRIC, "squad").compute(predictions=["a"], references=["a"])
