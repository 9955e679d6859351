"""The tokenizer of a checkpoint: loaded so that it can pad, asked what it does not know, saved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers.hub_errors import explain
from takehome.errors import InputError, one_line
from takehome.models import SAFE

ROOT = Path(__file__).resolve().parent.parent
NO_LIMIT = 10**9
# Beside RoBERTa's, models that count positions from behind the padding token's number
BEHIND_PADDING = ("camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "mpnet", "xmod")


@dataclass(frozen=True)
class LoadedTokenizer:
    """A checkpoint's tokenizer, and what there is to know of its model before the weights are read."""

    checkpoint: str
    revision: str | None
    tokenizer: Any
    limit: int  # tokens that the model takes at most; where there is no limit, as many as are usual
    width: int  # of its hidden states

    def for_words(self) -> LoadedTokenizer:
        """The same, for texts that are lists of words."""
        return load_tokenizer(self.checkpoint, self.revision, words=True)


def load_tokenizer(
    checkpoint: str, revision: str | None = None, max_length: int | None = None, words: bool = False
) -> LoadedTokenizer:
    """The tokenizer of a checkpoint, with a token to pad with.

    Raises:
        InputError: there is no such checkpoint, it has no tokenizer that can pad, or it takes fewer than `max_length`.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, **SAFE)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision, **SAFE)
    except Exception as cause:  # not there, not JSON, an unknown architecture, no network: each has its own
        raise bad_checkpoint(checkpoint, cause) from cause
    if words and getattr(tokenizer, "add_prefix_space", None) is False:  # GPT-2 and RoBERTa: a word begins with a space
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision, add_prefix_space=True, **SAFE)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise InputError(f"--checkpoint {checkpoint}: its tokenizer has no token to pad with: take another")
    limit = longest_text(config, tokenizer)
    if max_length and limit and max_length > limit:
        raise InputError(f"--max-length {max_length}: {checkpoint} takes at most {limit} tokens: take fewer")
    width = getattr(config.get_text_config(), "hidden_size", 768)
    return LoadedTokenizer(checkpoint, revision, tokenizer, limit or max(max_length or 0, 512), width)


def longest_text(config, tokenizer) -> int | None:
    """Tokens of a text that a model takes at most; None where neither its config nor its tokenizer sets a limit."""
    config = config.get_text_config()  # of a model that sees pictures, too
    positions = getattr(config, "max_position_embeddings", None) or 0
    if positions <= 0:  # XLNet writes -1
        positions = NO_LIMIT
    elif "roberta" in config.model_type or config.model_type in BEHIND_PADDING:
        positions -= (config.pad_token_id or 0) + 1
    limit = min(positions, tokenizer.model_max_length)
    return int(limit) if limit < NO_LIMIT else None


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Saves it without the padding and the cut of whoever used it last: whoever loads it asks for what he needs."""
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        backend.no_padding()
        backend.no_truncation()
    tokenizer.save_pretrained(folder)


def bad_checkpoint(checkpoint: str, cause: Exception) -> InputError:
    """What is wrong with a checkpoint that could not be loaded."""
    said = str(cause) if isinstance(cause, InputError) else explain(cause, checkpoint)
    ours = "" if Path(checkpoint).exists() else "; or take a model that is here, such as --checkpoint "
    ours += os.path.relpath(ROOT / "data/models/distilbert") if ours else ""
    return InputError(f"--checkpoint {one_line(said, 600)}{ours}")


def unknown_share(sample: list[list[int]], tokenizer) -> float:
    """The share of tokens that are unknown, or stand for a byte that is no character: texts of another language."""
    ids, counts = np.unique(np.concatenate(sample), return_counts=True)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    unknown, total = 0, 0
    for token, count in zip(ids.tolist(), counts.tolist(), strict=True):
        total += 0 if token in special else count
        if token not in special and (token == tokenizer.unk_token_id or "\ufffd" in tokenizer.decode([token])):
            unknown += count
    return unknown / max(1, total)
