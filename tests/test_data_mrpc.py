"""data/glue (mrpc) is balanced as in the original, cannot be solved by counting words, and is rebuilt byte for byte."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GLUE = ROOT / "data" / "glue"
SIDES = ("sentence1", "sentence2")


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("mrpc")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict]]:
    names = ("train", "validation", "test")
    return {name: pq.read_table(GLUE / "mrpc" / f"{name}-00000-of-00001.parquet").to_pylist() for name in names}


def labels(splits) -> dict[str, list[int]]:
    return {split: [row["label"] for row in rows] for split, rows in splits.items()}


def test_columns_sizes_and_balance(splits):
    for split, least in {"train": 1200, "validation": 300, "test": 400}.items():
        rows = splits[split]
        assert len(rows) >= least
        assert list(rows[0]) == ["sentence1", "sentence2", "label", "idx"]
        assert [row["idx"] for row in rows] == list(range(len(rows)))
        assert 0.64 <= sum(row["label"] for row in rows) / len(rows) <= 0.70


def test_card_declares_the_data(splits):
    card = yaml.safe_load((GLUE / "README.md").read_text(encoding="utf-8").split("---")[1])
    info = card["dataset_info"][0]
    assert card["configs"][0]["config_name"] == info["config_name"] == "mrpc"
    assert {s["name"]: s["num_examples"] for s in info["splits"]} == {name: len(rows) for name, rows in splits.items()}
    names = next(f["dtype"]["class_label"]["names"] for f in info["features"] if f["name"] == "label")
    assert names == {"0": "not_equivalent", "1": "equivalent"}


def test_sentences_are_whole_and_occur_once(splits):
    sentences = [row[side] for rows in splits.values() for row in rows for side in SIDES]
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert 12 <= len(sentence.split()) <= 28, sentence
        assert re.fullmatch(r"[A-Z0-9][\w ,.:;'-]+[a-z0-9]\.", sentence), sentence
        assert not re.search(r"  |\.\.|\ba [aeio]\w", sentence), sentence


def test_no_near_copies_between_train_and_test(splits, builder):
    assert builder.near_copies(splits) < 0.02
    # The measure itself finds a training pair that was put into test.
    assert builder.near_copies(splits | {"test": splits["train"][:10]}) == 1


def test_counting_words_does_not_solve_it(splits, builder):
    for name, measure in builder.overlap_measures(splits).items():
        assert builder.threshold_accuracy(measure, labels(splits)) <= 0.75, name
    # The threshold itself finds a measure that gives the label away.
    telling = {split: [float(label) for label in values] for split, values in labels(splits).items()}
    assert builder.threshold_accuracy(telling, labels(splits)) == 1
    assert builder.word_count_accuracy(splits) <= 0.72


def test_lengths_give_nothing_away(splits):
    means = []
    for label in (0, 1):
        sizes = [len(row[side].split()) for row in splits["train"] if row["label"] == label for side in SIDES]
        means.append(sum(sizes) / len(sizes))
    assert abs(means[0] - means[1]) < 0.5


def test_pairs_differ_as_the_card_says(builder):
    rows = [row for rows in builder.build().values() for row in rows]
    negatives = [row for row in rows if not row["label"]]
    for kind, least in {"number": 0.2, "who": 0.15, "opposite": 0.15, "negation": 0.1, "detail": 0.15}.items():
        assert sum(row["kind"] == kind for row in negatives) >= least * len(negatives), kind
    assert len({row["event"] for row in rows}) >= 25


def test_rebuild_gives_the_same_bytes(assert_rebuilds):
    assert_rebuilds("mrpc", GLUE)
