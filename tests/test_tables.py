"""takehome/tables.py: files as other people make them are read, repaired and explained, or refused in one line."""

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from takehome import columns, packed, scratch, table_files
from takehome.errors import InputError
from takehome.tables import read_table

ROOT = Path(__file__).resolve().parent.parent
GOOD = [
    ("The film was a joy from the first minute", "positive"),
    ("I left before the end, and so did my friends", "negative"),
    ("A warm story that is told with care", "positive"),
    ("The jokes are old and the songs are worse", "negative"),
    ("Nobody in the room could stop laughing", "positive"),
    ("Two hours that I would like to have back", "negative"),
]


def csv_bytes(rows=GOOD, header="text,label", end="\n", encoding="utf-8", quoted=True):
    mark = '"' if quoted else ""
    lines = [header, *(f"{mark}{text}{mark},{label}" for text, label in rows)]
    return (end.join(lines) + end).encode(encoding)


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(table):
    names = table.labels
    return [(row["text"], names[row["label"]]) for row in table.dataset]


def test_a_good_file_is_read_as_it_is(tmp_path):
    table = read_table(put(tmp_path, "reviews.csv", csv_bytes()))
    assert rows_of(table) == GOOD
    assert (table.text_column, table.label_column, table.labels) == ("text", "label", ["negative", "positive"])
    assert table.remarks == [] and table.splits == {}
    assert table.dataset["row"] == [2, 3, 4, 5, 6, 7]
    assert table.dataset.cache_files, "the rows are on disk, not in memory"


# ------------------------------------------------------------------ what cannot be used

TEN = [(f"{text}, they said", label) for text, label in GOOD] + [(f"{text} once more", label) for text, label in GOOD]
REFUSED = {
    "empty file": ("a.csv", b"", ["a.csv", "empty", "header"]),
    "blank lines only": ("a.csv", b"\n \n\n", ["a.csv", "empty"]),
    "byte-order mark only": ("a.csv", b"\xef\xbb\xbf", ["a.csv", "empty"]),
    "header only": ("a.csv", b"text,label\n", ["a.csv", "no rows"]),
    "no text column": (
        "a.csv",
        "id,price,label\n" + "".join(f"{n},{n}.50,{'ab'[n % 2]}\n" for n in range(20)),
        ["a.csv", "no column holds texts", "id, price, label", "--text-column"],
    ),
    "no label column": (
        "a.csv",
        "id,text\n" + "".join(f'{n},"{text}"\n' for n, (text, _) in enumerate(GOOD, 1000)),
        ["a.csv", "no column holds labels", "id, text", "--label-column"],
    ),
    "two candidates for the text": (
        "a.csv",
        "sentence1,sentence2,label\n" + "".join(f'"{text}","{text[::-1]}",{label}\n' for text, label in GOOD),
        ["a.csv", "sentence1, sentence2", "--text-column"],
    ),
    "two candidates for the label": (
        "a.csv",
        "text,coarse_label,fine_label\n"
        + "".join(f'"{t}",{label},{"ab"[n // 3]}\n' for n, (t, label) in enumerate(GOOD)),
        ["a.csv", "coarse_label, fine_label", "--label-column"],
    ),
    "one class": (
        "a.csv",
        csv_bytes([(text, "spam") for text, _ in GOOD]),
        ["a.csv", "'label'", "one class only", "'spam'"],
    ),
    "two classes, one of a single row": (
        "a.csv",
        csv_bytes([(text, "good" if n else "bad") for n, (text, _) in enumerate(GOOD)]),
        ["a.csv, row 2", "'bad'", "'label'", "two rows"],
    ),
    "all labels missing": ("a.csv", csv_bytes([(text, "") for text, _ in GOOD]), ["a.csv", "'label'", "no labels"]),
    "all texts missing": ("a.csv", csv_bytes([("", label) for _, label in GOOD]), ["a.csv", "'text'", "nothing"]),
    "numbers as text": (
        "a.csv",
        csv_bytes([(f"{n}.25", label) for n, (_, label) in enumerate(GOOD)]),
        ["a.csv", "'text'", "numbers", "--text-column"],
    ),
    "dates as text": (
        "a.csv",
        csv_bytes([(f"2024-05-{n:02}", label) for n, (_, label) in enumerate(GOOD, 1)]),
        ["a.csv", "'text'", "dates", "--text-column"],
    ),
    "labels of words and numbers": (
        "a.csv",
        csv_bytes([*GOOD, *((f"{text}!", "1") for text, _ in GOOD[:2])]),
        ["a.csv, row 8", "'label'", "words (positive, negative)", "numbers (1)"],
    ),
    "as many labels as rows": (
        "a.csv",
        csv_bytes(
            [(f"{text} {n}", f"label{n}") for n in range(5) for text, _ in GOOD for n in [f"{n}{text[:3]}{text[-3:]}"]]
        ),
        ["a.csv", "'label'", "too many for classes", "--label-column"],
    ),
    "commas without quotes": (
        "a.csv",
        csv_bytes(TEN, quoted=False),
        ["a.csv, row 2", "3 fields", "2", "quotation marks"],
    ),
    "no delimiter": (
        "a.csv",
        "\n".join(f"{text} ({label})" for text, label in GOOD),
        ["a.csv", "one column", "comma or tab"],
    ),
    "a quote that never closes": (
        "a.csv",
        'text,label\n"The first is fine",good\n"The second\ngoes on and on,bad\nThe third is fine,good\n',
        ["a.csv, row 3 (line 3)", "never closes", "close it"],
    ),
    "an Excel workbook": ("a.xlsx", b"PK\x03\x04" + bytes(100), ["a.xlsx", "Excel", "CSV"]),
    "not text": ("a.csv", bytes(range(256)) + bytes(4000), ["a.csv", "not text"]),
    "a broken line of JSON": (
        "a.jsonl",
        '{"text": "one thing", "label": "a"}\n{"text": "another thing", "label"\n{"text": "a third", "label": "a"}\n',
        ["a.jsonl, line 2", "not valid JSON", "correct or delete"],
    ),
    "JSON lines without objects": ("a.jsonl", '"one"\n"two"\n', ["a.jsonl, line 1", "not an object"]),
    "labels that are lists": (
        "a.jsonl",
        "\n".join(json.dumps({"text": text, "label": [label]}) for text, label in GOOD),
        ["a.jsonl", "'label'", "lists"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(case, tmp_path):
    name, content, expected = REFUSED[case]
    path = put(tmp_path, name, content)
    cache = tmp_path / "cache"
    with pytest.raises(InputError) as caught:
        read_table(path, cache_dir=cache)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 300
    for part in expected:
        assert part in message, message
    assert list(cache.iterdir()) == [], "nothing half-written is left behind"


def test_no_such_file_names_its_neighbours(tmp_path):
    put(tmp_path, "reviews.csv", csv_bytes())
    with pytest.raises(InputError, match=r"reviewz\.csv: no such file or directory; .* has reviews\.csv"):
        read_table(tmp_path / "reviewz.csv")


def test_a_hub_id_that_cannot_be_reached(monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"^nobody/nothing (cannot be loaded|is not in the cache).*; or give a file$"):
        read_table("nobody/nothing")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_a_parquet_file_cut_off(keep, tmp_path):
    texts, labels = zip(*[(f"{text} {n}", label) for n in range(200) for text, label in GOOD], strict=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    path = put(tmp_path, "cut.parquet", whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"cut\.parquet: not a whole Parquet file .*copy or write it again"):
        read_table(path)
    middle = bytearray(whole)
    middle[len(middle) // 3 : len(middle) // 2] = bytes(len(middle) // 2 - len(middle) // 3)
    with pytest.raises(InputError, match="not a whole Parquet file"):
        read_table(put(tmp_path, "damaged.parquet", bytes(middle)))


def test_a_column_that_is_not_there(tmp_path):
    path = put(tmp_path, "a.csv", csv_bytes())
    with pytest.raises(InputError, match=r"no column 'body'; give --text-column one of text, label"):
        read_table(path, text_column="body")
    with pytest.raises(InputError, match=r"no column 'class'; give --label-column one of text, label"):
        read_table(path, label_column="class")
    with pytest.raises(InputError, match="cannot be text and label at once"):
        read_table(path, text_column="text", label_column="text")


def test_a_file_that_the_system_does_not_give(tmp_path, monkeypatch):
    path = put(tmp_path, "a.csv", csv_bytes())
    monkeypatch.setattr(
        table_files, "read_csv", lambda *_: path.joinpath("below").open(encoding="utf-8")
    )  # root may read any file
    with pytest.raises(InputError, match=r"a\.csv: Not a directory .*; check the file and its rights"):
        read_table(path)


# ------------------------------------------------------------------ what is repaired

REPAIRED = {
    "byte-order mark": ("a.csv", csv_bytes(encoding="utf-8-sig"), ["byte-order mark"]),
    "UTF-16": ("a.csv", csv_bytes(encoding="utf-16"), ["a.csv is UTF-16"]),
    "UTF-16, big end first": ("a.csv", b"\xfe\xff" + csv_bytes(encoding="utf-16-be"), ["a.csv is UTF-16"]),
    "UTF-16 without a mark": ("a.csv", csv_bytes(encoding="utf-16-le"), ["a.csv is UTF-16-LE without a mark"]),
    "UTF-16 with tabs": (
        "a.csv",
        "".join(f"{text}\t{label}\r\n" for text, label in [("text", "label"), *GOOD]).encode("utf-16"),
        ["UTF-16", "tabs"],
    ),
    "Windows line ends": ("a.csv", csv_bytes(end="\r\n"), []),
    "old Mac line ends": ("a.csv", csv_bytes(end="\r"), []),
    "NUL bytes": ("a.csv", csv_bytes().replace(b"joy", b"j\0oy").replace(b"warm", b"w\0arm"), ["2 NUL bytes"]),
    "semicolons": ("a.csv", csv_bytes(header="text;label").replace(b'",', b'";'), ["semicolons"]),
    "tabs in a .csv": ("a.csv", csv_bytes(header="text\tlabel").replace(b'",', b'"\t'), ["tabs"]),
    "bars": ("a.txt", csv_bytes(header="text|label").replace(b'",', b'"|'), ["vertical bars"]),
    "spaces after the commas": ("a.csv", csv_bytes(header="text, label").replace(b'",', b'", '), []),
    "blank lines": ("a.csv", csv_bytes().replace(b"\n", b"\n\n"), []),
    "empty extra columns": ("a.csv", csv_bytes(header="text,label,,").replace(b"tive\n", b"tive,,\n"), []),
    "labels by case and spaces": (
        "a.csv",
        csv_bytes([(text, [label, label.title(), f" {label} "][n % 3]) for n, (text, label) in enumerate([*GOOD])]),
        ["counted as"],
    ),
    "rows without a text": (
        "a.csv",
        csv_bytes([*GOOD[:2], ("", "positive"), *GOOD[2:], ("  ", "negative")]),
        ["2 rows without a text left out (rows 4, 9)"],
    ),
    "rows without a label": (
        "a.csv",
        csv_bytes([*GOOD[:2], ("Who knows what this was", ""), *GOOD[2:], ("And what was this", "NaN")]),
        ["2 rows without a label left out (rows 4, 9)"],
    ),
    "repeated rows": (
        "a.csv",
        csv_bytes([*GOOD, GOOD[0], (GOOD[1][0].upper() + "  ", GOOD[1][1])]),
        ["2 rows that repeat an earlier one left out (rows 8, 9)"],
    ),
    "same text, different labels": (
        "a.csv",
        csv_bytes([("Hard to say, really", "positive"), *GOOD, ("Hard to say, really", "negative")]),
        ["2 rows with the same text and different labels left out (rows 2, 9)"],
    ),
    "a class with one row": (
        "a.csv",
        csv_bytes([*GOOD[:3], ("The bus was late again", "traffic"), *GOOD[3:]]),
        ["1 row of class 'traffic', which has no other, left out (row 5)"],
    ),
    "a stray quote": (
        "a.csv",
        csv_bytes().replace(b'"I left before', b'"I "left" before'),
        ["Stray quotation marks in 1 row of a.csv (row 3) taken as text"],
    ),
    "JSON lines": ("a.jsonl", "\n".join(json.dumps({"text": t, "label": label}) for t, label in GOOD), []),
    "JSON of a list a column": (
        "a.json",
        json.dumps(dict(zip(("text", "label"), zip(*GOOD, strict=True), strict=True))),
        [],
    ),
    "JSON as pandas writes it": (
        "a.json",
        json.dumps(
            {
                name: dict(enumerate(values))
                for name, values in zip(("text", "label"), zip(*GOOD, strict=True), strict=True)
            }
        ),
        [],
    ),
    "JSON lines called .json": ("a.json", "\n".join(json.dumps({"text": t, "label": label}) for t, label in GOOD), []),
    "Excel's sep line": ("a.csv", b"sep=;\r\n" + csv_bytes(header="text;label").replace(b'",', b'";'), ["semicolons"]),
    "a JSON array": ("a.json", json.dumps([{"text": t, "label": label} for t, label in GOOD], indent=1), []),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_what_can_be_repaired_is_repaired_and_said(case, tmp_path):
    name, content, expected = REPAIRED[case]
    table = read_table(put(tmp_path, name, content))
    texts = {text.lower().replace('"left"', "left"): label for text, label in rows_of(table)}
    assert {text: label.strip().lower() for text, label in texts.items()} == {t.lower(): label for t, label in GOOD}
    assert len(table.labels) == 2
    said = " ".join(table.remarks)
    for part in expected:
        assert part in said, said
    assert bool(expected) == bool(table.remarks), said


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_latin_1_is_read_as_such(encoding, tmp_path):
    rows = [(f"Das kostet 5 \xa3 im Caf\xe9 {text}", label) for text, label in GOOD]
    if encoding == "cp1252":
        rows = [(f"\u201c{text}\u201d for 5 \u20ac", label) for text, label in rows]
    table = read_table(put(tmp_path, "a.csv", csv_bytes(rows, encoding=encoding)))
    assert rows_of(table) == rows
    assert (
        len(table.remarks) == 1 and "a.csv is not UTF-8 (line 2)" in table.remarks[0] and "Latin-1" in table.remarks[0]
    )


def test_a_few_invalid_bytes_do_not_change_the_rest(tmp_path):
    rows = [(f"Ein schöner Tag für große Bäume: {text}", label) for text, label in GOOD]
    content = csv_bytes(rows).replace(b"jokes", b"jo\xffkes")
    table = read_table(put(tmp_path, "a.csv", content))
    assert [text for text, _ in rows_of(table)][3] == rows[3][0].replace("jokes", "jo\ufffdkes")
    assert rows_of(table)[0] == rows[0]
    assert table.remarks == ["1 byte in a.csv not UTF-8 (first in line 5) and read as \ufffd."]


def test_rows_with_too_many_fields_are_left_out(tmp_path):
    many = [(f"{text} number {n}", label) for n in range(10) for text, label in GOOD]
    path = put(tmp_path, "a.csv", csv_bytes(many) + b"this, that, and the other,positive\n")
    table = read_table(path)
    assert len(table.dataset) == 60
    assert table.remarks == ["1 row of a.csv with too many fields left out (row 62)."]


def test_a_very_long_text_is_cut_and_the_others_stay(tmp_path):
    path = put(tmp_path, "a.csv", csv_bytes([*GOOD, ("word " * 2_000_000, "negative")]))
    table = read_table(path)
    assert [len(text) for text in table.dataset["text"]] == [*(len(text) for text, _ in GOOD), columns.MAX_CHARACTERS]
    assert table.remarks == ["1 text longer than 100,000 characters cut there (row 8)."]


def test_a_label_that_looks_like_a_formula_stays_a_text(tmp_path):
    rows = [(text, "=1+1" if label == "positive" else "@cmd") for text, label in GOOD]
    table = read_table(put(tmp_path, "a.csv", csv_bytes(rows)))
    assert table.labels == ["=1+1", "@cmd"]
    assert sum("looks like a formula" in remark for remark in table.remarks) == 2


def test_quotes_in_tab_separated_files_are_characters(tmp_path):
    rows = [
        (f'"{text}' if n == 1 else f'so "{text}"' if n == 3 else text, label) for n, (text, label) in enumerate(GOOD)
    ]
    table = read_table(put(tmp_path, "a.tsv", "text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in rows)))
    assert rows_of(table) == rows and table.remarks == []


def test_an_open_quote_costs_one_row_and_not_the_file(tmp_path):
    many = [(f"{text} number {n}", label) for n in range(500) for text, label in GOOD]
    content = csv_bytes(many).decode().replace('"I left', '"I left it open, "I left', 0).split("\n")
    content[7] = content[7].replace('",', ",", 1)
    table = read_table(put(tmp_path, "a.csv", "\n".join(content)))
    assert len(table.dataset) == 3000
    assert table.dataset[6]["text"] == '"' + many[6][0]
    assert table.remarks == ["Stray quotation marks in 1 row of a.csv (row 8) taken as text."]


def test_texts_that_are_numbers_are_kept_and_named(tmp_path):
    table = read_table(put(tmp_path, "a.csv", csv_bytes([*GOOD, ("10", "positive"), ("2024-01-05", "negative")])))
    assert len(table.dataset) == 8
    assert table.remarks == ["2 texts nothing but a number or a date, kept (rows 8, 9)."]


# ------------------------------------------------------------------ files as they are found

LONG = [(f"{text}, and this is why I am writing to you today at length.", label) for text, label in GOOD * 4]
LONG = [(f"{text} Case {n}.", label) for n, (text, label) in enumerate(LONG)]


def table_of(header, make, rows=LONG):
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out)
    if header:
        writer.writerow(header)
    for n, (text, label) in enumerate(rows):
        writer.writerow(make(n, text, label))
    return out.getvalue()


FOUND = {
    "IMDB": (["review", "sentiment"], lambda n, t, c: [t + "<br /><br />", c], ("review", "sentiment")),
    "banking": (["text", "category"], lambda n, t, c: [t, c], ("text", "category")),
    "AG news": (
        ["Class Index", "Title", "Description"],
        lambda n, t, c: [1 + (c == "positive"), t[:20], t],
        ("Description", "Class Index"),
    ),
    "AG news without header": (
        None,
        lambda n, t, c: [1 + (c == "positive"), f"{n} {t[:20]}", t],
        ("column 3", "column 1"),
    ),
    "spam": (["v1", "v2", "", "", ""], lambda n, t, c: [c, t, "x" if n == 3 else "", "", ""], ("v2", "v1")),
    "tweets": (
        [
            "tweet_id",
            "airline_sentiment",
            "airline_sentiment_confidence",
            "negativereason",
            "airline",
            "airline_sentiment_gold",
            "name",
            "retweet_count",
            "text",
            "tweet_created",
            "tweet_location",
        ],
        lambda n, t, c: [
            570306133677760513 + n,
            c,
            [1.0, 0.3486, 0.6837][n % 3],
            "Late Flight" if n % 2 else "",
            ["United", "Delta"][n % 3 == 0],
            c if n == 7 else "",
            f"user{n}",
            n % 2,
            t,
            f"2015-02-24 11:35:{n:02} -0800",
            ["Boston", "", "New York"][n % 3],
        ],
        ("text", "airline_sentiment"),
    ),
    "index column": (["", "tweet", "class"], lambda n, t, c: [n, t, c], ("tweet", "class")),
    "hate speech": (
        ["", "count", "hate_speech", "neither", "class", "tweet"],
        lambda n, t, c: [n, 3, n % 2, (n + 1) % 3, 1 + (c == "positive"), t],
        ("tweet", "class"),
    ),
    "names beside numbers": (
        ["text", "label", "label_text"],
        lambda n, t, c: [t, int(c == "positive"), c],
        ("text", "label_text"),
    ),
    "camel case": (
        ["overall", "reviewText"],
        lambda n, t, c: [5.0 - 4 * (c == "negative"), t],
        ("reviewText", "overall"),
    ),
    "by content alone": (["A", "B", "C"], lambda n, t, c: [n, c, t], ("C", "B")),
    "messages without header": (
        None,
        lambda n, t, c: ["ham" if c == "positive" else "spam", t],
        ("column 2", "column 1"),
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_columns_of_well_known_files_are_found(case, tmp_path):
    header, make, expected = FOUND[case]
    table = read_table(put(tmp_path, "found.csv", table_of(header, make)))
    assert (table.text_column, table.label_column) == expected
    assert len(table.dataset) == len(LONG) and len(table.labels) == 2
    positive = table.labels[table.dataset[0]["label"]]
    assert [table.labels[n] == positive for n in table.dataset["label"]] == [c == "positive" for _, c in LONG]


def test_columns_without_names_are_remarked(tmp_path):
    table = read_table(put(tmp_path, "a.csv", table_of(["A", "B", "C"], FOUND["by content alone"][1])))
    assert [remark.split(":")[0] for remark in table.remarks] == [
        "Column 'C' taken as the text",
        "Column 'B' taken as the label",
    ]


ASKED = {
    "complaints": (
        ["Date received", "Product", "Consumer complaint narrative", "State", "Complaint ID"],
        lambda n, t, c: ["03/21/2017", c, t, "CA" if n % 3 else "NY", 2393805 + n],
        "Product, State",
    ),
    "reviews": (
        ["Id", "ProductId", "UserId", "HelpfulnessNumerator", "Score", "Time", "Summary", "Text"],
        lambda n, t, c: [n, f"B{n % 5}", f"A{n}", n % 2, 1 + 4 * (c == "positive"), 1303862400 + n, t[:15], t],
        "ProductId, HelpfulnessNumerator, Score, Summary",
    ),
    "tickets": (
        ["description", "priority", "part"],
        lambda n, t, c: [t, c, "net" if n % 3 else "doc"],
        "priority, part",
    ),
    "sections": (
        ["description", "priority", "section"],
        lambda n, t, c: [t, c, "net" if n % 3 else "doc"],
        "priority, section",
    ),
    "by content alone": (["A", "B", "C"], lambda n, t, c: [n % 5, c, t], "A, B"),
}


@pytest.mark.parametrize("case", ASKED)
def test_more_than_one_candidate_for_the_label_is_a_question(case, tmp_path):
    header, make, candidates = ASKED[case]
    path = put(tmp_path, "found.csv", table_of(header, make))
    with pytest.raises(InputError, match=rf"{candidates} may each be the label; choose one with --label-column"):
        read_table(path)
    name = candidates.split(", ")[1]
    assert read_table(path, label_column=name).label_column == name


def test_a_column_that_is_called_label_is_the_label_beside_others(tmp_path):
    path = put(tmp_path, "b.csv", table_of(["description", "label", "section"], ASKED["tickets"][1]))
    table = read_table(path)
    assert (table.label_column, table.remarks) == ("label", [])


def test_labels_are_sorted_and_numbers_by_value(tmp_path):
    rows = [(f"{text} {n}", str(n % 12)) for n, (text, _) in enumerate(GOOD * 6)]
    assert read_table(put(tmp_path, "a.csv", csv_bytes(rows))).labels == [str(n) for n in range(12)]
    back = list(reversed([(text, f"class {label}") for text, label in rows]))
    assert read_table(put(tmp_path, "b.csv", csv_bytes(back))).labels == sorted({label for _, label in back})


def test_texts_over_several_lines(tmp_path):
    rows = [(f'{text}\nand a second line, with a comma and a "quote"', label) for text, label in GOOD]
    table = read_table(put(tmp_path, "a.csv", table_of(["text", "label"], lambda n, t, c: [t, c], rows)))
    assert rows_of(table) == rows and table.dataset["row"] == [2, 3, 4, 5, 6, 7]


def test_class_labels_of_parquet_keep_their_names(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    data = {
        "text": [text for text, _ in GOOD] + ["A hidden one"],
        "label": [int(label == "positive") for _, label in GOOD] + [-1],
    }
    pq.write_table(pa.table(data, schema=features.arrow_schema), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert [label for _, label in rows_of(table)] == [label[:3] for _, label in GOOD]
    assert table.remarks == ["1 row without a label left out (row 7)."]


def test_splits_of_a_directory(tmp_path):
    put(tmp_path, "reviews/train.csv", csv_bytes([*GOOD, ("This stands in both of the files", "positive")]))
    others = [(f"{text} too", label) for text, label in GOOD]
    put(tmp_path, "reviews/test.csv", csv_bytes([*others, ("This stands in both of the files", "positive")]))
    put(
        tmp_path,
        "reviews/dev.csv",
        csv_bytes([(f"{text} again", label) for text, label in GOOD] + [("New", "unheard of")]),
    )
    table = read_table(tmp_path / "reviews")
    assert len(table.dataset) == 6 and {name: len(split) for name, split in table.splits.items()} == {
        "validation": 6,
        "test": 7,
    }
    assert table.remarks == [
        "1 row of validation with a label that train has not (unheard of) left out (row 8).",
        "1 row of train whose text is also in test left out (row 8).",
    ]
    assert table.splits["test"].features == table.dataset.features


def test_a_test_split_whose_labels_were_kept_back(tmp_path):
    """GLUE's folders as they are downloaded."""
    rows = "\n".join(f"{text}\t{label}" for text, label in GOOD)
    put(tmp_path, "SST-2/train.tsv", f"sentence\tlabel\n{rows}\n")
    put(tmp_path, "SST-2/dev.tsv", "sentence\tlabel\nA good film, all in all\tpositive\nA bad one\tnegative\n")
    put(tmp_path, "SST-2/test.tsv", "index\tsentence\n0\tNobody knows\n1\tHow good it is\n2\tOr is not\n")
    table = read_table(tmp_path / "SST-2")
    assert rows_of(table) == GOOD and set(table.splits) == {"validation"}
    assert table.remarks == ["Not read: test, which has no column 'label' (it has index, sentence)."]


def test_labels_of_which_a_split_has_none_are_said(tmp_path):
    put(tmp_path, "train.csv", csv_bytes())
    put(tmp_path, "test.csv", csv_bytes([("Not one good song", "negative"), ("So long ago", "old")]))
    assert read_table(tmp_path).remarks == [
        "1 row of test with a label that train has not (old) left out (row 3).",
        "No row of test has the label positive.",
    ]


def test_a_header_less_table_whose_users_repeat_is_a_question(tmp_path):
    rows = "".join(f'{n % 2 * 4},user{n % 5},"{text} {n}"\n' for n in range(40) for text, _ in GOOD[:1])
    path = put(tmp_path, "a.csv", rows)
    with pytest.raises(InputError, match="column 1, column 2 may each be the label; choose one with --label-column"):
        read_table(path)
    assert read_table(path, label_column="column 1").labels == ["0", "4"]


# ------------------------------------------------------------------ packed files


def zip_of(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") if name[0] != "_" else name, content)
    return out.getvalue()


SPLIT = {"d__train.csv": csv_bytes(), "d__test.csv": csv_bytes([("Fine, all of it", "positive"), ("Bad", "negative")])}
PACKED_FILES = {
    "a.csv.gz": gzip.compress(csv_bytes()),
    "a.jsonl.bz2": bz2.compress("\n".join(json.dumps({"text": t, "label": label}) for t, label in GOOD).encode()),
    "a.tsv.xz": lzma.compress("".join(f"{t}\t{label}\n" for t, label in [("text", "label"), *GOOD]).encode()),
    "a.zip": zip_of(**{"__MACOSX/._a.csv": b"x", "a.csv": csv_bytes(), "readme.md": b"what it is"}),
    "b.zip": zip_of(**SPLIT, LICENSE=b"free"),
}


@pytest.mark.parametrize("name", PACKED_FILES)
def test_a_packed_table_is_read_as_the_table_in_it(name, tmp_path):
    table = read_table(put(tmp_path, name, PACKED_FILES[name]), cache_dir=tmp_path / "cache")
    assert rows_of(table) == GOOD
    assert table.remarks == [] and set(table.splits) == ({"test"} if name == "b.zip" else set())
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".arrow"}, "what was unpacked is gone"


def test_packed_parts_of_a_directory(tmp_path):
    for split, rows in (("train", GOOD), ("test", [("Fine, all of it", "positive"), ("Bad", "negative")])):
        put(tmp_path, f"{split}/data.csv.gz", gzip.compress(csv_bytes(rows)))
    table = read_table(tmp_path)
    assert rows_of(table) == GOOD and len(table.splits["test"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv.gz", gzip.compress(csv_bytes() * 50)[:-20], "cannot be unpacked"),
        ("a.csv.xz", b"no such thing", "cannot be unpacked"),
        ("a.zip", zip_of(a=b"x")[:-9], "cannot be unpacked"),
        ("a.zip", zip_of(**{"a.png": b"x"}), "no table in it (a.png); unpack it"),
        ("a.zip", zip_of(), "no table in it (it is empty)"),
        ("a.zip", zip_of(**{"../a.csv": csv_bytes()}), "holds ../a.csv, a name that leads out of it"),
        ("a.csv.gz", gzip.compress(b"text,label\n"), "a.csv.gz: has no rows"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}\n{"text"'), "a.jsonl.gz, line 2: not valid JSON"),
    ],
    ids=range(8),  # of the bytes pytest would make a name, and they hold the time
)
def test_what_cannot_be_unpacked_is_one_line(name, content, said, tmp_path):
    path = put(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read_table(path, cache_dir=tmp_path / "cache")
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_workbook_is_read_where_openpyxl_is_there(tmp_path):
    openpyxl = pytest.importorskip("openpyxl", reason="the group `files` is not installed")
    book = openpyxl.Workbook()
    book.create_sheet("notes").append(["nothing"])
    for row in [("text", "label"), (), *((text, n % 2) for n, (text, _) in enumerate(GOOD))]:
        book.active.append(row)
    book.save(path := tmp_path / "a.xlsx")
    table = read_table(path)
    assert rows_of(table) == [(text, str(n % 2)) for n, (text, _) in enumerate(GOOD)]
    assert table.remarks == ["Of a.xlsx the sheet 'Sheet' is read, and not notes."]


def test_without_openpyxl_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(packed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a\.xlsx: an Excel file: pip install openpyxl, or save it as CSV UTF-8"):
        read_table(put(tmp_path, "a.xlsx", zip_of(**{"xl/workbook.xml": b"x"})))


def test_a_directory_of_texts(tmp_path):
    for split in ("train", "test"):
        for n, (text, label) in enumerate(GOOD):
            put(tmp_path, f"{split}/{label}/{n}.txt", f"{text} in {split}")
    table = read_table(tmp_path)
    assert sorted(rows_of(table)) == sorted((f"{text} in train", label) for text, label in GOOD)
    assert len(table.splits["test"]) == 6
    assert read_table(tmp_path / "test").labels == ["negative", "positive"]
    put(tmp_path, "test/positive/7.txt", "これは長い文章です。".encode("shift-jis"))  # one of many is no reason to stop
    table = read_table(tmp_path / "test")
    assert len(table.dataset) == 7
    assert table.remarks == ["1 file not UTF-8 and read as Shift-JIS (Japanese) (positive/7.txt)."]
    assert "これは長い文章です。" in table.dataset["text"]


@pytest.mark.parametrize(
    "form", ["aclImdb/{}/{}/{}_7.txt", "news/20news-bydate-{}/{}/5996{}", "drugs/drugsCom{}_raw.tsv"]
)
def test_directories_of_well_known_data(form, tmp_path):
    for split in ("train", "test"):
        if form.endswith(".tsv"):
            lines = [
                ("", "review", "rating"),
                *((n, f"{text} in {split}", label) for n, (text, label) in enumerate(GOOD)),
            ]
            put(tmp_path, form.format(split.title()), "".join("\t".join(map(str, line)) + "\n" for line in lines))
        else:
            for n, (text, label) in enumerate([*GOOD, ("Nobody said what this is", "unsup")]):
                put(tmp_path, form.format(split, label, n), f"{text} in {split}")
    table = read_table(tmp_path / form.split("/")[0])
    assert sorted(rows_of(table)) == sorted((f"{text} in train", label) for text, label in GOOD)
    assert {name: len(split) for name, split in table.splits.items()} == {"test": 6}


def test_directories_that_leave_a_question(tmp_path):
    with pytest.raises(InputError, match="holds no CSV"):
        read_table(tmp_path)
    put(tmp_path, "one.csv", csv_bytes())
    assert len(read_table(tmp_path).dataset) == 6
    put(tmp_path, "two.csv", csv_bytes())
    with pytest.raises(InputError, match=r"which file\? It holds one\.csv, two\.csv"):
        read_table(tmp_path)


def test_the_course_s_own_data():
    imdb = read_table(ROOT / "data" / "imdb")
    assert imdb.labels == ["neg", "pos"] and "test" in imdb.splits
    documents = read_table(ROOT / "data" / "documents.csv")
    assert len(documents.dataset) == 720 and len(documents.labels) == 6 and documents.remarks == []


# ------------------------------------------------------------------ for a model that is there already


def test_labels_of_a_model_decide(tmp_path):
    path = put(tmp_path, "a.csv", csv_bytes([(text, label.upper()) for text, label in GOOD]))
    table = read_table(path, labels=["positive", "neutral", "negative"], training=False)
    assert table.labels == ["positive", "neutral", "negative"]
    assert table.dataset["label"] == [0 if label == "positive" else 2 for _, label in GOOD]
    with pytest.raises(
        InputError, match=r"a\.csv, row 2: label 'POSITIVE' .*the file has NEGATIVE, POSITIVE, the model bad, good"
    ):
        read_table(path, labels=["bad", "good"], training=False)


def test_columns_of_the_training_come_first(tmp_path):
    header, make = ["title", "body", "tag", "verdict"], lambda n, t, c: [t, f"{t} {t}", c, c if n % 3 else "positive"]
    path = put(tmp_path, "a.csv", table_of(header, make))
    assert read_table(path, label_column="tag").text_column == "body"
    usual = ["title", "verdict", "not there", None]
    table = read_table(path, labels=["negative", "positive"], usual=usual, training=False)
    assert (table.text_column, table.label_column) == ("title", "verdict")


def test_a_file_with_or_without_labels(tmp_path):
    states = [(text, "CA" if n % 2 else "NY") for n, (text, _) in enumerate(GOOD)]
    plain = put(tmp_path, "plain.csv", csv_bytes(states, header="text,state"))
    table = read_table(plain, labelled=None, labels=["negative", "positive"], training=False)
    assert table.label_column is None and table.dataset.column_names == ["text", "row"] and table.labels == []
    odd = put(tmp_path, "odd.csv", csv_bytes(header="text,verdict"))
    assert read_table(odd, labelled=None, labels=["negative", "positive"]).label_column == "verdict"
    assert read_table(odd, labelled=False).label_column is None
    lines = put(tmp_path, "lines.txt", "".join(f"{text}\n" for text, _ in GOOD))
    assert read_table(lines, labelled=False).dataset["text"] == [text for text, _ in GOOD]


def test_not_for_training_every_row_with_a_text_and_a_label_stays(tmp_path):
    rows = [*GOOD, GOOD[0], (GOOD[1][0], "positive"), ("A single one of its kind", "neutral"), ("", "positive")]
    table = read_table(
        put(tmp_path, "a.csv", csv_bytes(rows)), labels=["negative", "neutral", "positive"], training=False
    )
    assert len(table.dataset) == 9 and table.remarks == ["1 row without a text left out (row 11)."]


# ------------------------------------------------------------------ files and memory


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    path = put(tmp_path, "a.csv", csv_bytes())
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(columns, "write_arrow", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(InputError, match=r"a\.csv: no space left in .*cache for a copy; make room$"):
        read_table(path, cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match=r"a\.csv: no space left in .*; make room, or set TMPDIR"):
        read_table(path)
    assert os.listdir(tmp_path / "cache") == []


def test_the_temporary_file_goes_with_the_process(tmp_path):
    path = put(tmp_path, "a.csv", csv_bytes())
    code = "import sys; from takehome.tables import read_table; "
    code += "print(read_table(sys.argv[1]).dataset.cache_files[0]['filename'])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() and not Path(done.stdout.strip()).parent.exists()


STOPPED = """
import os, signal, sys, time
from takehome import cleaning, columns, tables
number, place = getattr(signal, sys.argv[2]), sys.argv[3] or None
def stop(*_):
    print("stopping", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(60)
if sys.argv[4] == "reading":
    tables.examine = stop  # a copy of everything is on disk
    tables.read_table(sys.argv[1], cache_dir=place)
else:
    table = tables.read_table(sys.argv[1], cache_dir=place)
    stop()
"""


def stop(path, number, place, when, temporary):
    """Reads a table in a process that gets a signal; returns what it left in its temporary directory."""
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = [sys.executable, "-c", STOPPED, str(path), number, str(place or ""), when]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert done.stdout == "stopping\n", done.stderr
    assert done.returncode == -getattr(signal, number), done.stderr
    return sorted(temporary.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "where", "when"),
    [("SIGTERM", "", "reading"), ("SIGHUP", "", "read"), ("SIGTERM", "cache", "reading")],
)
def test_a_signal_leaves_no_copy_behind(number, where, when, tmp_path):
    path, temporary = put(tmp_path, "a.csv", csv_bytes()), tmp_path / "temporary"
    temporary.mkdir()
    place = tmp_path / where if where else None
    assert stop(path, number, place, when, temporary) == []
    assert not place or list(place.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_a_kill_leaves_the_next_run_removes_and_nothing_else(tmp_path, monkeypatch):
    path, temporary = put(tmp_path, "a.csv", csv_bytes()), tmp_path / "temporary"
    temporary.mkdir()
    (abandoned,) = stop(path, "SIGKILL", None, "reading", temporary)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    foreign = temporary / f"{scratch.PREFIX}notes"  # it has such a name, but no mark of ours
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine", encoding="utf-8")
    linked = temporary / f"{scratch.PREFIX}link"
    linked.symlink_to(tmp_path)

    first = read_table(path)
    assert abandoned.exists(), "it might be in the making"
    long_ago = time.time() - 3600
    for folder in (abandoned, Path(first.dataset.cache_files[0]["filename"]).parent):
        os.utime(folder / scratch.MARKER, (long_ago, long_ago))
    second = read_table(path)
    assert not abandoned.exists()
    assert first.dataset["text"] == second.dataset["text"] == [text for text, _ in GOOD]
    assert Path(first.dataset.cache_files[0]["filename"]).exists(), "it is in use"
    assert (foreign / "thesis.txt").read_text(encoding="utf-8") == "mine"
    assert linked.is_symlink() and path.exists()
