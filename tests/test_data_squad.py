"""data/squad is laid out as SQuAD 2, does not yield to tricks, and is rebuilt byte for byte."""

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SQUAD = ROOT / "data" / "squad"
SPLITS = {"train": 7200, "validation": 399, "test": 600}


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("squad")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict]]:
    files = {split: SQUAD / "plain_text" / f"{split}-00000-of-00001.parquet" for split in SPLITS}
    return {split: pq.read_table(file).to_pylist() for split, file in files.items()}


def test_columns_and_sizes(splits):
    for split, count in SPLITS.items():
        assert len(splits[split]) == count
        for row in splits[split]:
            assert list(row) == ["id", "title", "context", "question", "answers"]
            assert list(row["answers"]) == ["text", "answer_start"]
    ids = [row["id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == len(ids)
    assert sum(path.stat().st_size for path in SQUAD.rglob("*")) < 500_000


def test_it_loads_with_the_features_of_the_card(splits, tmp_path):
    from datasets import List, Value, load_dataset

    front = yaml.safe_load((SQUAD / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["configs"][0]["config_name"] == "plain_text"
    loaded = load_dataset(str(SQUAD), "plain_text", cache_dir=tmp_path)
    assert loaded["test"].features["answers"] == {"text": List(Value("string")), "answer_start": List(Value("int32"))}
    assert loaded["test"].to_list() == splits["test"]


def test_answers_stand_where_they_say_and_once(splits):
    for rows in splits.values():
        for row in rows:
            starts, texts = row["answers"]["answer_start"], row["answers"]["text"]
            assert len(starts) == len(texts) <= 1
            for start, text in zip(starts, texts, strict=True):
                assert row["context"][start : start + len(text)] == text
                assert len(re.findall(rf"\b{text}\b", row["context"])) == 1


def test_texts_are_whole_sentences(splits):
    for rows in splits.values():
        for row in rows:
            assert not re.search(r"VALUE|[{}<>|¶]|  |\.\.| [.,]", row["context"]), row["context"]
            assert row["context"][0].isupper() and row["context"].endswith(".") and row["question"].endswith("?")
            for sentence in re.split(r"(?<=\.) ", row["context"]):
                assert sentence[0].isupper() or sentence[0].isdigit(), sentence


def test_no_text_in_two_splits_and_names_are_new(splits, builder):
    texts = {split: {row["context"] for row in rows} for split, rows in splits.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"]) and not texts["validation"] & texts["test"]
    assert builder.unseen(splits) == 1
    assert builder.unseen(splits | {"train": splits["test"]}) == 0


def test_kinds_and_questions_without_an_answer_are_mixed(splits, builder):
    for rows in splits.values():
        kinds = Counter(row["title"] for row in rows)
        assert set(kinds) == set(builder.KINDS) and min(kinds.values()) > 0.1 * len(rows)
        none = [not row["answers"]["text"] for row in rows]
        assert 0.2 < sum(none) / len(rows) < 0.35
        for kind in kinds:
            assert any(none[n] for n, row in enumerate(rows) if row["title"] == kind), kind


def test_no_trick_solves_it(splits, builder):
    scores = {name: builder.score(splits["test"], trick) for name, trick in builder.TRICKS.items()}
    assert max(scores.values()) < 0.55, scores
    assert scores["the first name"] < 0.2
    # what a trick would get if the answer stood in the text alone
    easy = [{"question": "Who sang?", "context": "Ada Hill sang.", "answers": {"text": ["Ada Hill"]}}]
    assert builder.score(easy, builder.TRICKS["the first name"]) == 1


def test_some_texts_need_windows(splits):
    lengths = sorted(len(row["context"].split()) for row in splits["train"])
    assert lengths[len(lengths) // 2] < 60 and lengths[len(lengths) * 19 // 20] > 90


def test_card_shows_the_figures(splits, builder):
    assert builder.statistics(splits) in (SQUAD / "README.md").read_text(encoding="utf-8")


def test_the_builder_writes_the_same_bytes(assert_rebuilds):
    assert_rebuilds("squad", SQUAD)
