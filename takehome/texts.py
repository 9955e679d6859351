"""Labelled texts for fine_tune.py: read, divided without leakage, tokenised into Arrow files."""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from takehome.baselines import MAX_ROWS
from takehome.checkpoints import write_file
from takehome.entity_files import looks_marked, read_entities
from takehome.errors import InputError
from takehome.reading import Reading
from takehome.table_files import Place
from takehome.tables import Table, read_table
from takehome.tasks import Scale, Task, make_task
from takehome.tasks.scores import scale_of
from takehome.tasks.task import column
from takehome.tokenizer import LoadedTokenizer, unknown_share
from takehome.values import hash64, visible

MAX_VALIDATION = 5000  # rows: training evaluates often


@dataclass(frozen=True)
class Source:
    """Where labelled texts come from; the arguments of `read_table`."""

    data: str  # file, directory or Hub id
    text_column: str | None = None
    label_column: str | None = None
    config: str | None = None  # of a data set on the Hub
    revision: str | None = None
    encoding: str | None = None  # of files of text; found out by default
    task: str | None = None  # found out by default
    pair_column: str | None = None
    pairs: bool = False  # insist on two columns of texts
    pdf_pages: bool = False  # of PDFs a row for each page, not for each document

    def read(self, cache_dir: Path) -> Table:
        place = Place(self.data, self.config, self.revision, self.encoding, self.pdf_pages)
        if self.task == "tokens" or (self.task is None and looks_marked(place, cache_dir)):
            return read_entities(place, cache_dir=cache_dir)
        return read_table(
            self.data,
            self.text_column,
            self.label_column,
            config=self.config,
            revision=self.revision,
            encoding=self.encoding,
            pdf_pages=self.pdf_pages,
            task=self.task,
            pair_column=self.pair_column,
            pairs=self.pairs,
            cache_dir=cache_dir,
        )


@dataclass(frozen=True)
class Facts:
    """What was found in the data, and how it was divided and cut: `facts.json`, and "data" in metrics.json."""

    task: str
    file: str  # its name only, or the Hub id
    text_column: str
    pair_column: str | None
    label_column: str
    labels: list[str]  # by id: classes, labels or tags; none for scores
    scale: Scale | None  # of scores
    remarks: list[str]
    digest: str  # of all texts and labels
    limit: int  # tokens that the model takes at most
    max_length: int  # tokens that training reads of a text
    tokens_median: float
    tokens_95: float  # so many tokens or fewer have 95 % of the texts
    cut_share: float  # of the texts that are longer than max_length
    unknown_share: float  # of the tokens that stand for what the tokenizer does not know, or for a single byte
    rows: dict[str, int]  # of train, validation and test
    windows: dict[str, int]  # that are made of them, where a text may be read in several; else the same
    reading: Reading | None  # how texts are read that questions are asked about
    counts: dict[str, list[int]]  # rows of each label, by its id, in train, validation and test
    baselines: dict[str, dict[str, float]]  # what simpler ways score on the test rows
    width: int  # of the model's hidden states

    def save(self, folder: Path) -> None:
        write_file(folder / "facts.json", json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "Facts":
        saved = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        made = {"scale": saved["scale"] and Scale(**saved["scale"])}
        return cls(**saved | made | {"reading": saved["reading"] and Reading(**saved["reading"])})

    def make_task(self) -> Task:
        return make_task(self.task, self.labels, self.scale, reading=self.reading)


@dataclass(frozen=True)
class Part:
    """Train, validation or test: some rows of a data set that was read."""

    dataset: Any  # datasets.Dataset
    rows: np.ndarray  # [rows of this part]
    labels: np.ndarray  # their class ids, or strata of another task [rows of this part]

    def select(self) -> Any:
        """Its rows as a data set of their own."""
        return self.dataset.select(self.rows)

    def draw(self, number: int, seed: int) -> "Part":
        """At most `number` of the rows, each label's first."""
        chosen = draw(np.arange(len(self.rows)), self.labels, number, seed)
        return Part(self.dataset, self.rows[chosen], self.labels[chosen])


# ------------------------------------------------------------------ which texts are equal, and who goes where


def normalise(text: str) -> str:
    """What two texts share that differ in case, spaces, punctuation, form of characters or what cannot be seen only."""
    text = unicodedata.normalize("NFKC", visible(text)).casefold()
    return " ".join(re.findall(r"\w+", text)) or " ".join(text.split())


def hash_texts(dataset) -> np.ndarray:
    """A 64-bit number for each text, pair, or context of a question [rows]: the same for those that are equal when
    normalised."""
    numbers, row = np.empty(len(dataset), dtype=np.uint64), 0
    names = [name for name in ("text", "pair", "context") if name in dataset.column_names]
    for batch in dataset.select_columns(names).iter(1000):
        for texts in zip(*(batch[name] for name in names), strict=True):
            numbers[row], row = hash64("\x1f".join(map(normalise, texts))), row + 1
    return numbers


def join_groups(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Groups of rows that share a number of one kind or of the other, also by way of further rows [rows]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ids = [np.unique(numbers, return_inverse=True)[1] for numbers in (one, other)]
    nodes = np.stack([ids[0], ids[1] + ids[0].max() + 1])
    links = coo_array((np.ones(len(one)), nodes), shape=(nodes.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][ids[0]]


def shares(sizes: np.ndarray, total: int, most: int) -> np.ndarray:
    """Divides `total` in proportion to `sizes` [classes] into whole numbers, each at least 1, together at most `most`.

    The largest remainders are rounded up. Where there are more classes than `most`, the smallest get 0.
    """
    exact = sizes * (total / max(1, sizes.sum()))
    numbers = np.maximum(exact.astype(int), 1)
    behind = np.argsort(-(exact - numbers), kind="stable")  # those that rounding down cost most come first
    numbers[behind[: max(0, min(total, most) - numbers.sum())]] += 1
    while (excess := numbers.sum() - most) > 0:
        largest = numbers == numbers.max()
        if numbers.max() > 1:
            numbers[np.flatnonzero(largest)[:excess]] -= 1
        else:
            numbers[np.argsort(sizes, kind="stable")[:excess]] = 0
    return numbers


def split_rows(
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    parts: Collection[str] = ("validation", "test"),
    most: int = MAX_VALIDATION,
) -> dict[str, np.ndarray]:
    """Divides rows so that each label has its share everywhere and rows of a group stay together.

    Args:
        labels: class of each row [rows].
        groups: rows with the same number stay together [rows].
        seed: of the draw.
        parts: what to split off; each gets a tenth, at most `most` rows.

    Returns:
        Row numbers of "train" and of each of `parts`, in order. A label with few groups is first of all in train.
    """
    rng = np.random.default_rng(seed)
    _, first, group_of, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    part, left = np.zeros(len(first), dtype=int), dict.fromkeys(range(len(parts), 0, -1), most)
    classes, class_of = np.unique(labels[first], return_inverse=True)
    sizes = np.bincount(class_of, weights=size, minlength=len(classes)).astype(int)
    wanted = shares(sizes, min(round(len(labels) / 10), most), most)
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero(class_of == label))
        for number in left:
            free = members[part[members] == 0]
            if len(free) < 2 or not wanted[label]:
                break
            taken = free[np.cumsum(size[free]) <= wanted[label]]
            taken = taken if len(taken) else free[[size[free].argmin()]]
            if size[taken].sum() <= left[number]:
                part[taken] = number
                left[number] -= size[taken].sum()
    return {name: np.flatnonzero(part[group_of] == n) for n, name in enumerate(["train", *parts])}


def draw(rows: np.ndarray, labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Takes `number` of the rows at random, of each label at least one while there is room.

    Args:
        rows: row numbers [rows].
        labels: class of each row that they count [all rows].
    """
    rows = np.random.default_rng(seed).permutation(rows)
    first = np.unique(labels[rows], return_index=True)[1]
    return np.sort(np.concatenate([rows[first], np.delete(rows, first)])[:number])


def divide(
    table: Table, seed: int, max_train_samples: int | None, remarks: list[str], task: Task | None = None
) -> tuple[dict[str, Part], str]:
    """Train, validation and test of a table, and a digest of all its texts and labels.

    Splits that the table has are kept, a validation split up to 5,000 rows of it. What is missing is taken from train,
    and a text that stands in another split is not in train.
    """
    task = task or make_task(table.task, table.labels)
    sources = {"train": table.dataset}
    for name, source in table.splits.items():
        if len(source):
            sources[name] = source
        else:
            remarks.append(f"No row of {name} can be used: a part of train takes its place.")
    labels = {name: task.strata(source) for name, source in sources.items()}
    groups = {name: hash_texts(source) for name, source in sources.items()}
    digest = hashlib.sha256(b"".join(groups[name].tobytes() + task.digest(sources[name]) for name in groups))

    given = [groups[name] for name in sources if name != "train"]
    alone = ~np.isin(groups["train"], np.concatenate(given)) if given else np.full(len(groups["train"]), True)
    own = np.flatnonzero(alone)
    if task.name == "questions" and (lost := len(alone) - len(own)):
        remarks.append(f"{lost:,} rows of train left out: their contexts are also in another split.")
    if not len(own):
        raise InputError(f"{table.path}: each text of train is also in {' or '.join(table.splits)}: give others")
    missing = [name for name in ("validation", "test") if name not in sources]
    together = join_groups(groups["train"][own], column(table.dataset, "row")[own])  # equal texts; pages of a PDF
    rows = split_rows(labels["train"][own], together, seed, missing)
    parts = {name: Part(table.dataset, own[part], labels["train"][own[part]]) for name, part in rows.items()}
    for name, source in sources.items():
        if name != "train":
            parts[name] = Part(source, np.arange(len(source)), labels[name])
    parts["validation"] = parts["validation"].draw(MAX_VALIDATION, seed)
    if empty := [name for name, part in parts.items() if not len(part.rows)]:
        raise InputError(
            f"{table.path}: {len(own)} different texts leave none for {empty[0]}: at least one label needs three"
        )
    if max_train_samples:
        classes = len(np.unique(parts["train"].labels))
        if max_train_samples < classes and task.name == "classification":
            raise InputError(
                f"--max-train-samples {max_train_samples}: each of {classes} labels needs a row: take more"
            )
        parts["train"] = parts["train"].draw(max_train_samples, seed)
    counts = task.counts(task.answers(parts["train"].select()))
    for name in (name for name, count in zip(task.counted(), counts, strict=False) if not count):
        remarks.append(f"Label {name!r} has no row to train on: its texts are also in another split.")
    return parts, digest.hexdigest()


# ------------------------------------------------------------------ tokens


def prepare(
    source: Source,
    loaded: LoadedTokenizer,
    folder: Path,
    *,
    seed: int,
    max_length: int | None = None,
    max_train_samples: int | None = None,
) -> Facts:
    """Reads, divides and tokenises the data into Arrow files in a folder; returns and saves what there is to know.

    Args:
        source: what to read.
        loaded: the tokenizer.
        folder: an empty one; train.arrow, validation.arrow, test.arrow and facts.json are written there.
        seed: of the split and the draws.
        max_length: tokens that training reads of a text; by default 95 % of the texts fit.
        max_train_samples: rows to train on, drawn at random; by default all.

    Raises:
        InputError: the data cannot be used.
    """
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    table = source.read(folder)
    remarks = list(table.remarks)
    task = make_task(table.task, table.labels)
    loaded = loaded.for_words() if task.name == "tokens" else loaded
    task.check(loaded, max_length)
    parts, digest = divide(table, seed, max_train_samples, remarks, task)
    answers = {name: task.answers(part.select()) for name, part in parts.items()}
    task.scale = scale_of(answers["train"]) if table.task == "regression" else None
    lengths = _lengths(parts["train"], loaded, seed, task, max_length)
    told = loaded.tokenizer, lengths["max_length"], folder, task
    encoded = {name: _tokenise(part, name, *told) for name, part in parts.items()}
    known = parts["train"].draw(MAX_ROWS, seed)
    facts = Facts(
        task=task.name,
        file=Path(source.data).name if Path(source.data).exists() else source.data,
        text_column=table.text_column,
        pair_column=table.pair_column,
        label_column=table.label_column,
        labels=table.labels,
        scale=task.scale,
        remarks=remarks + task.remark_windows(encoded["train"], answers["train"]),
        digest=digest,
        rows={name: len(part.rows) for name, part in parts.items()},
        windows={name: len(rows) for name, rows in encoded.items()},
        reading=task.reading,
        counts={name: task.counts(own) for name, own in answers.items()},
        baselines=task.baselines(known.select(), parts["validation"].select(), parts["test"].select()),
        width=loaded.width,
        **lengths,
    )
    del table, parts, encoded
    pa.default_memory_pool().release_unused()
    facts.save(folder)
    return facts


def _lengths(part: Part, loaded: LoadedTokenizer, seed: int, task: Task, told: int | None) -> dict[str, float]:
    """The fields of Facts about tokens, from a sample of the texts; `told` is the length that the user gave."""
    batches, limit = _sample_tokens(part, loaded, seed, task), loaded.limit
    sample = [ids for batch in batches for ids in batch["input_ids"]]
    tokens = np.array([len(ids) for ids in sample])
    length = told or min(limit, task.longest, 8 * math.ceil(max(task.shortest, np.percentile(tokens, 95)) / 8))
    task.plan(batches, length)
    return dict(
        limit=limit,
        max_length=int(length),
        tokens_median=float(np.median(tokens)),
        tokens_95=float(np.percentile(tokens, 95)),
        cut_share=float((tokens > length).mean() if length < limit else (tokens >= limit).mean()),
        unknown_share=unknown_share(sample, loaded.tokenizer),
    )


def _sample_tokens(part: Part, loaded: LoadedTokenizer, seed: int, task: Task) -> list[dict[str, list]]:
    """Up to 2,000 texts, encoded in batches, of at most `limit` tokens each."""
    sample = np.sort(np.random.default_rng(seed).permutation(part.rows)[:2000])
    batches = part.dataset.select(sample).iter(100)
    return [task.encode(loaded.tokenizer, batch, loaded.limit) for batch in batches]


def _tokenise(part: Part, name: str, tokenizer, length: int, folder: Path, task: Task):
    """Writes input_ids, length and labels of each row, or of each of its windows, to an Arrow file; returns that."""

    def tokenise(batch, numbers):
        encoded = task.encode(tokenizer, batch, length)
        if "owner" in encoded:
            encoded["owner"] = [numbers[row] for row in encoded["owner"]]
        kept = {key: own for key, own in encoded.items() if name != "train" or key not in task.beside}
        return kept | {"length": [len(row) for row in encoded["input_ids"]]}

    return part.select().map(
        tokenise,
        batched=True,
        with_indices=True,
        remove_columns=part.dataset.column_names,
        new_fingerprint=name,
        cache_file_name=str(folder / f"{name}.arrow"),
        load_from_cache_file=False,
    )
