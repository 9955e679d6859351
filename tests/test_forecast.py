"""takehome/forecast.py: the memory that fine_tune.py announces, task by task, beside what its steps hold."""

from types import SimpleNamespace

import pytest
from fine_tune_runs import MODEL

from helpers.memory import measure
from takehome.classifier import build_model
from takehome.forecast import predict_memory
from takehome.tasks import make_task
from takehome.tasks.scores import Scale
from takehome.tokenizer import load_tokenizer

LABELS = {
    "classification": [f"class {n}" for n in range(77)],
    "multi-label": [f"label {n}" for n in range(20)],
    "regression": [],
    "tokens": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "questions": [],
}
LENGTH, ROWS = 96, 16


def rows_of(name: str, task, tokenizer, pair: bool) -> list[dict]:
    """Encoded rows of the full length, and a short one, so that the others stand beside padding."""
    texts = ["the bill is late", *[" ".join(["the bill is late"] * LENGTH)] * (ROWS - 1)]
    if name == "questions":  # the long texts make several windows each, the last of which is shorter
        asked = {
            "question": ["what"] * ROWS,
            "context": texts,
            "answers": [["bill"]] * ROWS,
            "start": [4] * ROWS,
        }
        encoded = task.encode(tokenizer, asked, LENGTH)
        whole = [n for n, ids in enumerate(encoded["input_ids"]) if len(ids) == LENGTH][: ROWS - 1]
        kept = [name for name in encoded if name not in (*task.beside, "owner")]
        return [{key: encoded[key][n] for key in kept} for n in (0, *whole)]
    label = {"classification": 3, "multi-label": [0.0, 1.0] * 10, "regression": 2.5, "tokens": None}[name]
    labels = [[0] * len(text.split()) if name == "tokens" else label for text in texts]
    batch = {"text": texts, "label": labels} | ({"pair": texts} if pair else {})
    encoded = task.encode(tokenizer, batch, LENGTH)
    encoded.pop("first", None)
    assert [len(ids) for ids in encoded["input_ids"]][1:] == [LENGTH] * (ROWS - 1)
    return [{key: values[n] for key, values in encoded.items()} for n in range(ROWS)]


@pytest.mark.parametrize(("name", "pair"), [*((name, False) for name in LABELS), ("classification", True)])
def test_the_memory_of_a_step_is_what_was_predicted(name, pair):
    import torch

    task = make_task(name, LABELS[name], Scale(2.5, 1, 0, 5, False))
    tokenizer = load_tokenizer(MODEL, words=name == "tokens").tokenizer
    model = build_model(MODEL, None, task, tokenizer.pad_token_id).model.train()
    batch = task.collator(tokenizer)(rows_of(name, task, tokenizer, pair))
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), task.loss(None)

    def step():
        labels = batch["labels"]
        loss(model(**{key: value for key, value in batch.items() if key != "labels"}), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    shape = dict(per_device_train_batch_size=ROWS, max_length=LENGTH, processes=1, device="cpu")
    how = dict(bf16=False, fp16=False, activation_checkpointing=False, lora=False)
    predicted = predict_memory(model, SimpleNamespace(task=name, **shape, **how))
    measured = measure(step).peak_bytes
    print(f"{name}{' of pairs' * pair}: predicted {predicted / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB")
    assert predicted == pytest.approx(measured, rel=0.01)
