"""Writes a data set as the Hub lays it out: Parquet files and a README.md whose front matter declares them."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

DATA = Path(__file__).resolve().parents[1]


def write_parquet(path: Path, columns: dict[str, list], class_names: list[str] | None = None) -> None:
    """Writes one Parquet file; `class_names` makes `label` a ClassLabel for readers that look at the file alone."""
    from datasets import ClassLabel, Features, Value

    path.parent.mkdir(parents=True, exist_ok=True)
    features = Features(
        {
            name: ClassLabel(names=class_names)
            if name == "label" and class_names
            else Value("int32" if isinstance(values[0], int) else "string")
            for name, values in columns.items()
        }
    )
    pq.write_table(pa.table(columns, schema=features.arrow_schema), path, compression="zstd", row_group_size=1000)


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
        if name == "label" and class_names:
            kind = {"class_label": {"names": {str(number): label for number, label in enumerate(class_names)}}}
        else:
            kind = str(schema.field(name).type)
        info.append({"name": name, "dtype": kind})
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
