"""What single values and names of columns are: numbers, dates, nothing, several labels in one, or names of texts."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Records = Iterator[tuple[int, list]]
BATCH_ROWS = 1000  # in memory at a time
# Names that columns of texts and of labels usually have; a later line counts only if no name of the first is there.
TEXT_NAMES = """\
text sentence review content body message comment tweet post description document narrative utterance question query \
abstract article sms email mail passage transcript transcription complaint statement
title headline subject summary name"""
LABEL_NAMES = """\
label class category target sentiment intent polarity emotion topic y gold annotation
type tag kind genre rating star score overall priority department section product subject group code"""
TEXT_NAMES = [set(line.split()) for line in TEXT_NAMES.splitlines()]
LABEL_NAMES = [set(line.split()) for line in LABEL_NAMES.splitlines()]
NUMBER = re.compile(r"[-+]?(\d[\d ,_']*)?[.,]?\d+([eE][-+]?\d+)?\s?%?")
INTEGER = re.compile(r"[-+]?\d+(\.0+)?")
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,]+\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}.*)?"
    r"|(\w{3,9}[ ,]+)?(\d{1,2} \w{3,9}\.?|\w{3,9}\.? \d{1,2})[ ,]+(\d{2}:\d{2}:\d{2} \S+ )?\d{4}"
)
PROSE = re.compile(r"\S\s+\S|[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # words, or no spaces at all
HTML = re.compile(r"<(br|p|div|span|a|b|i|em|strong|li|ul|td|tr|h\d)(\s[^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#\d+);", re.I)
ERRORS = {"#n/a", "#value!", "#ref!", "#name?", "#div/0!", "<na>", "-nan", "nat"}  # of spreadsheets and programs
EMPTY = {"nan", "null", "none", "n/a", "na"}  # how nothing is written, and yet names of classes here and there
PRINTED_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)", re.DOTALL)  # ['a', 'b'] or {'a', 'b'} as Python prints them
SEVERAL = re.compile(r"\s*[;|,/+&]\s*")  # between labels
# Cannot be seen: controls, zero-width characters, marks of direction, soft hyphens, variants of emoji.
INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


@dataclass
class Sheet:
    """A table as it stands in a file: the names of its columns, and its rows with where each stood."""

    columns: list[str]
    records: Records


def by_name(columns: Iterable[str], groups: list[set[str]]) -> list[list[str]]:
    """For each group of names the columns called so, then, for each, those with such a word in their name."""
    parts = {name: words(name) for name in columns}
    exact = [[name for name, own in parts.items() if "".join(own) in group] for group in groups]
    partly = [[name for name, own in parts.items() if group.intersection(own)] for group in groups]
    return [exact[0], partly[0], exact[1], partly[1]]


def words(name: str) -> list[str]:
    parts = re.split(r"[\W_\d]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return [word if word == "class" else word.removesuffix("s") for word in parts if word]


def unique(columns: Iterable[str]) -> list[str]:
    """Names of which no two are equal: a later one gets a number."""
    found: dict[str, None] = {}
    for name in columns:
        count, free = 0, name
        while free in found:
            count += 1
            free = f"{name}.{count}"
        found[free] = None
    return list(found)


def is_number(value: str) -> bool:
    return len(value) <= 40 and NUMBER.fullmatch(value) is not None


def is_date(value: str) -> bool:
    return len(value) <= 40 and DATE.fullmatch(value) is not None


def is_error(value: str) -> bool:
    return len(value) < 8 and value.lower() in ERRORS


def says_nothing(value: str) -> bool:
    return len(value) < 8 and value.lower() in EMPTY


def visible(text: str) -> str:
    """A text without the characters that cannot be seen."""
    return text if text.isascii() and text.isprintable() else INVISIBLE.sub("", text)


def key(value: str) -> str:
    """The same for values that look the same but for case and spaces, and for 1 and 1.0."""
    folded = " ".join(unicodedata.normalize("NFKC", visible(value)).casefold().split())
    return folded.partition(".")[0] if len(folded) <= 20 and INTEGER.fullmatch(folded) else folded


def hash64(text: str) -> int:
    """A number below 2**64 that two texts share by chance once in 2**64 times."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def order(name: str) -> tuple:
    """By which names of classes are sorted: numbers first, by value."""
    return (0, float(name), name) if re.fullmatch(r"[-+]?\d+(\.\d+)?", name) else (1, 0.0, name)
