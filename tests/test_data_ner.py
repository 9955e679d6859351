"""data/conll2003 is laid out as CoNLL-2003, cannot be solved by looking words up, and is rebuilt byte for byte."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from seqeval.metrics import f1_score

ROOT = Path(__file__).resolve().parents[1]
NER = ROOT / "data" / "conll2003"
NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]  # order of the original
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def builder(build_program):
    return build_program("ner")


@pytest.fixture(scope="module")
def tables():
    return {split: pq.read_table(NER / "conll2003" / f"{split}-00000-of-00001.parquet") for split in SPLITS}


@pytest.fixture(scope="module")
def splits(tables) -> dict[str, list[dict]]:
    """Rows as the builder has them: tokens, and tags as words."""
    return {
        split: [
            {"tokens": row["tokens"], "tags": [NAMES[number] for number in row["ner_tags"]]}
            for row in table.to_pylist()
        ]
        for split, table in tables.items()
    }


def test_columns_sizes_and_names(tables):
    for split, least in {"train": 1200, "validation": 300, "test": 300}.items():
        assert tables[split].column_names == ["id", "tokens", "ner_tags"]
        assert tables[split]["id"].to_pylist() == [str(number) for number in range(len(tables[split]))]
        assert len(tables[split]) >= least
    assert sum(path.stat().st_size for path in NER.rglob("*")) < 500_000


def test_card_declares_the_data(tables):
    front = yaml.safe_load((NER / "README.md").read_text(encoding="utf-8").split("---")[1])
    info = front["dataset_info"][0]
    assert front["configs"][0]["config_name"] == info["config_name"] == "conll2003"
    assert {s["name"]: s["num_examples"] for s in info["splits"]} == {name: len(rows) for name, rows in tables.items()}
    tags = next(feature for feature in info["features"] if feature["name"] == "ner_tags")
    assert tags["list"]["class_label"]["names"] == {str(number): name for number, name in enumerate(NAMES)}


def test_loads_with_names_of_tags(tables, tmp_path):
    from datasets import ClassLabel, List, load_dataset

    for place in ({"path": str(NER), "name": "conll2003"}, {"path": "parquet", "data_files": str(NER / "*/test-*")}):
        news = load_dataset(**place, cache_dir=tmp_path)
        rows = news["test" if "test" in news else "train"]
        assert rows.features["ner_tags"] == List(ClassLabel(names=NAMES))
        assert rows["tokens"][:] == tables["test"]["tokens"].to_pylist()


def test_tags_are_well_formed(splits):
    for rows in splits.values():
        for row in rows:
            assert 3 <= len(row["tokens"]) == len(row["tags"]) <= 40
            for before, tag in pairwise(["O", *row["tags"]]):
                assert not tag.startswith("I-") or before[2:] == tag[2:], row
            for token, tag in zip(row["tokens"], row["tags"], strict=True):
                assert re.fullmatch(r"[A-Za-z]+(-[A-Za-z]+)*|\d+(-\d+)?|'[sS]|[.,\"()]", token), token
                assert tag == "O" or token[0].isupper() or token.lower() in ("of", "and", "to", "for", "'s"), (
                    token,
                    tag,
                )


def test_articles_fit(splits):
    for rows in splits.values():
        for row in rows:
            for article, word in pairwise(row["tokens"]):
                if article in ("a", "an"):
                    assert (article == "an") == (word[0] in "aeioAEIOU" or word == "hour"), (article, word)


def test_no_sentence_twice_and_names_are_many(splits, builder):
    texts = [" ".join(row["tokens"]).lower() for rows in splits.values() for row in rows]
    assert len(set(texts)) == len(texts)
    kinds = Counter(kind for row in splits["test"] for kind, _, _ in builder.entities(row))
    assert set(kinds) == {"PER", "ORG", "LOC", "MISC"} and min(kinds.values()) > 80


def test_looking_words_up_is_not_enough(splits, builder):
    truth = [row["tags"] for row in splits["test"]]
    assert sum(tag == "O" for tags in truth for tag in tags) / sum(map(len, truth)) > 0.8
    for fold_case in (False, True):
        assert f1_score(truth, builder.lookup(splits, fold_case)) < 0.45
    # The lookup itself finds test sentences that were put into training.
    known = builder.lookup(splits | {"train": splits["train"] + 100 * splits["test"][:1]}, fold_case=True)
    assert known[0] == truth[0]


def test_names_are_new_and_ambiguous(splits, builder):
    assert 0.2 < builder.unseen(splits) < 0.5
    assert builder.unseen(splits | {"train": splits["test"]}) == 0
    assert builder.ambiguous(splits) > 0.5
    tags = {}
    for row in splits["train"]:
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            tags.setdefault(token.lower(), set()).add(tag[2:])
    assert tags["merrow"] >= {"LOC", "ORG", "PER"}, "a town, its team, and a surname"
    assert tags["frost"] >= {"", "PER"} and tags["baker"] >= {"", "PER"}, "words that are surnames"


def test_rebuild_gives_the_same_bytes(assert_rebuilds):
    assert_rebuilds("ner", NER)


def test_the_lesson_reads_data_of_another_shape(tmp_path, monkeypatch):
    """Other columns, tags as words without B and I, rows without words, words without tokens, no validation split."""
    sentence = {"words": ["Mrs", "Winterbourne", "\x07", "left", "Merrow"], "tags": ["O", "person", "O", "O", "place"]}
    rows = [sentence, {"words": ["-DOCSTART-"], "tags": ["O"]}, {"words": [], "tags": []}, *[sentence] * 12]
    (tmp_path / "news").mkdir()
    for split in ("train", "test"):
        (tmp_path / "news" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = "[conll2003]\ndataset = './news'\nmax_eval_samples = 3\nmax_length = 6\n"
    (tmp_path / "mine.toml").write_text(f"inherits = 'reduced'\n{settings}", encoding="utf-8")
    monkeypatch.setenv("FINETUNING_PROFILE", str(tmp_path / "mine.toml"))

    lesson = json.loads((ROOT / "notebooks" / "08_named_entities.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in lesson["cells"] if cell["cell_type"] == "code"]
    names = {}
    for cell in code[: next(i for i, cell in enumerate(code) if "rows.map(tokenize" in cell) + 1]:
        exec(cell, names)
    assert names["tag_names"] == ["O", "I-person", "I-place"]
    assert names["news"].num_rows == {"train": 10, "test": 13, "validation": 3}
    places, labels = names["test"][0]["first_tokens"], names["test"][0]["labels"]
    assert len(labels) == 6 and places[2] == places[4] == -1, "one word without a token, one cut off"
    assert [labels[place] for place in places[:2]] == [0, 1]


def word_and_neighbours(splits):
    """Tags of the test split from a linear classifier of each word and two words to the left and right."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    def described(row):
        padded = ["", "", *row["tokens"], "", ""]
        return [[f"{d}:{padded[i + d]}" for d in range(5)] for i in range(len(row["tokens"]))]

    model = make_pipeline(CountVectorizer(analyzer=list, binary=True), LinearSVC(C=0.3))
    features = [word for row in splits["train"] for word in described(row)]
    model.fit(features, [tag for row in splits["train"] for tag in row["tags"]])
    return [model.predict(described(row)).tolist() for row in splits["test"]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_beats_the_lookup_on_every_seed(splits, builder, seed, tmp_path):
    """Lesson 08's recipe: well above the lookup, on names with new words too, and far above unaligned labels."""
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from helpers.profiles import load_profile

    settings = load_profile("reduced").conll2003
    tokenizer = AutoTokenizer.from_pretrained(settings.checkpoint)

    def tokenized(row, aligned=True):
        encoded = tokenizer(row["tokens"], is_split_into_words=True)
        words, labels = encoded.word_ids(), [NAMES.index(tag) for tag in row["tags"]]
        if aligned:
            labels = [
                -100 if word is None or word == before else labels[word]
                for before, word in zip([None, *words], words, strict=False)
            ]
        return {"input_ids": encoded["input_ids"], "labels": (labels + [-100] * len(words))[: len(words)]}

    def f1(aligned, epochs):
        set_seed(seed)
        model = AutoModelForTokenClassification.from_pretrained(settings.checkpoint, num_labels=len(NAMES))
        keys = ("learning_rate", "per_device_train_batch_size", "warmup_steps", "weight_decay")
        recipe = {key: getattr(settings, key) for key in keys} | {"num_train_epochs": epochs, "seed": seed}
        trainer = Trainer(
            model,
            TrainingArguments(tmp_path, use_cpu=True, disable_tqdm=True, save_strategy="no", **recipe),
            train_dataset=[tokenized(row, aligned) for row in splits["train"]],
            data_collator=DataCollatorForTokenClassification(tokenizer),
        )
        trainer.train()
        outcome = trainer.predict([tokenized(row) for row in splits["test"]])
        kept = zip(outcome.predictions.argmax(-1), outcome.label_ids != -100, strict=True)
        return f1_score(truth, [[NAMES[number] for number in line[mask]] for line, mask in kept], zero_division=0)

    truth = [row["tags"] for row in splits["test"]]
    score = f1(aligned=True, epochs=settings.num_train_epochs)
    print(f"seed {seed}: F1 {score:.3f}")
    assert score > f1_score(truth, builder.lookup(splits, fold_case=False)) + 0.12
    assert f1_score(truth, word_and_neighbours(splits)) > score + 0.05, "lesson 08 says that the older method wins"
    assert f1(aligned=False, epochs=1) < 0.15
