"""data/preferences holds what its card says, and data/build/preferences.py writes it byte for byte."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ROOT / "data" / "preferences"
PARTS = ("chosen", "rejected")


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("preferences")


@pytest.fixture(scope="module")
def splits():
    files = {split: PAIRS / "plain_text" / f"{split}-00000-of-00001.parquet" for split in ("train", "test")}
    return {split: pq.read_table(file).to_pylist() for split, file in files.items()}


@pytest.fixture(scope="module")
def kinds(build_program):
    return build_program("preferences").kinds_of(build_program("grammar").Grammar("requests"))


def content(row, part):
    return row[part][0]["content"]


def test_sizes_and_roles(splits):
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 1200, "test": 200}
    for rows in splits.values():
        for row in rows:
            assert {part: [turn["role"] for turn in row[part]] for part in row} == {
                "prompt": ["user"],
                "chosen": ["assistant"],
                "rejected": ["assistant"],
            }


def test_the_better_answer_has_fewer_mistakes_and_not_always_none(splits, builder, kinds):
    for rows in splits.values():
        found = [
            [builder.mistakes(content(row, "prompt"), content(row, part), kinds) for part in PARTS] for row in rows
        ]
        assert all(better < worse for better, worse in found)
        good = sum(better == 0 for better, _ in found) / len(rows)
        assert 0.55 < good < 0.8, "or copying the better answers would be enough"


def test_the_rules_see_each_kind_of_mistake(builder, kinds):
    asked = "Name two animals."
    for answer, count in {
        "Cow and hare. I hope this helps.": 0,
        "Cow.": 1,
        "Cow, hare and fox.": 1,
        "Cow and cow.": 1,
        "Cow and spade.": 1,
        "Spade.": 2,
        "Cow hare.": 2,
        "": 2,
    }.items():
        assert builder.mistakes(asked, answer, kinds) == count, answer


def test_requests_of_the_test_split_are_new(splits):
    train, test = ({content(row, "prompt") for row in splits[split]} for split in ("train", "test"))
    assert len(test) >= 20 and not train & test


def test_no_row_comes_twice(splits):
    rows = [json.dumps(row) for some in splits.values() for row in some]
    assert len(set(rows)) == len(rows)


def test_the_better_answer_is_longer_in_four_pairs_of_five(splits):
    for rows in splits.values():
        longer = [len(content(row, "chosen").split()) > len(content(row, "rejected").split()) for row in rows]
        assert 0.7 < sum(longer) / len(longer) < 0.86


def test_the_list_alone_does_not_tell_by_its_length(splits):
    """Without the sentences behind it, a better answer is as often longer as it is shorter, or nearly."""
    gaps = []
    for row in splits["train"]:
        better, worse = (content(row, part).partition(".")[0].count(",") for part in ("chosen", "rejected"))
        gaps.append(better - worse)
    longer, shorter = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    assert 0.5 < longer / shorter < 2


def test_the_card_shows_the_figures_of_the_data(builder, splits):
    card = (PAIRS / "README.md").read_text(encoding="utf-8")
    assert builder.statistics(splits) in card


def test_loads_with_its_columns(splits):
    import datasets

    loaded = datasets.load_dataset(str(PAIRS), "plain_text")
    assert loaded["train"].column_names == ["prompt", "chosen", "rejected"]
    assert loaded["test"][0] == splits["test"][0]


def test_building_again_gives_the_same_bytes(assert_rebuilds):
    assert_rebuilds("preferences", PAIRS)
