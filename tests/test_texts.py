"""takehome/texts.py: which texts are equal, how rows are divided, and what is found out before a run."""

import csv
from pathlib import Path

import numpy as np
import pytest

from helpers.profiles import ROOT, load_profile

load_profile("reduced")  # offline, before any library is imported

import datasets  # noqa: E402

from takehome import texts  # noqa: E402
from takehome.errors import InputError  # noqa: E402
from takehome.tables import Table  # noqa: E402
from takehome.tasks.task import column  # noqa: E402
from takehome.telling import describe  # noqa: E402
from takehome.tokenizer import load_tokenizer  # noqa: E402

MODEL = str(ROOT / "data/models/distilbert")
DOCUMENTS = ROOT / "data/documents.csv"


def write_csv(path: Path, rows, header=("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    with DOCUMENTS.open(encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_equal_texts_stay_together_and_every_class_has_its_share():
    rng = np.random.default_rng(0)
    labels = rng.choice(5, size=4000, p=[0.6, 0.2, 0.1, 0.08, 0.02])
    groups = rng.integers(0, 3000, size=4000)  # some texts come twice or three times, with another label too
    parts = texts.split_rows(labels, groups, seed=1)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(4000))
    sets = [set(groups[part]) for part in parts.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    for name in ("validation", "test"):
        shares = np.bincount(labels[parts[name]], minlength=5) / np.bincount(labels)
        assert (abs(shares - 0.1) < 0.04).all()
    again = texts.split_rows(labels, groups, seed=1)
    assert all((parts[name] == again[name]).all() for name in parts)
    assert (texts.split_rows(labels, groups, seed=2)["test"][:9] != parts["test"][:9]).any()


def test_small_classes_are_in_training_first_and_large_data_is_not_wasted():
    labels = np.array([0] * 30 + [1] * 3 + [2] * 2 + [3])
    parts = texts.split_rows(labels, np.arange(36), seed=0)
    counts = {name: np.bincount(labels[part], minlength=4).tolist() for name, part in parts.items()}
    assert counts == {"train": [24, 1, 1, 1], "validation": [3, 1, 0, 0], "test": [3, 1, 1, 0]}
    many = texts.split_rows(np.zeros(200_000, int), np.arange(200_000), seed=0)
    assert (len(many["validation"]), len(many["test"])) == (5000, 5000)


def test_texts_are_equal_whatever_case_spaces_and_punctuation():
    same = ["Don't  PANIC!", "don’t panic", "Ｄｏｎ＇ｔ panic ..."]
    assert len({texts.normalise(text) for text in same}) == 1
    assert texts.normalise(":-)") != texts.normalise(":-(")
    assert texts.normalise("don\u200b't pa\u00adnic\ufeff") == texts.normalise("don't panic")


def test_a_draw_has_every_label():
    labels = np.array([0] * 500 + [1] * 5 + [2])
    drawn = texts.draw(np.arange(506), labels, 50, seed=0)
    assert len(set(drawn)) == 50
    assert set(labels[drawn]) == {0, 1, 2}


def test_splits_that_the_data_has_are_kept_and_do_not_leak(rows, tmp_path):
    folder, work = tmp_path / "data", tmp_path / "work"
    folder.mkdir()
    write_csv(folder / "test.csv", rows[:40])
    shouted = [[text.upper().replace(",", " ,"), label] for text, label in rows[:10]]
    write_csv(folder / "train.csv", [*rows[40:240], *shouted])
    facts = texts.prepare(texts.Source(str(folder)), load_tokenizer(MODEL), work, seed=42)
    assert facts.rows == {"train": 180, "validation": 20, "test": 40}
    assert sum(map(sum, facts.counts.values())) == 240  # the ten that stand in test, too, are gone
    assert facts.max_length % 8 == 0
    assert facts.cut_share <= 0.05
    assert texts.Facts.load(work) == facts


# ------------------------------------------------------------------ large tables


@pytest.mark.parametrize("rows", [50_001, 60_007, 100_000, 200_000])
def test_no_part_of_a_large_table_has_more_rows_than_it_may(rows):
    """Rounding the share of each class by itself gave 5,001 rows for a third of all numbers of classes."""
    rng = np.random.default_rng(rows)
    groups = np.arange(rows)
    for classes in (2, 3, 5, 7, 77, 500):
        for labels in (groups % classes, np.minimum(rng.geometric(2 / classes, rows), classes) - 1):
            parts = texts.split_rows(labels, groups, seed=1)
            assert sum(map(len, parts.values())) == rows
            for name in ("validation", "test"):
                assert 4990 <= len(parts[name]) <= 5000
                missing = set(labels) - set(labels[parts[name]])
                assert all((labels == label).sum() < 3 for label in missing)


def test_shares_are_whole_and_never_too_many_for_any_number_of_classes():
    for classes in range(2, 501):
        for rows in (50_001, 123_457):
            sizes = np.bincount(np.arange(rows) % classes)
            given = texts.shares(sizes, 5000, 5000)
            assert given.sum() == 5000
            assert abs(given - sizes * 5000 / rows).max() < 1
    assert texts.shares(np.array([3] * 20), 6, 5000).tolist() == [1] * 20  # one of each comes before the tenth
    many = texts.shares(np.array([9, *[3] * 6000]), 1800, 5000)
    assert (many.sum(), many[0], many.max()) == (5000, 1, 1)


def test_texts_that_come_very_often_do_not_break_the_bound():
    labels, groups = np.arange(60_000) % 3, np.repeat(np.arange(6), 10_000)
    parts = texts.split_rows(labels, groups, seed=0)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [60_000, 0, 0]
    parts = texts.split_rows(labels, np.concatenate([groups[:30_000], np.arange(30_000, 60_000)]), seed=0)
    assert all(len(parts[name]) <= 5000 for name in ("validation", "test"))
    assert not set(groups[:30_000]) & set(parts["test"]) - set(range(30_000))


def table(train, **splits) -> Table:
    """A table of (text, label) as read_table gives it."""
    names = sorted({label for part in (train, *splits.values()) for _, label in part})
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    features["row"] = datasets.Value("int64")

    def made(rows):
        columns = {"text": [text for text, _ in rows], "label": [names.index(label) for _, label in rows]}
        return datasets.Dataset.from_dict(columns | {"row": list(range(2, len(rows) + 2))}, features)

    return Table(
        "here.csv", made(train), "text", "label", names, [], {name: made(rows) for name, rows in splits.items()}
    )


def numbered(count, word="text", classes=3):
    return [(f"{word} {n}", f"class {n % classes}") for n in range(count)]


def test_a_given_validation_split_is_drawn_from_and_a_given_test_split_is_whole():
    remarks = []
    parts, _ = texts.divide(
        table(numbered(90), validation=numbered(6000, "v"), test=numbered(7000, "t")), 1, None, remarks
    )
    assert {name: len(part.rows) for name, part in parts.items()} == {"train": 90, "validation": 5000, "test": 7000}
    assert remarks == []
    for part in parts.values():
        assert (column(part.dataset, "label")[part.rows] == part.labels).all()


def test_fewer_rows_to_train_on_with_given_splits():
    given = table(numbered(90), test=numbered(30, "t"))
    parts, _ = texts.divide(given, 1, 30, [])
    assert {name: len(part.rows) for name, part in parts.items()} == {"train": 30, "validation": 9, "test": 30}
    assert set(parts["train"].labels) == {0, 1, 2}
    with pytest.raises(InputError, match="--max-train-samples 2: each of 3 labels needs a row: take more"):
        texts.divide(given, 1, 2, [])


def test_a_split_that_is_empty_is_taken_from_train_and_said():
    remarks = []
    parts, _ = texts.divide(table(numbered(90), test=[]), 1, None, remarks)
    assert {name: len(part.rows) for name, part in parts.items()} == {"train": 72, "validation": 9, "test": 9}
    assert remarks == ["No row of test can be used: a part of train takes its place."]


def test_a_label_that_is_left_without_a_row_to_train_on_is_said():
    remarks, train = [], [*numbered(90), ("Only here!", "rare"), ("and here!", "rare")]
    texts.divide(table(train, test=[("only here", "rare"), ("And here", "rare")]), 1, None, remarks)
    assert remarks == ["Label 'rare' has no row to train on: its texts are also in another split."]


def test_train_equal_to_test_is_named_as_the_reason():
    with pytest.raises(InputError, match=r"here\.csv: each text of train is also in test: give others"):
        texts.divide(table(numbered(30), test=numbered(30, "TEXT")), 1, None, [])


def test_texts_that_the_tokenizer_does_not_know_are_said_before_training(tmp_path):
    for name, checkpoint in (("words", MODEL), ("bytes", str(ROOT / "data/models/gpt2"))):
        told = {}
        for language, text in (("English", "A plain sentence, number {}"), ("Russian", "Мама мыла раму, {}")):
            data = write_csv(tmp_path / f"{name} {language}.csv", [(text.format(n), "ab"[n % 2]) for n in range(40)])
            facts = texts.prepare(
                texts.Source(str(data)), load_tokenizer(checkpoint), tmp_path / f"{name}-{language}", seed=0
            )
            told[language] = [line for _, line in describe(facts, str(data), None) if "unknown" in line]
        assert told["English"] == []
        assert "of the tokens are unknown to the checkpoint's tokenizer" in told["Russian"][0]


def test_an_encoding_that_is_told_decides(tmp_path):
    path, rows = tmp_path / "a.csv", [(f"Всё хорошо {n}", "да" if n % 2 else "нет") for n in range(6)]
    content = "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows])
    path.write_bytes(content.encode("iso8859-5"))
    found = texts.Source(str(path), encoding="iso8859-5").read(tmp_path / "cache")
    assert [(row["text"], found.labels[row["label"]]) for row in found.dataset] == rows
    assert found.remarks == []
