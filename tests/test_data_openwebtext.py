"""The pretraining corpus is large enough, varied enough, and rebuilds byte for byte."""

import gzip
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
SHARDS = sorted((DATA / "openwebtext").rglob("*.parquet"))


@pytest.fixture(scope="module")
def articles() -> list[str]:
    return [text for shard in SHARDS for text in pq.read_table(shard)["text"].to_pylist()]


def test_eight_shards_with_five_megabytes(articles):
    assert len(SHARDS) >= 8
    assert sum(len(text.encode()) for text in articles) >= 5_000_000
    assert len(set(articles)) == len(articles)


def test_shuffled_when_written(articles):
    # Each shard holds about as many film and news pieces as any other, so a reader of one shard sees every subject.
    sizes = [pq.read_metadata(shard).num_rows for shard in SHARDS]
    assert max(sizes) - min(sizes) <= 1
    counts = [sum("film" in text for text in pq.read_table(shard)["text"].to_pylist()) for shard in SHARDS]
    share = sum(counts) / len(articles)
    # Drawn at random, a shard's count has this standard deviation; in topic order most shards would have none.
    deviation = (sizes[0] * share * (1 - share)) ** 0.5
    assert all(abs(count - sizes[0] * share) < 4 * deviation for count in counts)


def test_gzip_makes_it_no_smaller_than_a_sixth(articles):
    text = "\n\n".join(articles).encode()
    assert len(gzip.compress(text, 9)) * 6 > len(text)


def test_half_of_all_eight_word_sequences_occur_once(articles):
    sequences = Counter()
    for article in articles:
        words = article.lower().split()
        sequences.update(hash(tuple(words[i : i + 8])) for i in range(len(words) - 7))
    assert sum(1 for count in sequences.values() if count == 1) >= 0.5 * sequences.total()


def test_no_template_is_left_open(articles):
    for article in articles:
        assert not set("{}<>|¶[]") & set(article), article[:200]
        assert "  " not in article and " ," not in article and ".." not in article, article[:200]


def test_rebuilds_byte_for_byte(assert_rebuilds):
    assert_rebuilds("openwebtext", DATA / "openwebtext")
