"""Writes a data set as the Hub lays it out: Parquet files and a README.md whose front matter declares them."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

DATA = Path(__file__).resolve().parents[1]


def write_parquet(path: Path, columns: dict[str, list], class_names: list[str] | None = None) -> None:
    """Writes one Parquet file; a column of lists becomes a column of lists, a dict a group of named values.

    `class_names` makes `label` a ClassLabel, and `ner_tags` lists of them, for readers that look at the file alone.
    """
    from datasets import ClassLabel, Features, List, Value

    def kind(name, value):
        if name == "answers":
            return {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        if isinstance(value, list):
            return List(kind(name, value[0]))
        if isinstance(value, dict):
            return {key: kind(key, part) for key, part in value.items()}
        return ClassLabel(names=class_names) if _is_class(name, class_names) else Value(_type(value))

    path.parent.mkdir(parents=True, exist_ok=True)
    features = Features({name: kind(name, values[0]) for name, values in columns.items()})
    pq.write_table(pa.table(columns, schema=features.arrow_schema), path, compression="zstd", row_group_size=1000)


def _is_class(name: str, class_names: list[str] | None) -> bool:
    return bool(class_names) and name in ("label", "ner_tags")


def _type(value: int | str) -> str:
    return "int32" if isinstance(value, int) else "string"


def write_card(
    folder: Path, config_name: str, splits: dict[str, str], class_names: list[str] | None, body: str
) -> None:
    """Writes `folder/README.md`: the front matter that `load_dataset(folder)` reads, then `body`.

    `splits` maps a split to its file pattern. The digest in `description` changes with the data, and with it
    the cache key of `datasets`, which otherwise would return the rows of an older version.
    """
    digest, info, sizes = hashlib.sha256(), [], {}
    for split, pattern in splits.items():
        files = sorted(folder.glob(pattern))
        for file in files:
            digest.update(file.read_bytes())
        sizes[split] = {
            "num_bytes": sum(pq.read_table(file).nbytes for file in files),
            "num_examples": sum(pq.read_metadata(file).num_rows for file in files),
        }
        schema = pq.read_schema(files[0])
    for name in schema.names:
        column = schema.field(name).type
        is_list = pa.types.is_list(column)
        if name == "answers":
            parts = [{"name": part.name, "list": str(part.type.value_type)} for part in column]
            info.append({"name": name, "struct": parts})
            continue
        value = column.value_type if is_list else column
        if pa.types.is_struct(value):
            kind = [{"name": part.name, "dtype": str(part.type)} for part in value]
        elif _is_class(name, class_names):
            kind = {"class_label": {"names": {str(number): label for number, label in enumerate(class_names)}}}
        else:
            kind = str(value)
        info.append({"name": name, "list" if is_list else "dtype": kind})
    front = {
        "license": "mit",
        "language": ["en"],
        "configs": [
            {
                "config_name": config_name,
                "default": True,
                "description": f"sha256-{digest.hexdigest()}",
                "data_files": [{"split": split, "path": pattern} for split, pattern in splits.items()],
            }
        ],
        "dataset_info": [
            {
                "config_name": config_name,
                "features": info,
                "splits": [{"name": split, **size} for split, size in sizes.items()],
            }
        ],
    }
    text = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{body.strip()}\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
