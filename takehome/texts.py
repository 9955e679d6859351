"""Labelled texts for fine_tune.py: read, divided without leakage, tokenised into Arrow files."""

import hashlib
import json
import math
import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np

from takehome.tables import read_table

ROOT = Path(__file__).resolve().parent.parent


class InputError(Exception):
    """Something the user gave cannot be used; the message says what and what to do."""


def one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())[:300] or type(cause).__name__


def normalise(text: str) -> str:
    """What two texts share that differ in case, spaces, punctuation or form of characters only."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", text)) or " ".join(text.split())


def column(dataset, name: str) -> np.ndarray:
    """A column of numbers [rows]; nothing else is read."""
    return np.asarray(dataset.select_columns(name).with_format("numpy")[:][name])


def hash_texts(dataset) -> np.ndarray:
    """A 64-bit number for each text [rows], the same for texts that are equal when normalised."""
    numbers, row = np.empty(len(dataset), dtype=np.uint64), 0
    for batch in dataset.select_columns("text").iter(1000):
        for text in batch["text"]:
            digest = hashlib.blake2b(normalise(text).encode(), digest_size=8).digest()
            numbers[row], row = int.from_bytes(digest, "little"), row + 1
    return numbers


def split_rows(labels, groups, seed: int, parts=("validation", "test"), most: int = 5000) -> dict[str, np.ndarray]:
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
    part, share = np.zeros(len(first), dtype=int), min(0.1, most / len(labels))
    for label in np.unique(labels[first]):
        members = rng.permutation(np.flatnonzero(labels[first] == label))
        wanted = round(share * size[members].sum())
        for number in range(len(parts), 0, -1):
            free = members[part[members] == 0]
            if len(free) < 2:
                break
            taken = free[np.cumsum(size[free]) <= wanted]
            part[taken if len(taken) else free[[size[free].argmin()]]] = number
    return {name: np.flatnonzero(part[group_of] == n) for n, name in enumerate(["train", *parts])}


def draw(rows, labels, number: int, seed: int) -> np.ndarray:
    """Takes `number` of the rows at random, of each label at least one while there is room."""
    rows = np.random.default_rng(seed).permutation(rows)
    first = np.unique(labels[rows], return_index=True)[1]
    return np.sort(np.concatenate([rows[first], np.delete(rows, first)])[:number])


def load_tokenizer(args):
    """Returns tokenizer, config and the number of tokens that the model takes at most."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(args.checkpoint, revision=args.checkpoint_revision)
        tokenizer = AutoTokenizer.from_pretrained(args.checkpoint, revision=args.checkpoint_revision)
    except Exception as cause:  # not there, not JSON, an unknown architecture, no network: each has its own
        raise bad_checkpoint(args, cause) from cause
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise InputError(f"--checkpoint {args.checkpoint}: its tokenizer has no token to pad with: take another")
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet"):
        positions -= (config.pad_token_id or 0) + 1  # they count from there
    limit = min(positions, tokenizer.model_max_length)
    limit = limit if limit < 10**9 else 512
    if args.max_length and args.max_length > limit:
        raise InputError(f"--max-length {args.max_length}: {args.checkpoint} takes at most {limit} tokens: take fewer")
    return tokenizer, config, limit


def bad_checkpoint(args, cause: Exception) -> InputError:
    if Path(args.checkpoint).exists():
        return InputError(f"--checkpoint {args.checkpoint} is no model that can be loaded: {one_line(cause)}")
    ours = os.path.relpath(ROOT / "data/models/distilbert")
    return InputError(
        f"--checkpoint {args.checkpoint} is no directory, and the Hub did not give it: check the name and the network, "
        f"or take a model that is here, such as --checkpoint {ours}"
    )


def prepare(args, work: Path) -> dict:
    """Reads, splits and tokenises the data into Arrow files in `work`; returns and writes what there is to know."""
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    tokenizer, config, limit = load_tokenizer(args)
    shutil.rmtree(work / "data", ignore_errors=True)
    table = read_table(
        args.data, args.text_column, args.label_column,
        config=args.dataset_config, revision=args.dataset_revision, cache_dir=work / "data",
    )  # fmt: skip
    splits = {name: source for name, source in table.splits.items() if len(source)}  # some have no labels that count
    sources = {"train": table.dataset, **splits}
    labels = {name: column(source, "label") for name, source in sources.items()}
    groups = {name: hash_texts(source) for name, source in sources.items()}
    given = [groups[name] for name in splits]
    own = np.flatnonzero(~np.isin(groups["train"], np.concatenate(given))) if given else np.arange(len(table.dataset))
    missing = [name for name in ("validation", "test") if name not in splits]
    rows = split_rows(labels["train"][own], groups["train"][own], args.seed, missing)
    rows = {name: (sources["train"], own[part]) for name, part in rows.items()}
    for name, source in splits.items():
        rows[name] = source, np.arange(len(source))
    if len(rows["validation"][1]) > 5000:
        rows["validation"] = sources["validation"], draw(rows["validation"][1], labels["validation"], 5000, args.seed)
    if args.max_train_samples:
        rows["train"] = sources["train"], draw(rows["train"][1], labels["train"], args.max_train_samples, args.seed)
    if empty := [name for name, (_, part) in rows.items() if not len(part)]:
        raise InputError(
            f"{args.data}: {len(own)} different texts leave none for {empty[0]}: at least one label needs three"
        )

    def encode(texts: list[str], length: int) -> list[list[int]]:
        # A token has four or five characters: what is behind twenty for each need not be read.
        return tokenizer([text[: 20 * length] for text in texts], truncation=True, max_length=length)["input_ids"]

    source, part = rows["train"]
    sample = np.sort(np.random.default_rng(args.seed).permutation(part)[:2000])
    lengths = np.array([len(ids) for batch in source.select(sample).iter(100) for ids in encode(batch["text"], limit)])
    length = args.max_length or min(limit, 8 * math.ceil(max(8, np.percentile(lengths, 95)) / 8))

    def tokenise(batch):
        ids = encode(batch["text"], length)
        return {"input_ids": ids, "length": [len(row) for row in ids], "labels": batch["label"]}

    for name, (source, part) in rows.items():
        source.select(part).map(
            tokenise, batched=True, remove_columns=source.column_names, new_fingerprint=name,
            cache_file_name=str(work / "data" / f"{name}.arrow"), load_from_cache_file=False,
        )  # fmt: skip
    counts = {name: np.bincount(labels[name if name in splits else "train"][part], minlength=len(table.labels))
              for name, (_, part) in rows.items()}  # fmt: skip
    digest = hashlib.sha256(b"".join(array.tobytes() for name in groups for array in (groups[name], labels[name])))
    facts = {
        "file": Path(args.data).name if Path(args.data).exists() else args.data,
        "text_column": table.text_column, "label_column": table.label_column, "labels": table.labels,
        "remarks": table.remarks, "digest": digest.hexdigest(), "limit": int(limit), "max_length": int(length),
        "tokens_median": float(np.median(lengths)), "tokens_95": float(np.percentile(lengths, 95)),
        "cut_share": float((lengths > length).mean()) if length < limit else float((lengths >= limit).mean()),
        "rows": {name: int(array.sum()) for name, array in counts.items()},
        "counts": {name: array.tolist() for name, array in counts.items()},
        "width": getattr(config, "hidden_size", 768),
    }  # fmt: skip
    del table, source, sources, rows
    pa.default_memory_pool().release_unused()
    (work / "facts.json").write_text(json.dumps(facts))
    return facts


def describe(args, facts: dict) -> list[tuple[str, str]]:
    """What was found, in lines of (topic, text)."""
    total = np.sum(list(facts["counts"].values()), axis=0)
    named = [f"{facts['labels'][i]} {total[i]:,}" for i in np.argsort(-total, kind="stable")]
    if len(named) > 12:
        named = [*named[:5], "…", *named[-5:]]
    chosen = "95 % of the texts fit" if facts["max_length"] < facts["limit"] else "the model's limit"
    chosen, cut = "as told" if args.max_length else chosen, facts["cut_share"]
    return [
        ("data", f"{args.data}: {total.sum():,} rows; texts in {facts['text_column']!r}, labels in "
                 f"{facts['label_column']!r}"),
        *(("", remark) for remark in facts["remarks"]),
        ("classes", f"{len(total)}: {', '.join(named)}"),
        ("split", ", ".join(f"{name} {n:,}" for name, n in facts["rows"].items()) + "; equal texts stay together"),
        ("length", f"median {facts['tokens_median']:.0f} tokens, 95 % have at most {facts['tokens_95']:.0f}; "
                   f"--max-length {facts['max_length']} ({chosen}) cuts {cut:.1%}"),
    ]  # fmt: skip
