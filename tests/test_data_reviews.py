"""data/reviews is varied, does not yield to word counters, and data/build/reviews.py writes it byte for byte."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
REVIEWS = ROOT / "data" / "reviews"


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("reviews")


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[list[str], list[int]]]:
    files = {split: REVIEWS / "plain_text" / f"{split}-00000-of-00001.parquet" for split in ("train", "test")}
    tables = {split: pq.read_table(file).to_pydict() for split, file in files.items()}
    return {split: (table["text"], table["label"]) for split, table in tables.items()}


def test_sizes_balance_and_order(splits):
    for split, count in {"train": 2400, "test": 800}.items():
        texts, labels = splits[split]
        assert len(texts) == len(labels) == count
        assert labels.count(0) == labels.count(1) == count / 2
        assert labels == sorted(labels), "sorted by label like IMDB, a trap that lesson 02 shows"


def test_lengths(splits):
    lengths = sorted(len(text.split()) for texts, _ in splits.values() for text in texts)
    assert lengths[0] <= 30 and lengths[-1] >= 150
    # A long tail, or grouping by length would save nothing.
    assert lengths[len(lengths) * 98 // 100] >= 2 * lengths[len(lengths) // 2]


def test_texts_are_whole_sentences(splits):
    for texts, _ in splits.values():
        for text in texts:
            assert text == text.strip() and not re.search(r"[{}<>|¶()]|  |\.\.|\ba [aeio]\w", text), text
            assert text[0] in '"' or not text[0].islower(), text
            assert text[-1] in '.?!"', text


def test_no_duplicates_and_no_near_duplicates(splits, builder, build_program):
    train, test = splits["train"][0], splits["test"][0]
    assert len(set(train + test)) == len(train) + len(test)
    assert builder.near_share(test, train) < 0.03  # a clause or two of a short review
    # Neither lesson 01's reviews nor the corpus of the checkpoints hold any of them.
    others = [text for split in ("train", "test") for text in read("imdb", split)] + read("openwebtext", "train")
    assert others and builder.near_share(test, others) < 0.03


def read(name: str, split: str) -> list[str]:
    files = sorted((ROOT / "data" / name).rglob(f"{split}-*.parquet"))
    return [text for file in files for text in pq.read_table(file)["text"].to_pylist()]


def test_what_counts_is_said_last_or_first_and_never_by_the_words_alone(builder):
    """In every kind but one the opposite opinion stands beside what counts, so its words serve both labels."""
    grammar, _ = builder.lexicon()
    for kind in builder.KINDS:
        frames = grammar.rules[kind]
        assert all("(2)" in frame for frame in frames)
        assert all(("(1)" in frame) == (kind != "holds") for frame in frames), kind


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_a_word_counter_learns_something_and_not_much(splits, builder, longest):
    score = builder.bag_of_words_score(splits["train"], splits["test"], (1, longest))
    assert 0.55 <= score <= 0.75


def test_the_builder_writes_the_same_bytes(assert_rebuilds):
    assert_rebuilds("reviews", REVIEWS)
