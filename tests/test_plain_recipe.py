"""tools/plain_recipe.py: the plain recipe trains on the rows that fine_tune.py takes; the table says what came out."""

import csv
import json

import plain_recipe
import pytest
from fine_tune_runs import DOCUMENTS, MODEL
from plain_recipe import Result


def test_the_plain_recipe_pads_to_the_longest_and_is_measured_on_the_test_rows(monkeypatch, tmp_path):
    from transformers import Trainer

    seen, predict = [], Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda self, rows: seen.append((self, rows)) or predict(self, rows))
    monkeypatch.setattr(plain_recipe, "EPOCHS", 0.1)
    with DOCUMENTS.open(encoding="utf-8") as all_rows, (tmp_path / "small.csv").open("w", encoding="utf-8") as few:
        csv.writer(few).writerows(list(csv.reader(all_rows))[:100])
    score = plain_recipe.train(str(tmp_path / "small.csv"), MODEL, 3, tmp_path)
    trainer, rows = seen[0]
    facts = json.loads((tmp_path / "facts.json").read_text("utf-8"))
    assert len(rows) == facts["rows"]["test"]
    assert score * len(rows) == pytest.approx(round(score * len(rows)))
    batches = [batch["input_ids"] for batch in (*trainer.get_eval_dataloader(), *trainer.get_eval_dataloader(rows))]
    assert len({batch.shape[1] for batch in batches}) == 1
    assert trainer.args.learning_rate == plain_recipe.RATE


def test_each_seed_has_a_row_and_the_end_has_the_means(monkeypatch, capsys):
    results = {0: (Result(0.9, 10, 20), Result(0.7, 30, 40)), 1: (Result(0.8, 10, 20), Result(0.7, 20, 50))}
    monkeypatch.setattr(
        plain_recipe, "compare", lambda data, model, seed, folder: (*results[seed], {"always 'a'": 0.5})
    )
    plain_recipe.main(["--data", "a.csv", "--checkpoint", "b", "--seeds", "2"])
    _, first, second, end = capsys.readouterr().out.splitlines()
    assert "90.0 % in     10 s" in first and "always 'a' 50.0 %" in first and "3.00     2.00" in first
    assert second.startswith("1") and "2.00     2.50" in second
    assert end == "fine_tune.py 85.0 %, plain recipe 70.0 %; 2.50 times as fast"
