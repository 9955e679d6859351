"""Long texts in windows: each part is read by itself, and the parts vote with the mean of their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.wording import counted

if TYPE_CHECKING:
    from datasets import Dataset


def cut_into_windows(dataset: Dataset, tokenizer: Any, length: int) -> tuple[Dataset, np.ndarray]:
    """Parts of the texts of at most `length` tokens, each beginning a quarter before the end of the one before it.

    Returns:
        A data set of the parts, and the row that each belongs to [parts].
    """
    from datasets import Dataset

    parts, owner, row = [], [], 0
    for batch in dataset.select_columns("text").iter(100):
        for text in batch["text"]:
            told = dict(truncation=True, max_length=length, stride=length // 4, return_overflowing_tokens=True)
            encoded = tokenizer(text, **told, return_offsets_mapping=True)
            for offsets in encoded["offset_mapping"]:
                places = [place for place in offsets if place[1] > place[0]]
                parts.append(text[places[0][0] : places[-1][1]] if places else text)
                owner.append(row)
            row += 1
    return Dataset.from_dict({"text": parts}), np.array(owner)


def vote(outputs: np.ndarray, owner: np.ndarray, rows: int) -> tuple[np.ndarray, str]:
    """The mean of the outputs of each row's windows [rows, ...], and how they voted, in words.

    Args:
        outputs: of the windows [windows, labels], or [windows] for scores.
        owner: the row of each [windows].
        rows: how many there are.
    """
    windows = np.bincount(owner, minlength=rows)
    total = np.zeros((rows, *outputs.shape[1:]))
    np.add.at(total, owner, outputs)
    means = total / windows.reshape(-1, *[1] * (outputs.ndim - 1))
    several = windows > 1
    said = f"{counted(int(several.sum()), 'text')} read in 2 windows or more, at most {windows.max()}"
    if outputs.ndim > 1 and several.any():
        differs = outputs.argmax(-1) != means.argmax(-1)[owner]
        divided = np.bincount(owner, weights=differs, minlength=rows) > 0
        said += f"; of {int((divided & several).sum()):,} the windows do not agree on the likeliest label"
    return means, said
