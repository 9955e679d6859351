"""data/imdb is large, varied and hard enough to learn from, and data/build/imdb.py writes it byte for byte."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
IMDB = ROOT / "data" / "imdb"


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("imdb")


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[list[str], list[int]]]:
    files = {split: IMDB / "plain_text" / f"{split}-00000-of-00001.parquet" for split in ("train", "test")}
    tables = {split: pq.read_table(file).to_pydict() for split, file in files.items()}
    return {split: (table["text"], table["label"]) for split, table in tables.items()}


def test_sizes_balance_and_order(splits):
    for split, least in {"train": 2000, "test": 600}.items():
        texts, labels = splits[split]
        assert len(texts) == len(labels) >= least
        assert labels.count(0) == labels.count(1) == len(labels) / 2
        assert labels == sorted(labels), "sorted by label like the original, a trap that lesson 02 shows"


def test_lengths_and_vocabulary(splits):
    texts = [text for texts, _ in splits.values() for text in texts]
    lengths = sorted(len(text.split()) for text in texts)
    assert sum(lengths) / len(lengths) >= 60
    # A long tail, or grouping by length would save nothing.
    assert lengths[0] <= 30 and lengths[-1] >= 150
    assert lengths[len(lengths) * 99 // 100] >= 2 * lengths[len(lengths) // 2]
    assert len({word for text in texts for word in re.findall(r"[a-z']+", text.lower())}) >= 3000


def test_texts_are_whole_sentences(splits):
    for texts, _ in splits.values():
        for text in texts:
            assert text == text.strip() and not re.search(r"[{}<>|¶()]|  |\.\.|\ba [aeio]\w", text), text
            assert text[0] in '"' or not text[0].islower(), text
            assert text[-1] in '.?!"', text


def test_no_duplicates_and_no_near_duplicates(splits, builder):
    train, test = splits["train"][0], splits["test"][0]
    assert len(set(train + test)) == len(train) + len(test)
    assert builder.near_share(test, train) < 0.01
    # The corpus of the checkpoints has remarks of the same list, but no review.
    shards = sorted((ROOT / "data" / "openwebtext").rglob("*.parquet"))
    cards = [text for shard in shards for text in pq.read_table(shard)["text"].to_pylist() if "/5." in text]
    assert cards and builder.near_share(test, cards) < 0.01
    # The measure itself finds a review that only changed its first words.
    assert builder.near_share(["We saw it on Monday. " + test[0]], test) == 1


def test_no_review_repeats_an_article_of_the_corpus(splits, builder, build_program):
    openwebtext = build_program("openwebtext")
    articles = openwebtext.write_topic("culture", openwebtext.ARTICLES_PER_TOPIC * openwebtext.WEIGHTS["culture"])
    assert builder.near_share(splits["test"][0], articles) < 0.01


@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2)])
def test_a_bag_of_words_learns_but_not_everything(splits, builder, ngrams):
    score = builder.bag_of_words_score(splits["train"], splits["test"], ngrams)
    assert 0.75 <= score <= 0.92


def test_the_builder_writes_the_same_bytes(assert_rebuilds):
    assert_rebuilds("imdb", IMDB)


def test_the_library_reads_it_as_it_reads_the_original(tmp_path):
    from datasets import load_dataset

    dataset = load_dataset(str(IMDB), cache_dir=str(tmp_path))
    assert {split: rows.num_rows for split, rows in dataset.items()} == {"train": 2400, "test": 800}
    assert dataset["train"].features["label"].names == ["neg", "pos"]
