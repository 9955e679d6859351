"""data/beekeeping is a field that the old corpus does not cover, and it is rebuilt byte for byte."""

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
FOLDER = DATA / "beekeeping"
SPLITS = ("unsupervised", "train", "test")


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("beekeeping")


@pytest.fixture(scope="module")
def notes() -> dict[str, tuple[list[str], list[int]]]:
    tables = {split: pq.read_table(FOLDER / f"ledgar/{split}-00000-of-00001.parquet") for split in SPLITS}
    return {split: (table["text"].to_pylist(), table["label"].to_pylist()) for split, table in tables.items()}


def words(texts: list[str]) -> Counter:
    return Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))


def test_sizes_and_labels(notes, builder):
    for split, (texts, labels) in notes.items():
        assert len(set(texts)) == len(texts) == len(labels) == builder.SIZES[split]
    assert set(notes["unsupervised"][1]) == {builder.UNLABELLED}
    for split in ("train", "test"):
        counts = Counter(notes[split][1])
        assert set(counts) == set(range(4)) and len(set(counts.values())) == 1
        assert len(set(notes[split][1][:20])) == 4, "in random order: the lesson takes the first rows"


def test_texts_are_whole(notes):
    for texts, _ in notes.values():
        for text in texts:
            assert not re.search(r"[{}<>|¶]|  |\.\.|\ba [aeio]\w", text), text
            assert text[0].isupper() and text[-1] == ".", text


def test_the_old_corpus_hardly_has_its_words(notes):
    old = set()
    for file in sorted((DATA / "openwebtext").rglob("*.parquet")):
        old |= set(words(pq.read_table(file)["text"].to_pylist()))
    counted = words(notes["unsupervised"][0])
    new = {word: count for word, count in counted.items() if word not in old}
    assert len(new) >= 80 and sum(new.values()) / counted.total() > 0.1
    assert {"thymol", "brood", "cappings", "fondant"} <= set(new)


def test_a_labelled_note_has_one_sign_and_no_remedy(builder):
    for plan in builder.LABELLED:
        assert plan.count("{sign}") == 1 and "{remedy}" not in plan
    for plan in builder.WHOLE:
        assert plan.count("{sign}") == 2 and plan.count("{remedy}") == 1


def test_few_labels_are_not_enough_for_a_counter_and_many_are(notes, builder):
    train, test = notes["train"], notes["test"]
    few = tuple(column[: builder.FEW] for column in train)
    assert 0.3 < builder.bag_of_words_score(few, test, (1, 2)) < 0.6
    assert builder.bag_of_words_score(train, test, (1, 2)) > 0.95
    assert builder.near_share(test[0], train[0]) < 0.2


def test_no_labelled_note_stands_in_the_unlabelled_ones(notes):
    unlabelled = set(notes["unsupervised"][0])
    assert not unlabelled & {*notes["train"][0], *notes["test"][0]}
    assert not set(notes["train"][0]) & set(notes["test"][0])


def test_the_builder_writes_the_same_bytes(assert_rebuilds):
    assert_rebuilds("beekeeping", FOLDER)
