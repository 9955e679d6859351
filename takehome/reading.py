"""Questions and their texts as windows of tokens, and from two numbers for each token back to answers.

    windows = cut(tokenizer, {"question": [...], "context": [...]}, length=384, stride=96)
    spans = best_spans(start_logits, end_logits, labels, longest=30)      # five numbers a window: nothing else is kept
    chosen, none = best_windows(spans, owner)                             # one window a question

A window is a question with a part of its text. "labels" of a window are four places among its tokens: the first and the
last of the answer (0 and 0 if it is not whole there), and the first and the last of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

NOWHERE = -1e9  # the score of an answer that cannot be
ANSWERS = np.dtype([("text", object), ("probability", float), ("none", float)])  # of a question


@dataclass(frozen=True)
class Reading:
    """How texts are read: `doc_stride` tokens are in two neighbouring windows of at most `max_length` tokens."""

    max_length: int
    doc_stride: int
    max_answer_length: int  # tokens


def cut(tokenizer: PreTrainedTokenizerBase, batch: dict[str, list], length: int, stride: int) -> dict[str, list]:
    """The windows of some rows.

    Args:
        tokenizer: a fast one.
        batch: question and context of each row; with answers and start, windows have labels of the answer.
        length: tokens of a window at most.
        stride: tokens that are in two neighbouring windows.

    Returns:
        Of each window: what the model reads; "labels" (see above); "owner", its row in the batch; "piece", its part of
        the text; "offsets", where the tokens of the piece begin and end in it, one after the other; and "accepted",
        the answers of its row, if there are any.
    """
    encoded = tokenizer(
        shorten(tokenizer, batch["question"], room_for_question(length, stride)),
        batch["context"],
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owner, places = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    encoded.pop("attention_mask", None)
    made: dict[str, list] = {name: [] for name in ("labels", "piece", "offsets")}
    for number, (row, own) in enumerate(zip(owner, places, strict=True)):
        inside = [n for n, part in enumerate(encoded.sequence_ids(number)) if part == 1]
        first, last = (inside[0], inside[-1]) if inside else (1, 0)
        offsets = np.array(own[first : last + 1], np.int64).reshape(-1, 2)
        begin, end = (offsets[0, 0], offsets[-1, 1]) if inside else (0, 0)
        start = batch["start"][row] if "start" in batch else -1
        answer = answer_tokens(offsets, start, start + len(batch["answers"][row][0])) if start >= 0 else None
        labels = [first + answer[0], first + answer[1]] if answer else [0, 0]
        made["labels"].append([*labels, first, last])
        made["piece"].append(batch["context"][row][begin:end])
        made["offsets"].append((offsets - begin).ravel().tolist())
    made["owner"] = owner
    if "answers" in batch:
        made["accepted"] = [batch["answers"][row] for row in owner]
    return dict(encoded) | made


def room_for_question(length: int, stride: int) -> int:
    """Tokens that a question may have, so that each window gets on in the text."""
    return length - stride - 8


def shorten(tokenizer: PreTrainedTokenizerBase, questions: list[str], most: int) -> list[str]:
    """Questions of at most so many tokens: a window needs room for the text."""
    told = dict(add_special_tokens=False, truncation=True, max_length=most + 1)
    offsets = tokenizer(questions, **told, return_offsets_mapping=True)["offset_mapping"]
    return [
        question if len(own) <= most else question[: own[most - 1][1]]
        for question, own in zip(questions, offsets, strict=True)
    ]


def answer_tokens(offsets: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """The first and the last token of the characters from `start` to `end`, if they are whole; offsets [tokens, 2]."""
    begins, ends = offsets.T
    touched = np.flatnonzero((begins < end) & (ends > start) & (ends > begins))
    if not len(touched) or begins[touched[0]] > start or ends[touched[-1]] < end:
        return None
    return int(touched[0]), int(touched[-1])


def mask(labels: torch.Tensor, tokens: int) -> torch.Tensor:
    """Which tokens belong to the text [windows, tokens]."""
    import torch

    places = torch.arange(tokens, device=labels.device)
    return (places >= labels[:, 2:3]) & (places <= labels[:, 3:4])


def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, labels: torch.Tensor, longest: int
) -> torch.Tensor:
    """The best answer of each window.

    Args:
        start_logits, end_logits: [windows, tokens].
        labels: [windows, 4].
        longest: tokens of an answer at most.

    Returns:
        [windows, 5]: the score of the best answer, its first and its last token counted from the first of the text, the
        score of no answer, and the logarithm of the answer's probability.
    """
    import torch

    start, end, inside = start_logits.float(), end_logits.float(), mask(labels, start_logits.shape[1])
    none = start[:, 0] + end[:, 0]
    allowed = inside.clone()
    allowed[:, 0] = True
    total = sum(logits.masked_fill(~allowed, -torch.inf).logsumexp(1) for logits in (start, end))
    start, end = (logits.masked_fill(~inside, -torch.inf) for logits in (start, end))
    best = torch.full_like(none, NOWHERE)
    first = last = labels[:, 2]
    for more in range(min(longest, start.shape[1])):  # tokens of the answer behind its first
        score, place = (start[:, : start.shape[1] - more] + end[:, more:]).max(1)
        better = score > best
        best, first = torch.where(better, score, best), torch.where(better, place, first)
        last = torch.where(better, place + more, last)
    return torch.stack([best, first - labels[:, 2], last - labels[:, 2], none, best - total], 1)


def best_windows(spans: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each question, in the order of their numbers, the window with the best answer, and what speaks for none.

    Args:
        spans: [windows, 5].
        owner: the question of each window [windows].

    Returns:
        Numbers of windows [questions], and the no-answer probabilities [questions]: no answer in the window that is
        least sure of it, against the best answer of all windows.
    """
    order = np.lexsort((-spans[:, 0], owner))
    begins = np.flatnonzero(np.diff(owner[order], prepend=-1))
    chosen = order[begins]
    none = np.minimum.reduceat(spans[order, 3], begins) if len(order) else np.zeros(0)
    differences = none.astype(np.float64) - spans[chosen, 0]
    return chosen, 1 / (1 + np.exp(-differences.clip(-50, 50)))


def answers_of(
    spans: np.ndarray, none: np.ndarray, pieces: Sequence[str], offsets: Sequence[Sequence[int]]
) -> np.ndarray:
    """The best answer of each question, its probability in its window, and that of no answer [questions] of ANSWERS.

    Args:
        spans: of the chosen windows [questions, 5].
        none: the no-answer probabilities [questions].
        pieces, offsets: of the chosen windows.
    """
    found = np.empty(len(spans), ANSWERS)
    found["none"], found["probability"] = none, np.exp(spans[:, 4].astype(np.float64).clip(-700, 0))
    for n, (piece, own) in enumerate(zip(pieces, offsets, strict=True)):
        first, last = int(spans[n, 1]), int(spans[n, 2])
        found["text"][n] = piece[own[2 * first] : own[2 * last + 1]].strip() if own else ""
    return found


def answer_questions(
    model: Any, tokenizer: PreTrainedTokenizerBase, batch: dict[str, list], reading: Reading, batch_size: int
) -> np.ndarray:
    """What a model answers to some questions [questions] of ANSWERS; windows of like length are read together.

    Args:
        model: with a head for questions, on its device.
        tokenizer: its own.
        batch: question and context of each row.
        reading: how.
        batch_size: windows that are read at a time.
    """
    import torch

    tokenizer.padding_side = "right"  # or the places of tokens would move
    windows = cut(tokenizer, batch, reading.max_length, reading.doc_stride)
    names = [name for name in tokenizer.model_input_names if name in windows]
    spans = np.zeros((len(windows["labels"]), 5), np.float32)
    order = np.argsort([-len(ids) for ids in windows["input_ids"]], kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = tokenizer.pad({name: [windows[name][n] for n in chosen] for name in names}, return_tensors="pt")
        labels = torch.tensor([windows["labels"][n] for n in chosen], device=model.device)
        with torch.inference_mode():
            outputs = model(**rows.to(model.device))
            found = best_spans(outputs.start_logits, outputs.end_logits, labels, reading.max_answer_length)
        spans[chosen] = found.cpu().numpy()
    chosen, none = best_windows(spans, np.array(windows["owner"]))
    return answers_of(spans[chosen], none, *([windows[name][n] for n in chosen] for name in ("piece", "offsets")))
