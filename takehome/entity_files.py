"""Reads texts in which words are marked: CoNLL columns, JSON lines with tags or spans, Parquet or a data set with tags.

    from takehome.entity_files import read_entities
    table = read_entities(Place("train.conll"))
    table.dataset[0]["text"].split(" ")      # the words
    table.dataset[0]["label"]                # a tag of table.labels for each

Tags become BIO: B- opens an entity, I- goes on with it, O is outside.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from takehome.columns import write_arrow
from takehome.encodings import find_encoding, lines
from takehome.errors import InputError, printable
from takehome.scratch import scratch_folder
from takehome.table_files import SPLITS, Place, open_splits
from takehome.tables import Table
from takehome.values import words as words_of
from takehome.wording import counted, listed, rows_named

CONLL = (".conll", ".conllu", ".bio", ".iob", ".iob2", ".ner", ".txt", ".tsv")
TAG = re.compile(r"O|[BIESLU]-\S+")
WORD = re.compile(r"\w+|[^\w\s]")
WORDS, TAGS = ("tokens", "words", "token"), ("ner_tags", "tags", "ner", "labels", "label", "entities_tags")
SPANS = ("spans", "entities", "label", "labels", "annotations")
LABELS = ("label", "type", "entity", "entity_group", "tag", "labels")


@dataclass
class Marked:
    """The sentences of a split: where each stood, its words and their tags; and what was repaired."""

    sentences: list[tuple[int, list[str], list[str]]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)  # rows with a span that begins or ends inside a word
    overlapping: list[int] = field(default_factory=list)  # rows with spans that overlap: the longest counts


def looks_marked(place: Place, cache_dir=None) -> bool:
    """Whether a file or directory here obviously holds words with tags, or texts with spans."""
    path = Path(place.path).expanduser()
    if path.is_file() and path.suffix.lower() in CONLL:
        return is_conll(path, place.encoding)
    if path.is_dir() and any(is_conll(file, place.encoding) for file in path.iterdir() if file.is_file()):
        return True
    if not path.exists() or (path.is_file() and path.suffix.lower() not in (".jsonl", ".ndjson", ".json", ".parquet")):
        return False
    with contextlib.suppress(InputError), scratch_folder(cache_dir) as folder:
        sheet = open_splits(place, folder, [])["train"]
        if not {name.lower() for name in sheet.columns} & {*TAGS, *SPANS}:
            return False
        records = (values for (_, values), _ in zip(sheet.records, range(20), strict=False))
        marked = _of_records(path, sheet.columns, enumerate(records, 1))
        return any(tag != "O" for _, _, tags in marked.sentences for tag in tags)
    return False


def read_entities(place: Place, cache_dir=None, labels: list[str] | None = None) -> Table:
    """Reads sentences with a tag for each word.

    Args:
        place: a file, a directory with train, validation and test, or a data set.
        cache_dir: where the Arrow file is written.
        labels: the tags of a model; others are an error.

    Raises:
        InputError: it holds no such sentences.
    """
    import datasets

    path, remarks = place.path, []
    with scratch_folder(cache_dir) as folder:
        found = _splits(place, folder, remarks)
        names = labels or _tags(path, found)
        known = {name: n for n, name in enumerate(names)}
        features = datasets.Features(
            {
                "text": datasets.Value("string"),
                "label": datasets.List(datasets.ClassLabel(names=names)),
                "row": datasets.Value("int64"),
            }
        )
        done = {}
        for name, marked in found.items():
            _tell(marked, name if len(found) > 1 else "", remarks)
            file = folder / f"{name}.arrow"
            rows = _rows(path, marked, known, repeated=set() if name == "train" and not labels else None)
            write_arrow(file, features.arrow_schema, rows)
            done[name] = datasets.Dataset.from_file(str(file), split=name)
    if not len(done["train"]):
        raise InputError(
            f"{path}: holds no sentence with words; give CoNLL columns, or JSON lines with tokens and tags"
        )
    remarks = [printable(remark) for remark in remarks]
    return Table(path, done.pop("train"), "tokens", "tags", names, remarks, done, "tokens")


def _rows(path, marked: Marked, known: dict[str, int], repeated: set | None) -> Iterator[tuple]:
    """(text, tags, row); of sentences that repeat in train, the first only."""
    for row, words, tags in marked.sentences:
        if strange := next((tag for tag in tags if tag not in known), None):
            there = sorted({tag[2:] for tag in known if tag != "O"})
            raise InputError(f"{path}, row {row}: {strange[2:]!r} is unknown to the model, which has {listed(there)}")
        text = " ".join(re.sub(r"\s", "\u00a0", word) for word in words)
        if repeated is not None:
            if text in repeated:
                continue
            repeated.add(text)
        yield text, [known[tag] for tag in tags], row


def _tags(path, found: dict[str, Marked]) -> list[str]:
    """O, and B and I of each kind of entity in train."""
    kinds = Counter(tag[2:] for _, _, tags in found["train"].sentences for tag in tags if tag != "O")
    if not kinds:
        raise InputError(f"{path}: no word is marked; write tags such as B-PER, or spans with start, end and label")
    for name, marked in found.items():
        lost = {tag[2:] for _, _, tags in marked.sentences for tag in tags if tag != "O"} - set(kinds)
        if lost:
            raise InputError(f"{path}: {name} has entities that train has not ({listed(sorted(lost))}); leave them out")
    return ["O", *(f"{mark}-{kind}" for kind in sorted(kinds) for mark in "BI")]


def _tell(marked: Marked, split: str, remarks: list[str]) -> None:
    where = f" of {split}" if split else ""
    if marked.cut:
        what = f"{counted(len(marked.cut), 'span')}{where} inside a word"
        remarks.append(f"{what} made as long as the word ({rows_named(marked.cut)}).")
    if marked.overlapping:
        what = f"{counted(len(marked.overlapping), 'span')}{where} that overlap a longer one"
        remarks.append(f"{what} left out ({rows_named(marked.overlapping)}).")


# ------------------------------------------------------------------ files


def _splits(place: Place, folder: Path, remarks: list[str]) -> dict[str, Marked]:
    path = Path(place.path).expanduser()
    if path.is_file() and is_conll(path, place.encoding):
        return {"train": read_conll(path, place.encoding)}
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in CONLL]
        files = [file for file in files if is_conll(file, place.encoding)]
        named = {next((SPLITS[w] for w in words_of(file.stem) if w in SPLITS), None): file for file in files}
        if files and "train" in named:
            order = [name for name in ("train", "validation", "test") if name in named]
            return {name: read_conll(named[name], place.encoding) for name in order}
        if len(files) == 1:
            return {"train": read_conll(files[0], place.encoding)}
    sheets = open_splits(place, folder, remarks)
    return {name: _of_records(place.path, sheet.columns, sheet.records) for name, sheet in sheets.items()}


def is_conll(path: Path, told: str | None = None) -> bool:
    """Whether a file holds a word and its tag on nearly every line that is not empty."""
    if path.suffix.lower() not in CONLL:
        return False
    good, seen = 0, 0
    with contextlib.suppress(InputError):
        for line, _ in zip(lines(path, find_encoding(path, told, [])), range(500), strict=False):
            parts = line.split()
            if parts and not line.startswith(("#", "-DOCSTART-")):
                seen += 1
                good += len(parts) > 1 and TAG.fullmatch(parts[-1]) is not None
    return seen > 0 and good > 0.95 * seen


def read_conll(path: Path, told: str | None = None) -> Marked:
    """Words in the first column, tags in the last; an empty line ends a sentence."""
    marked, words, tags, start = Marked(), [], [], 1

    def end() -> None:
        if words:
            marked.sentences.append((start, list(words), to_bio(tags)))
        words.clear()
        tags.clear()

    for number, line in enumerate(lines(path, find_encoding(path, told, [])), 1):
        parts = line.rstrip("\n").split("\t") if "\t" in line else line.split()
        if not line.strip() or line.startswith("-DOCSTART-"):
            end()
        elif len(parts) > 1 and TAG.fullmatch(parts[-1].strip()):
            start = number if not words else start
            words.append(parts[0].strip() or "\u00a0")
            tags.append(parts[-1].strip())
        elif not line.startswith("#"):
            raise InputError(f"{path}, line {number}: not a word and a tag such as B-PER or O; correct the line")
    end()
    return marked


def _of_records(path, columns: list[str], records: Iterable) -> Marked:
    """Rows with lists of words and tags, or with a text and spans."""
    lower = {name.lower(): name for name in columns}
    words = next((lower[name] for name in WORDS if name in lower), None)
    tags = next((lower[name] for name in TAGS if name in lower and lower[name] != words), None)
    text = next((lower[name] for name in ("text", "sentence", "content") if name in lower), None)
    spans = next((lower[name] for name in SPANS if name in lower), None)
    marked = Marked()
    for row, values in records:
        own = dict(zip(columns, values, strict=True))
        if words and tags and isinstance(own[words], list):
            found, given = [str(word) for word in own[words]], [str(tag) for tag in own[tags] or []]
            if len(found) != len(given):
                raise InputError(f"{path}, row {row}: {len(found)} words and {len(given)} tags; give each word one")
            if wrong := [tag for tag in given if not TAG.fullmatch(tag)]:
                raise InputError(
                    f"{path}, row {row}: {wrong[0]!r} is no tag such as B-PER or O; write names, not numbers"
                )
            marked.sentences.append((row, found, to_bio(given)))
        elif text and spans and isinstance(own[text], str):
            marked.sentences.append((row, *_of_spans(path, row, own[text], own[spans] or [], marked)))
        else:
            raise InputError(
                f"{path}, row {row}: no words with tags and no text with spans (columns: {listed(columns)}); write "
                '{"tokens": ["Anna", "sings"], "tags": ["B-PER", "O"]} or {"text": "Anna", "spans": [[0, 4, "PER"]]}'
            )
    marked.sentences = [sentence for sentence in marked.sentences if sentence[1]]
    return marked


def _of_spans(path, row: int, text: str, spans: list, marked: Marked) -> tuple[list[str], list[str]]:
    """The words of a text and their tags; a span that begins or ends inside a word gets all of it."""
    pieces = list(WORD.finditer(text))
    tags = ["O"] * len(pieces)
    given = sorted((_span(path, row, text, span) for span in spans), key=lambda span: span[0] - span[1])
    for start, end, label in given:
        inside = [n for n, piece in enumerate(pieces) if piece.start() < end and piece.end() > start]
        if not inside:
            raise InputError(f"{path}, row {row}: the span {start}–{end} holds no word; correct or delete it")
        if any(tags[n] != "O" for n in inside):
            marked.overlapping.append(row)
            continue
        stripped = text[start:end]
        first, last = start + len(stripped) - len(stripped.lstrip()), end - len(stripped) + len(stripped.rstrip())
        if pieces[inside[0]].start() < first or pieces[inside[-1]].end() > last:
            marked.cut.append(row)
        for n in inside:
            tags[n] = f"{'B' if n == inside[0] else 'I'}-{label}"
    return [piece[0] for piece in pieces], tags


def _span(path, row: int, text: str, span) -> tuple[int, int, str]:
    """Start, end and label of a span, as doccano, Prodigy, spaCy and Label Studio write them."""
    try:
        if isinstance(span, dict):
            label = next(span[name] for name in LABELS if name in span)
            start, end = span.get("start", span.get("start_offset")), span.get("end", span.get("end_offset"))
        else:
            start, end, label = span
        label = label[0] if isinstance(label, list) else label
        start, end, label = int(start), int(end), re.sub(r"\s+", "_", str(label).strip())
    except (TypeError, ValueError, StopIteration, KeyError, IndexError) as error:
        raise InputError(f'{path}, row {row}: a span is not [start, end, "LABEL"]; correct it') from error
    if not 0 <= start < end <= len(text) or not label:
        raise InputError(f"{path}, row {row}: the span {start}–{end} is not in the text of {len(text)} characters")
    return start, end, label


def to_bio(tags: list[str]) -> list[str]:
    """Tags in BIO, whatever scheme they came in: IOB1, BIOES, BILOU."""
    fixed, before = [], "O"
    for tag in tags:
        mark, _, kind = tag.partition("-")
        if tag == "O":
            fixed.append("O")
        else:
            goes_on = mark in "IEL" and before != "O" and before[2:] == kind and before[0] not in "ESLU"
            fixed.append(f"{'I' if goes_on else 'B'}-{kind}")
        before = tag
    return fixed
