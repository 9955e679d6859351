"""data/instructions: every answer follows its rule, new words and new kinds are new, no lazy answer gets far."""

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTRUCTIONS = ROOT / "data" / "instructions"
SPLITS = ("train", "validation", "test", "new_kinds")


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("instructions")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict]]:
    return {split: pq.read_table(next(INSTRUCTIONS.glob(f"data/{split}-*"))).to_pylist() for split in SPLITS}


def words(row) -> set[str]:
    return set(re.findall(r"[a-z]+", " ".join(turn["content"] for turn in row["messages"]).lower()))


def follows(row, answer) -> bool:
    if row["rule"] == "exact":
        return answer == row["answer"]
    return bool(re.fullmatch(r"[A-Z][^.!?\n]*\.", answer)) and row["word"] in re.findall(r"[a-z]+", answer)


def test_turns_alternate_and_end_with_an_answer(splits):
    for rows in splits.values():
        for row in rows:
            roles = [turn["role"] for turn in row["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) in (2, 4)
            assert all(turn["content"] == turn["content"].strip() != "" for turn in row["messages"])


def test_kinds_are_balanced_and_new_ones_are_new(splits, builder):
    for split, rows in splits.items():
        kinds = Counter(row["kind"] for row in rows)
        assert set(kinds) == set(builder.NEW_KINDS if split == "new_kinds" else builder.KINDS)
        assert set(kinds.values()) == {builder.SIZES[split]}
    assert not set(builder.NEW_KINDS) & set(builder.KINDS)


def test_every_answer_follows_its_rule(splits):
    for rows in splits.values():
        assert all(follows(row, row["messages"][-1]["content"]) for row in rows)
        assert {row["rule"] for row in rows} <= {"exact", "sentence"}


def test_no_question_comes_twice(splits):
    asked = [" / ".join(turn["content"] for turn in row["messages"][:-1]) for rows in splits.values() for row in rows]
    assert len(set(asked)) == len(asked)


def test_a_word_that_training_lacks_is_in_every_other_row(splits, builder):
    new = builder.held_out(builder.lexicon())
    assert len(new) > 25
    assert not any(words(row) & new for row in splits["train"])
    for split in SPLITS[1:]:
        assert all(words(row) & new for row in splits[split])


def test_half_of_the_yes_no_answers_are_yes(splits):
    said = Counter(row["answer"] for rows in splits.values() for row in rows if row["kind"] == "yes_no")
    assert set(said) == {"yes", "no"} and 0.4 < said["yes"] / said.total() < 0.6


def test_lazy_answers_do_not_get_far(splits):
    usual = {}
    for row in splits["train"]:
        usual.setdefault(row["kind"], Counter())[row["messages"][-1]["content"]] += 1
    test = splits["test"]
    echo = sum(follows(row, row["messages"][-2]["content"]) for row in test) / len(test)
    frequent = sum(follows(row, usual[row["kind"]].most_common(1)[0][0]) for row in test) / len(test)
    assert echo < 0.15 and frequent < 0.15


def test_the_workbook_says_what_the_new_kinds_need_and_never_asks(build_program):
    worksheets = build_program("worksheets")
    text = "\n".join(worksheets.pages(200))
    for start in ("Second: ", "Backwards: ", "Without ", "Commas: "):
        assert start in text
    assert "?" not in text and "<|" not in text
    assert not re.search(r"\b(Say|Write|Repeat|Which|Make|please)\b", text)


def test_pages_are_true(build_program):
    for page in build_program("worksheets").pages(100):
        for part in page.split("\n\n"):
            listed = part.split("\n")[0].removeprefix("Words: ").split()
            for name, said in re.findall(r"^(Backwards|Last|First|Again|How many): (.+)$", part, re.MULTILINE):
                right = {"Backwards": " ".join(listed[::-1]), "Last": listed[-1], "First": listed[0]}
                right |= {"Again": " ".join(listed), "How many": str(len(listed))}
                assert said == right[name]


def test_the_builder_writes_the_same_bytes(assert_rebuilds):
    assert_rebuilds("instructions", INSTRUCTIONS)
