"""Broken and odd tables: each is read right, or refused in one line that names it and says what to do."""

import gzip
import io
import json
import os
import pickle
import signal
import socket
import sqlite3
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from takehome.errors import InputError, printable
from takehome.tables import read_table

ROWS = [
    ("The film was a joy from the first minute", "positive"),
    ("I left before the end, and so did my friends", "negative"),
    ("A warm story that is told with care", "positive"),
    ("The jokes are old and the songs are worse", "negative"),
    ("Nobody in the room could stop laughing", "positive"),
    ("Two hours that I would like to have back", "negative"),
]
POSIX = sys.platform != "win32"


def csv_of(rows=ROWS, header="text,label", encoding="utf-8") -> bytes:
    lines = [header, *('"' + text.replace('"', '""') + f'",{label}' for text, label in rows)]
    return "".join(f"{line}\n" for line in lines).encode(encoding)


def jsonl_of(rows=ROWS, **more) -> str:
    return "".join(json.dumps({"text": text, "label": label} | more) + "\n" for text, label in rows)


def parquet_of(columns: dict, names=None) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(values) for values in columns.values()], names or list(columns)), out)
    return out.getvalue()


def labelled(texts, labels):
    return list(zip(texts, labels, strict=True))


TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]


@dataclass
class Case:
    """A table and what becomes of it.

    `make` gets an empty folder and returns the path to read, or is the content of a file called `name`. Refused if
    `says` is given; otherwise `rows` are read, and `remarks` has a part of each remark.
    """

    name: str
    make: Callable[[Path], Path | str] | bytes | str
    says: list[str] = field(default_factory=list)
    rows: list[tuple[str, str]] = field(default_factory=lambda: ROWS)
    remarks: list[str] = field(default_factory=list)
    options: dict = field(default_factory=dict)


CASES: dict[str, Case] = {}


def refused(what: str, name: str, make, *says: str, **options) -> None:
    CASES[what] = Case(name, make, says=list(says), options=options)


def read(what: str, name: str, make, *remarks: str, rows=ROWS, **options) -> None:
    CASES[what] = Case(name, make, rows=rows, remarks=list(remarks), options=options)


# ------------------------------------------------------------------ CSV and TSV

read(
    "quotes inside quoted text",
    "a.csv",
    csv_of().replace(b"A warm story", b'A "warm" story'),
    "Stray quotation marks",
    rows=[(text.replace("A warm", 'A "warm"'), label) for text, label in ROWS],
)
read(
    "quotes behind backslashes",
    "a.csv",
    csv_of().replace(b"A warm story", b'A \\"warm, old\\" story'),
    "Stray quotation marks",
    rows=[(text.replace("A warm", 'A "warm, old"'), label) for text, label in ROWS],
)
refused("a quote that opens in the last row", "a.csv", csv_of()[:-11] + b"\n", "row 7", "never closes", "close it")
refused(
    "single quotes",
    "a.csv",
    b"text,label\n" + b"".join(f"'{t}, he said',{c}\n".encode() for t, c in ROWS),
    "row 2",
    "3 fields",
    "put quotation marks round",
)
read("a row with too few fields", "a.csv", csv_of() + b"Only a text\n", "1 row without a label left out (row 8)")
read(
    "a row with too many fields",
    "a.csv",
    csv_of(ROWS * 1 + [(f"{t} {n}", c) for n in range(3) for t, c in ROWS]) + b"one,two,three\n",
    "1 row of a.csv with too many fields left out (row 26)",
    rows=ROWS + [(f"{t} {n}", c) for n in range(3) for t, c in ROWS],
)
read("a comma at each end", "a.csv", csv_of().replace(b"tive\n", b"tive,\n"))
read("a header that is longer", "a.csv", csv_of(header="text,label,user,date"))
refused(
    "two columns called text",
    "a.csv",
    "text,text,label\n" + "".join(f'"{t}","{t[::-1]}",{c}\n' for t, c in ROWS),
    "text, text.1 may each be the text",
    "--text-column",
)
read(
    "two columns called label, with the same",
    "a.csv",
    b"text,label,label\n" + b"".join(f'"{t}",{c},{c}\n'.encode() for t, c in ROWS),
    "more than one column 'label': a later one is called 'label.1'",
)
refused(
    "two columns called label, with others",
    "a.csv",
    b"text,label,label\n" + b"".join(f'"{t}",{c},{"ab"[n % 3 == 0]}\n'.encode() for n, (t, c) in enumerate(ROWS)),
    "label, label.1 may each be the label",
    "--label-column",
)
refused("a TSV with a header only", "a.tsv", "text\tlabel\n", "has no rows", "write at least two rows")
refused("one column", "a.csv", "text\n" + "".join(f'"{t}"\n' for t in TEXTS), "one column only", "separate")
read(
    "the header again in the middle",
    "a.csv",
    csv_of(ROWS[:3]) + csv_of(ROWS[3:]),
    "class 'label', which has no other, left out (row 5)",
)
read("blank lines before the header", "a.csv", b"\n\n\n" + csv_of())
refused(
    "a title above the header",
    "a.csv",
    b"Reviews of the year\n" + csv_of(),
    "one column only",
    "delete lines above the header",
)
read("line ends of three kinds", "a.csv", csv_of().replace(b"\n", b"\r\n", 3).replace(b"\r\n", b"\r", 1))
read("NUL bytes", "a.csv", csv_of().replace(b"joy", b"j\0o\0y"), "2 NUL bytes in a.csv left out")
read(
    "a field of a million characters",
    "a.csv",
    csv_of([*ROWS, ("word " * 200_000, "positive")]),
    "1 text longer than 100,000 characters cut there (row 8)",
    rows=[*ROWS, ("word " * 20_000, "positive")],
)
read(
    "no header, numbers as labels",
    "a.csv",
    b"".join(f'"{t}",{n % 2}\n'.encode() for n, t in enumerate(TEXTS)),
    "has no header",
    "Column 'column 1' taken as the text",
    "Column 'column 2' taken as the label",
    rows=labelled(TEXTS, "010101"),
)
refused("a column of rising numbers as label", "a.csv", csv_of(labelled(TEXTS, range(6))), "'label'", "too many for")
refused("measurements as labels", "a.csv", csv_of(labelled(TEXTS, [0.13, 0.5, 0.77, 0.2, 0.91, 0.44])), "too many for")
refused(
    "ten thousand labels",
    "a.csv",
    "text,label\n" + "".join(f"This is text number {n},label {n}\n" for n in range(10_002)),
    "'label'",
    "different values",
    "too many for classes",
    "--label-column",
)
refused("the same label everywhere", "a.csv", csv_of(labelled(TEXTS, ["spam"] * 6)), "one class only ('spam')")
refused("numbers as texts", "a.csv", csv_of(labelled("123456", LABELS)), "'text' holds numbers", "--text-column")
refused("only NaN as texts", "a.csv", csv_of(labelled(["NaN"] * 6, LABELS)), "'text' holds nothing", "--text-column")
refused("dates as texts", "a.csv", csv_of(labelled([f"2024-01-0{n}" for n in range(6)], LABELS)), "'text' holds dates")
refused(
    "a column name with a terminal code",
    "a.csv",
    csv_of(labelled(TEXTS, [f"{n}.5" for n in range(6)]), header="text,\x1b[31mlab\x07"),
    "\\x1b[31mlab\\x07",
    "--label-column",
)
read(
    "labels with a terminal code",
    "a.csv",
    csv_of(labelled(TEXTS, [c.replace("p", "\x1b[31mp") for c in LABELS])),
    r"Label '\x1b[31mpositive' counted as '[31mpositive'",
    rows=labelled(TEXTS, [c.replace("p", "[31mp") for c in LABELS]),
)
read(
    "labels with what cannot be seen",
    "a.csv",
    csv_of(labelled(TEXTS, [LABELS[0] + "\u200b", LABELS[1], "\u2060" + LABELS[2], *LABELS[3:]])),
    r"Label 'positive\u200b', '\u2060positive' counted as 'positive'",
)
refused("a file name with a line break", "a\nb\x1b[2J.csv", b"", "a\\nb\\x1b[2J.csv: the file is empty")

# ------------------------------------------------------------------ labels that are none, or more than one

NA = labelled(TEXTS, ["NA", "EU", "NA", "EU", "NA", "EU"])
read("a class called NA", "a.csv", csv_of(NA), "Label 'NA' (3 rows) taken as a class", rows=NA)
NONE = labelled(TEXTS, ["None", "hate", "None", "hate", "None", "hate"])
read("a class called None", "a.csv", csv_of(NONE), "Label 'None' (3 rows) taken as a class", rows=NONE)
NULL = labelled(TEXTS, ["null", "nan", "null", "nan", "null", "nan"])
read(
    "classes called null and nan",
    "a.csv",
    csv_of(NULL),
    "Label 'null' (3 rows) taken as a class",
    "Label 'nan' (3 rows) taken as a class",
    rows=NULL,
)
read(
    "null where no label is known",
    "a.csv",
    csv_of([*ROWS, ("Who can say what this is", "null")]),
    "Label 'null' (1 row) taken as none",
    "1 row without a label left out (row 8)",
)
refused(
    "labels that are printed lists",
    "a.csv",
    csv_of(labelled(TEXTS, [f"\"['{c}', 'new']\"" for c in LABELS])),
    "'label' has lists, such as \"['positive', 'new']\"",
    "one label a row",
)
COMBINED = labelled([f"{t} {n}" for n in range(2) for t in TEXTS], ["A", "B", "A;B", "A", "B", "A;B"] * 2)
read(
    "labels with semicolons",
    "a.csv",
    csv_of(COMBINED),
    "Labels such as 'A;B' (1 of 3) look like several labels in one",
    rows=COMBINED,
)
GENRES = [(text, label.replace("A;B", '"A, B"')) for text, label in COMBINED]
read(
    "labels with commas",
    "a.csv",
    csv_of(GENRES),
    "Labels such as 'A, B' (1 of 3) look like several labels in one",
    rows=[(text, label.strip('"')) for text, label in GENRES],
)
refused(
    "only contradicting labels",
    "a.csv",
    csv_of(ROWS + labelled(TEXTS, LABELS[::-1])),
    "none of the 12 rows can be used (12 with the same text and different labels)",
    "give each text one label",
)
read("spaces for labels", "a.csv", csv_of([*ROWS, ("What is this one", '"  "')]), "1 row without a label")


def same_test(folder: Path) -> Path:
    (folder / "train.csv").write_bytes(csv_of())
    (folder / "test.csv").write_bytes(csv_of())
    return folder


refused(
    "train equal to test",
    "",
    same_test,
    "none of the 6 rows of train can be used (6 whose text is also in test)",
    "give train texts of its own",
)

# ------------------------------------------------------------------ encodings

RUSSIAN = labelled(
    [
        "Фильм мне очень понравился с первой минуты",
        "Официант был груб, и мы ждали два часа",
        "Качество хорошее, куплю ещё раз",
        "Сюжет скучный, а шутки старые",
    ],
    ["хорошо", "плохо", "хорошо", "плохо"],
)
POLISH = labelled(
    [
        "Film bardzo mi się podobał od pierwszej minuty",
        "Kelner był nieuprzejmy, czekaliśmy dwie godziny",
        "Jakość jest dobra, kupię jeszcze raz",
        "Zły scenariusz i żadnych żartów",
    ],
    ["dobry", "zły", "dobry", "zły"],
)
CHINESE = labelled(
    [
        "这部电影从第一分钟开始就让我很高兴",
        "服务员态度很差，我们等了两个小时",
        "产品质量不错，下次还会购买",
        "剧情无聊，笑话也很老",
    ],
    ["好评", "差评", "好评", "差评"],
)
TRADITIONAL = labelled(
    [
        "這部電影從第一分鐘開始就讓我很高興",
        "服務員態度很差，我們等了兩個小時",
        "產品質量不錯，下次還會購買",
        "劇情無聊，笑話也很老",
    ],
    ["好評", "差評", "好評", "差評"],
)
JAPANESE = labelled(
    [
        "この映画は最初から最後までとても楽しかったです",
        "店員の態度が悪くて、二時間も待たされました",
        "商品の品質は良いので、また買います",
        "話が退屈で、冗談も古い",
    ],
    ["良い", "悪い", "良い", "悪い"],
)
KOREAN = labelled(
    [
        "이 영화는 처음부터 끝까지 아주 재미있었습니다",
        "직원이 불친절해서 두 시간이나 기다렸습니다",
        "품질이 좋아서 다음에도 사겠습니다",
        "이야기가 지루하고 농담도 낡았습니다",
    ],
    ["좋음", "나쁨", "좋음", "나쁨"],
)
FRENCH = labelled(
    [
        "Le film m'a beaucoup plu dès la première minute",
        "Le garçon était désagréable et très lent",
        "La qualité est bonne, j'achèterai à nouveau",
        "Une histoire ennuyeuse, même pour un bébé",
    ],
    ["réussi", "raté", "réussi", "raté"],
)
for encoding, rows, named in [
    ("cp1251", RUSSIAN, "Windows-1251 (Cyrillic)"),
    ("koi8-r", RUSSIAN, "KOI8-R (Cyrillic)"),
    ("cp1250", POLISH, "Windows-1250 (Central European)"),
    ("iso8859-2", POLISH, "ISO-8859-2 (Central European)"),
    ("gb18030", CHINESE, "GB18030 (Chinese)"),
    ("big5", TRADITIONAL, "Big5 (Chinese)"),
    ("shift_jis", JAPANESE, "Shift-JIS (Japanese)"),
    ("euc_jp", JAPANESE, "EUC-JP (Japanese)"),
    ("euc_kr", KOREAN, "EUC-KR (Korean)"),
    ("cp1252", FRENCH, "Windows-1252 (Latin-1)"),
]:
    read(
        f"text in {encoding}", "a.csv", csv_of(rows, encoding=encoding), f"was read as {named}, for instance", rows=rows
    )
read("text in UTF-32", "a.csv", csv_of(RUSSIAN, encoding="utf-32"), "is UTF-32", rows=RUSSIAN)
read("JSON lines in UTF-16", "a.jsonl", jsonl_of().encode("utf-16"), "is UTF-16")
refused(
    "lines in UTF-8 and in Windows-1252",
    "a.csv",
    csv_of(FRENCH)
    + csv_of([(f"{t} – ça va «très» bien à l’été", c) for t, c in FRENCH * 2], header="", encoding="cp1252"),
    "not UTF-8 (line 7)",
    "UTF-8 in other lines",
    "one encoding",
)
refused("text in EBCDIC", "a.csv", csv_of(encoding="cp500"), "a.csv", "UTF-8")
refused(
    "an encoding that is not it",
    "a.csv",
    csv_of(RUSSIAN, encoding="cp1251"),
    "is not utf-8",
    "--encoding",
    encoding="utf-8",
)
refused("an encoding that is none", "a.csv", csv_of(), "--encoding klingon: no such encoding", encoding="klingon")
read("an encoding as told", "a.csv", csv_of(RUSSIAN, encoding="iso8859-5"), rows=RUSSIAN, encoding="iso8859-5")
read("UTF-8 as told, with a mark", "a.csv", csv_of(RUSSIAN, encoding="utf-8-sig"), rows=RUSSIAN, encoding="UTF-8")
refused("random bytes", "a.csv", np.random.default_rng(0).bytes(5000), "a.csv")

# ------------------------------------------------------------------ JSON

read("a JSON array in a .jsonl", "a.jsonl", json.dumps([{"text": t, "label": c} for t, c in ROWS]))
read("a JSON array in lines", "a.jsonl", "[\n" + jsonl_of().replace("}\n", "},\n").rstrip(",\n") + "\n]")
read(
    "rows under a name, beside others",
    "a.json",
    json.dumps({"version": 3, "data": [{"text": t, "label": c} for t, c in ROWS]}, indent=1),
    "Not read of a.json: version",
)
read("JSON lines in a .csv", "a.csv", jsonl_of(), "a.csv is JSON, and was read as that")
read(
    "JSON lines with lists, in a .json",
    "a.json",
    "".join(json.dumps({"tokens": t.split(), "text": t, "label": c}) + "\n" for t, c in ROWS),
)
refused("CSV in a .jsonl", "a.jsonl", csv_of(), "line 1", "not valid JSON", "correct or delete")
read(
    "keys that are not in all rows",
    "a.jsonl",
    '{"text": "No label here"}\n{"label": "positive"}\n' + jsonl_of(),
    "1 row without a text left out (row 2)",
    "1 row without a label left out (row 1)",
)
read(
    "null and NaN",
    "a.jsonl",
    '{"text": NaN, "label": "positive"}\n{"text": "Hm, well", "label": null}\n' + jsonl_of(),
    "without a text",
    "without a label",
)
refused("rows that are lists", "a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS), "line 1", "not an object")
refused("one object", "a.json", '{"text": "Only one row", "label": "a"}', "a.json", "this row only", "two rows")
refused("an array cut off", "a.json", json.dumps([{"text": t, "label": c} for t, c in ROWS])[:-40], "not JSON of rows")
refused("an empty array", "a.json", "[]", "a.json", "no rows")
refused("an empty object", "a.json", "{}", "a.json", "no rows")
refused("a number", "a.json", "42", "a.json", "not an object")
refused("deep nesting", "a.jsonl", "[" * 100_000, "a.jsonl", "not")
refused("a number without end", "a.jsonl", '{"text": ' + "1" * 5000 + ', "label": 1}', "line 1", "not valid JSON")
refused(
    "labels that are objects",
    "a.jsonl",
    "".join(json.dumps({"text": t, "label": {"name": c}}) + "\n" for t, c in ROWS),
    "'label' has lists or objects",
    "one label a row",
)
refused(
    "labels that are lists",
    "a.jsonl",
    "".join(json.dumps({"text": t, "label": [c, "new"]}) + "\n" for t, c in ROWS),
    "'label' has lists or objects",
    "one label a row",
)
refused(
    "texts that are lists",
    "a.jsonl",
    "".join(json.dumps({"text": t.split(), "label": c}) + "\n" for t, c in ROWS),
    "'text' holds lists or objects, not texts",
    "--text-column",
)
refused("JSON with comments", "a.json", "// reviews\n" + json.dumps([{"text": t} for t in TEXTS]), "not JSON of rows")
read(
    "half of a character",
    "a.jsonl",
    jsonl_of().replace("a joy", "a \\ud83d joy"),
    "1 text with bytes that are no text",
    rows=[(t.replace("a joy", "a ? joy"), c) for t, c in ROWS],
)
read(
    "truth values as labels",
    "a.jsonl",
    "".join(json.dumps({"text": t, "label": c[0] == "p"}) + "\n" for t, c in ROWS),
    rows=labelled(TEXTS, [str(c[0] == "p").lower() for c in LABELS]),
)

# ------------------------------------------------------------------ Parquet

PARQUET = parquet_of({"text": TEXTS, "label": LABELS})
refused("Parquet cut in half", "a.parquet", PARQUET[: len(PARQUET) // 2], "not a whole Parquet file", "copy or write")
refused("Parquet without rows", "a.parquet", parquet_of({"text": TEXTS[:0], "label": LABELS[:0]}), "no rows")
refused("Parquet without columns", "a.parquet", parquet_of({}), "a.parquet")
refused(
    "Parquet without texts",
    "a.parquet",
    parquet_of({"id": range(6), "label": LABELS}),
    "no column holds texts",
    "--text-column",
)
read(
    "Parquet with two columns of one name",
    "a.parquet",
    parquet_of(dict(zip("abc", (TEXTS, LABELS, LABELS), strict=True)), ["text", "label", "label"]),
    "more than one column 'label'",
)
read("Parquet with bytes as texts", "a.parquet", parquet_of({"text": [t.encode() for t in TEXTS], "label": LABELS}))
refused(
    "Parquet with times as texts",
    "a.parquet",
    parquet_of({"text": [datetime(2024, 1, n + 1) for n in range(6)], "label": LABELS}),
    "'text' holds dates",
)
refused(
    "Parquet with structs as labels",
    "a.parquet",
    parquet_of({"text": TEXTS, "label": [{"name": c} for c in LABELS]}),
    "'label' has lists or objects",
)
read(
    "Parquet with a dictionary", "a.parquet", parquet_of({"text": TEXTS, "label": pa.array(LABELS).dictionary_encode()})
)
read("Parquet called .csv", "a.csv", PARQUET)
refused(
    "Parquet with texts that are not UTF-8",
    "a.parquet",
    parquet_of(
        {"text": pa.array([t.encode() + b"\xd1" for t in TEXTS]).cast(pa.string(), safe=False), "label": LABELS}
    ),
    "holds a value that cannot be read",
    "write it as a text",
)
refused(
    "Parquet with times beyond the calendar",
    "a.parquet",
    parquet_of({"text": TEXTS, "label": pa.array([2**62] * 6, pa.timestamp("ms"))}),
    "holds a value that cannot be read",
    "write it as a text",
)
refused("CSV called .parquet", "a.parquet", csv_of(), "not a whole Parquet file")

# ------------------------------------------------------------------ other kinds of files


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, csv_of())
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(csv_of())
        archive.addfile(entry, io.BytesIO(csv_of()))
    return out.getvalue()


def feather(folder: Path) -> Path:
    pyarrow.feather.write_feather(pa.table({"text": TEXTS, "label": LABELS}), folder / "a.csv")
    return folder / "a.csv"


def database(folder: Path) -> Path:
    with sqlite3.connect(folder / "a.csv") as connection:
        connection.execute("create table reviews (text, label)")
        connection.executemany("insert into reviews values (?, ?)", ROWS)
    connection.close()
    return folder / "a.csv"


class Payload:
    def __reduce__(self):
        return os.mkdir, ("pickle-was-opened",)


def array_bytes() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array(TEXTS))
    return out.getvalue()


refused("a zip file called .csv", "a.csv", zipped("a.csv"), "an Excel or zip file", "unpack it")
refused("a workbook called .csv", "a.csv", zipped("xl/workbook.xml"), "an Excel or zip file", "save it as CSV")
refused("an old workbook", "a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Excel file", "save it as CSV")
refused("a packed file called .csv", "a.csv", gzip.compress(csv_of()), "is packed", "unpack it")
refused("a tar file called .csv", "a.csv", tarred(), "is not text", "save the table as CSV")
refused("a web page called .csv", "a.csv", "<!DOCTYPE html>\n<html><body>Please log in</body></html>", "a web page")
refused("a web page called .parquet", "a.parquet", "\n<html><body>Please log in</body></html>", "a web page")
refused("a web page called .jsonl", "a.jsonl", "<html><body>Please log in</body></html>", "a web page")
refused("a pickle called .csv", "a.csv", pickle.dumps({"text": TEXTS, "label": LABELS}), "a pickle", "CSV or Parquet")
refused("a pickle called .parquet", "a.parquet", pickle.dumps(Payload()), "a pickle", "CSV or Parquet")
refused(
    "a PDF called .csv", "a.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(range(256)) * 20, "a PDF", "save its table"
)
refused("a picture called .csv", "a.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "a picture")
refused("a database called .csv", "", database, "an SQLite database", "export")
refused("a Feather file called .csv", "", feather, "an Arrow or Feather file", "Parquet")
refused("a NumPy file called .csv", "a.csv", array_bytes(), "a NumPy file")
refused(
    "a pointer of Git LFS",
    "a.csv",
    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "git lfs pull",
)
refused("a program", "a.csv", b"\x7fELF\x02\x01\x01" + bytes(4000) + b"\x90" * 500, "a.csv", "not text")

# ------------------------------------------------------------------ folders, links and devices


def folder_of(**files: bytes | str) -> Callable[[Path], Path]:
    """Makes a folder; in the names of its files a double underscore stands for a slash, a single one for a dot."""

    def make(folder: Path) -> Path:
        for name, content in files.items():
            path = folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return make


def broken_link(folder: Path) -> Path:
    (folder / "a.csv").symlink_to(folder / "gone.csv")
    return folder / "a.csv"


def linked_in_circles(folder: Path) -> Path:
    (folder / "a.csv").symlink_to(folder / "b.csv")
    (folder / "b.csv").symlink_to(folder / "a.csv")
    return folder / "a.csv"


def folder_with_broken_link(folder: Path) -> Path:
    broken_link(folder)
    return folder


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.csv")
    return folder / "a.csv"


def folder_with_pipe(folder: Path) -> Path:
    return pipe(folder).parent


def listening(folder: Path) -> Path:
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.csv")
    os.chdir(here)
    return folder / "a.csv"


def unreadable(folder: Path) -> Path:
    (folder / "a.csv").write_bytes(csv_of())
    (folder / "a.csv").chmod(0)
    if os.access(folder / "a.csv", os.R_OK):
        pytest.skip("this user may read everything")
    return folder / "a.csv"


refused("an empty folder", "", lambda folder: folder, "holds no CSV, TSV, JSONL or Parquet file")
refused("a folder of several kinds", "", folder_of(a_csv=csv_of(), b_jsonl=jsonl_of()), "which file?", "a.csv, b.jsonl")
refused(
    "a folder with a test only", "", folder_of(test_csv=csv_of()[:0] + csv_of(), dev_csv=csv_of()), "no train", "name"
)
refused(
    "a folder of one class", "", folder_of(positive__1_txt="One text", positive__2_txt="Another"), "class directories"
)
refused(
    "a test without the column",
    "",
    folder_of(train_csv=csv_of(), test_csv=csv_of(header="text,verdict")),
    "test has no column 'label'",
    "rename it",
)
refused(
    "parts with other columns",
    "",
    folder_of(**{"train-1_csv": csv_of(), "train-2_csv": csv_of(header="body,label")}),
    "its columns body, label are not text, label",
)
refused(
    "class folders of empty files",
    "",
    folder_of(good__1_txt="", good__2_txt="", bad__1_txt="", bad__2_txt=""),
    "'text' holds nothing",
)
refused("a link to nothing", "", broken_link, "a.csv: is a link to", "gone.csv", "give the file itself")
refused("links in a circle", "", linked_in_circles, "a.csv: is a link to", "give the file itself")
refused("a folder with a link to nothing", "", folder_with_broken_link, "a.csv", "No such file", "check the file")
if POSIX:
    refused("a pipe without a writer", "", pipe, "a.csv: is a named pipe", "save its rows as a file")
    refused("a folder with a pipe", "", folder_with_pipe, "a.csv: is a named pipe", "save its rows as a file")
    refused("a socket", "", listening, "a.csv: is a socket", "save its rows as a file")
    refused("an endless device", "", lambda _: Path("/dev/zero"), "/dev/zero: is a device", "save its rows")
    refused("the null device", "", lambda _: Path(os.devnull), "/dev/null: is a device", "save its rows")
    refused("a file that may not be read", "", unreadable, "a.csv: Permission denied", "check the file and its rights")
refused("a name that is too long", "", lambda folder: folder / ("a" * 300 + ".csv"), "File name too long", "check")
refused("a name with a NUL", "", lambda folder: f"{folder}/a\0.csv", "a\\x00.csv", "check")
refused("no name", "", lambda _: "", "no path was given")


@pytest.fixture
def no_hang():
    """Fails a test that waits for ever."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def made(case: Case, folder: Path) -> Path | str:
    if callable(case.make):
        return case.make(folder)
    path = folder / case.name
    try:
        path.write_bytes(case.make if isinstance(case.make, bytes) else case.make.encode())
    except OSError:
        pytest.skip("no such name on this system")
    return path


@pytest.mark.parametrize("what", CASES)
def test_a_bad_table_is_read_right_or_refused_in_one_line(what, tmp_path, no_hang):
    case, folder, cache = CASES[what], tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    path = made(case, folder)
    before = sorted(tmp_path.rglob("*"))
    if not case.says:
        table = read_table(path, cache_dir=cache, **case.options)
        assert [(row["text"], table.labels[row["label"]]) for row in table.dataset] == [
            (text, label) for text, label in case.rows
        ]
        assert len(table.remarks) == len(case.remarks), table.remarks
        for part, remark in zip(sorted(case.remarks), sorted(table.remarks), strict=True):
            assert part in remark
            assert remark.isprintable()
        return
    with pytest.raises(InputError) as caught:
        read_table(path, cache_dir=cache, **case.options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < len(str(path)) + 400
    for part in case.says:
        assert part in message
    assert printable(str(path)) in message or "klingon" in message
    assert not cache.exists() or list(cache.iterdir()) == [], "nothing half-written is left behind"
    assert sorted(tmp_path.rglob("*")) in (before, sorted([*before, cache])), "nothing is changed"
