"""The documents of a corpus as an endless stream of blocks of tokens, for scripts/pretrain_gpt2.py.

Documents are tokenised and joined with end-of-text between them, and the row of tokens is cut into blocks: nothing is
padded, nothing is thrown away at a document's end.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.hub_errors import explain
from helpers.streams import check_ranges, steady
from takehome.errors import InputError, one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

FILE_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text", ".csv": "csv"}


@dataclass(frozen=True)
class Corpus:
    """Where documents come from, and how they are mixed.

    Attributes:
        dataset: Hub id, directory, or files such as "texts/*.jsonl".
        validation_split: by default the first `validation_documents` of the first shard are held out.
        shuffle_buffer: documents shuffled together; 1 leaves them in their order.
        max_document_characters: longer ones are refused.
    """

    dataset: str
    dataset_config: str | None = None
    dataset_revision: str | None = None
    split: str = "train"
    text_column: str = "text"
    validation_split: str | None = None
    validation_documents: int = 200
    shuffle_buffer: int = 1000
    max_document_characters: int = 10_000_000
    seed: int = 42


@dataclass(frozen=True)
class Position:
    """Where the next token to train on stands: so many shards and documents of this epoch are behind it."""

    epoch: int = 0
    shard: int = 0
    document: int = 0
    token: int = 0


class TokenStream:
    """An endless stream of blocks from the documents of a corpus, which can start again at any `Position`.

    An epoch visits the shards in random order and shuffles documents among their next `shuffle_buffer` ones. Both
    orders follow from the seed and the position, so four numbers are all there is to remember.
    """

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerBase):
        from datasets import load_dataset

        self.corpus, self.tokenizer = corpus, tokenizer
        path, files = corpus.dataset, None
        if Path(path).is_dir():
            path = str(Path(path).absolute())  # a relative path may be taken for a Hub id
        elif Path(path).exists() and not Path(path).is_file():
            raise InputError(f"--dataset {path} is neither a file nor a directory")
        elif Path(path).suffix in FILE_KINDS:
            path, files = FILE_KINDS[Path(path).suffix], str(Path(path).absolute())
        self.source = dict(path=path, name=corpus.dataset_config, data_files=files, revision=corpus.dataset_revision)
        check_ranges()
        try:
            self.dataset = load_dataset(**self.source, split=corpus.split, streaming=True)
            columns = self.dataset.column_names or list(next(iter(self.dataset), {}))
            if corpus.validation_split:
                self.validation = load_dataset(**self.source, split=corpus.validation_split, streaming=True)
        except Exception as cause:  # every builder raises errors of its own
            raise InputError(f"--dataset {corpus.dataset} cannot be read: {explain(cause, corpus.dataset)}") from cause
        if not columns:
            raise InputError(f"--dataset {corpus.dataset} holds no documents")
        if corpus.text_column not in columns:
            raise InputError(
                f"--dataset {corpus.dataset} has no column {corpus.text_column!r}; it has {', '.join(columns)}: "
                "name the one that holds the text with --text-column"
            )
        self.num_shards = self.dataset.num_shards
        self.held_out = 0 if corpus.validation_split else corpus.validation_documents  # at the start of shard 0
        self.seconds = 0.0  # spent on reading, tokenising and packing

    def shard_name(self, shard: int) -> str:
        from datasets import load_dataset_builder

        try:
            files = (load_dataset_builder(**self.source).config.data_files or {}).get(self.corpus.split, [])
        except Exception:  # without the network that failed before
            files = []
        return files[shard] if len(files) == self.num_shards else f"shard {shard} of {self.corpus.dataset}"

    def read(self, rows, number: int, shard: int, first: int) -> list[str]:
        """Takes the next `number` texts of a shard, the first of which is its document `first`."""
        texts = []

        def refuse(what: str, cause: Exception | None = None):
            raise InputError(f"{self.shard_name(shard)}{what}") from cause

        try:
            for row in islice(rows, number):
                texts.append(row[self.corpus.text_column])
        except Exception as cause:  # cut off, not UTF-8, not Parquet, gone: each reader has errors of its own
            if "BatchSize must be greater than 0" not in str(cause):  # a Parquet file without rows: said elsewhere
                refuse(f" cannot be read after document {first + len(texts)}: {told(cause)}", cause)
        for document, text in enumerate(texts, first):
            if not isinstance(text, str):
                refuse(f": document {document} is no text but {one_line(repr(text), 80)}")
            if len(text) > self.corpus.max_document_characters:
                refuse(
                    f": document {document} has {len(text):,} characters; is it many documents in one line? "
                    "Split it, or raise --max-document-characters"
                )
        return texts

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Returns an array of token ids for each text, with end-of-text at its end."""
        encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        end = self.tokenizer.eos_token_id  # which takes as long to look up as a short text to copy
        return [np.array([*text.ids, end], dtype=np.int32) for text in encoded]

    def documents(self, start: Position):
        """Yields (position of its first token, token ids) for each document from `start` on, for ever."""

        def order(size: int, *key: int):
            return np.random.default_rng([self.corpus.seed, *key]).permutation(size).tolist()

        epoch, first_shard, first = start.epoch, start.shard, start.document
        buffer = self.corpus.shuffle_buffer
        while True:
            for number, shard in list(enumerate(order(self.num_shards, epoch)))[first_shard:]:
                window = first - first % buffer  # shuffled as a whole, so it is read as a whole
                skipped = window + (self.held_out if shard == 0 else 0)
                rows = steady(self.dataset.shard(num_shards=self.num_shards, index=shard), start=skipped)
                while texts := self.read(rows, buffer, shard, skipped):
                    shuffled = [texts[i] for i in order(len(texts), epoch, shard, window)]
                    for i in range(first - window, len(texts), 64):
                        for k, ids in enumerate(self.encode(shuffled[i : i + 64]), window + i):
                            yield Position(epoch, number, k), ids
                    skipped += len(texts)
                    first = window = window + len(texts)
                if not first:
                    raise InputError(f"{self.shard_name(shard)} holds no documents to train on: remove it")
                first = 0
            epoch, first_shard = epoch + 1, 0

    def blocks(self, rows: int, length: int, start: Position):
        """Yields (block ids, the position after them); ids [rows, length + 1], a row's last is the next row's first."""
        need, have, waiting = rows * length, 0, []  # waiting: documents' parts that are not handed out
        for position, ids in self.documents(start):
            begun = start.token if position == replace(start, token=0) else 0
            waiting.append((position, begun, ids[begun:]))
            have += len(ids) - begun
            while have > need:
                flat = np.concatenate([ids for _, _, ids in waiting])[: need + 1]
                left = need
                while len(waiting[0][2]) <= left:
                    left -= len(waiting.pop(0)[2])
                position, begun, ids = waiting[0]
                waiting[0] = position, begun + left, ids[left:]
                have -= need
                yield cut(flat, length), replace(position, token=begun + left)

    def validation_blocks(self, length: int) -> torch.Tensor:
        """Returns the blocks [blocks, length + 1] of the documents that are held out."""
        rows = self.validation if self.corpus.validation_split else self.dataset.shard(self.num_shards, index=0)
        texts = self.read(steady(rows), self.corpus.validation_documents, 0, 0)
        if len(texts) < self.held_out:
            raise InputError(
                f"--validation-documents {self.held_out}: {self.shard_name(0)} has only {len(texts)}; take fewer"
            )
        ids = np.concatenate(self.encode(texts)) if texts else np.zeros(0)
        if len(ids) <= length:
            raise InputError(f"the {len(texts)} validation documents have {len(ids)} tokens, fewer than one block")
        return cut(ids, length)

    def read_ahead(self, rows: int, length: int, start: Position):
        """Yields what `blocks` yields, made in the background while the step before is computed."""
        blocks = self.blocks(rows, length, start)

        def timed():
            begin = time.perf_counter()
            made = next(blocks)
            self.seconds += time.perf_counter() - begin
            return made

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(timed)
            while True:
                made, future = future.result(), pool.submit(timed)
                yield made


def told(cause: Exception) -> str:
    return f"{type(cause).__name__}: {one_line(cause)}"


def cut(ids: np.ndarray, length: int) -> torch.Tensor:
    """Cuts a row of ids into blocks [blocks, length + 1] that overlap by one; what fills no block is left out."""
    import torch

    blocks = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::length]
    return torch.from_numpy(blocks.astype(np.int64))
