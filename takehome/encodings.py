"""Finds out how a file of text is encoded; what is assumed is said, and can be told instead.

UTF-8 and UTF-16 are recognised exactly. For anything else charset-normalizer makes proposals, and one of them is taken
only if the text that comes out is written in letters of one language.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from takehome.errors import InputError
from takehome.wording import counted

HEAD, SAMPLE = 65_536, 100_000  # bytes: to look for NUL bytes, and to guess from
FITS = 0.95  # share of the letters beyond ASCII that must be of one alphabet
CLOSE = (0.02, 0.1)  # proposals whose mess and whose likeness to a language differ by less are equally good
MIXED = 0.1  # so many characters in UTF-8 for each byte that is not are more than chance
SIGNS = "‘’“”„‚–—…«»‹›·•´`™®©°、。，．！？：；（）「」『』《》〈〉・〜～"  # beyond ASCII, and usual beside a letter
ODD = re.compile(rf"(?<=[^\W\d_])[^\0-\x7f\w\s{SIGNS}]|[^\0-\x7f\w\s{SIGNS}¡¿€£§№†](?=[^\W\d_])")


@dataclass(frozen=True)
class Known:
    """An encoding that may be guessed: its name, the letters beyond ASCII of each alphabet that is written in it, and
    an encoding that has only the usual ones of these, if they are thousands."""

    name: str
    alphabets: tuple[str, ...]
    usual: str = ""


WESTERN = (
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíñóúü",
    "àáâãçéêíóôõú",
    "àèéìíîòóù",
    "áéèêëïíóöü",
    "åäöé",
    "æøåé",
    "áéíóúýðþæö",
    "àçèéíïòóúü",
)
CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čćđšž", "âăîşţ")
CYRILLIC = ("а-яё", "а-щьюяіїєґ", "а-яіўё", "а-шђјљњћџ", "а-шјљњџѓќѕ")
KANA = ("ぁ-ゖァ-ヺー々一-龥",)
KNOWN = {
    "cp1252": Known("Windows-1252 (Latin-1)", WESTERN),
    "cp1250": Known("Windows-1250 (Central European)", CENTRAL),
    "iso8859_2": Known("ISO-8859-2 (Central European)", CENTRAL),
    "cp1254": Known("Windows-1254 (Turkish)", ("çğıi̇öşüâîû",)),
    "cp1257": Known("Windows-1257 (Baltic)", ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž")),
    "cp1251": Known("Windows-1251 (Cyrillic)", CYRILLIC),
    "koi8_r": Known("KOI8-R (Cyrillic)", CYRILLIC[:1]),
    "cp1253": Known("Windows-1253 (Greek)", ("α-ωάέήίόύώϊϋΐΰ",)),
    "cp1255": Known("Windows-1255 (Hebrew)", ("א-ת",)),
    "cp1256": Known("Windows-1256 (Arabic)", ("ء-يً-ْپچژگ",)),
    "gb18030": Known("GB18030 (Chinese)", ("一-龥",), "gb2312"),
    "big5": Known("Big5 (Chinese)", ("一-龥",)),
    "cp932": Known("Shift-JIS (Japanese)", KANA),
    "euc_jp": Known("EUC-JP (Japanese)", KANA),
    "cp949": Known("EUC-KR (Korean)", ("가-힣",), "iso2022_kr"),
}
LATIN = ("cp1252", "cp1250", "iso8859_2", "cp1254", "cp1257")
ALPHABETIC = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256")


@dataclass(frozen=True)
class Encoding:
    """How to open a file of text: the arguments of `open`."""

    name: str
    errors: str = "strict"


@dataclass
class _Scan:
    """What a file looks like when it is read as UTF-8."""

    size: int
    nul: int = 0
    damaged: int = 0  # bytes that are not UTF-8
    foreign: int = 0  # characters beyond ASCII that are
    line: int = 0  # of the first damaged byte
    sample: bytes = b""  # lines with bytes beyond ASCII


def lines(path: Path, encoding: Encoding) -> Iterator[str]:
    """The lines of a file with their ends, without NUL characters.

    Raises:
        InputError: a line is not in this encoding.
    """
    with path.open(encoding=encoding.name, errors=encoding.errors, newline="") as file:
        try:
            for line in file:
                yield line.replace("\0", "") if "\0" in line else line
        except UnicodeError as error:
            name = encoding.name.removesuffix("-sig")
            raise InputError(f"{path}: is not {name} ({error.reason}); give another --encoding") from error


def find_encoding(path: Path, told: str | None, remarks: list[str]) -> Encoding:
    """The encoding of a file: as told, by its byte-order mark, or by reading it once.

    Args:
        path: of the file.
        told: the name of an encoding that the user gave.
        remarks: gets a sentence about anything but plain UTF-8.

    Raises:
        InputError: it is no text, `told` is not the name of an encoding, or no guess is sure enough.
    """
    if told:
        try:
            b" ".decode(told)
        except UnicodeError:
            pass  # there is such an encoding, in which a space is not enough
        except (LookupError, ValueError) as error:
            said = f"--encoding {told}: no such encoding; for instance utf-8, cp1252, cp1251, gb18030 or shift_jis"
            raise InputError(said) from error
        return Encoding("utf-8-sig" if re.sub(r"[-_ ]", "", told.lower()) == "utf8" else told)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if encoding := _utf_16(path, head, remarks):
        return encoding
    scan = _scan(path)
    if head.startswith(b"\xef\xbb\xbf"):
        remarks.append(f"{path.name} begins with a byte-order mark (BOM), which is left out.")
    if scan.nul:
        remarks.append(f"{counted(scan.nul, 'NUL byte')} in {path.name} left out.")
    if not scan.damaged:
        return Encoding("utf-8-sig")
    if scan.damaged <= scan.foreign:  # a text in UTF-8 has more characters that fit than bytes that do not
        left = f"{counted(scan.damaged, 'byte')} in {path.name} not UTF-8 (first in line {scan.line})"
        remarks.append(f"{left} and read as \ufffd.")
        return Encoding("utf-8-sig", "replace")
    return _guess(path, scan, remarks)


def _utf_16(path: Path, head: bytes, remarks: list[str]) -> Encoding | None:
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        remarks.append(f"{path.name} is UTF-32 and was read as that.")
        return _checked(path, "utf-32", remarks)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        remarks.append(f"{path.name} is UTF-16 and was read as that.")
        return _checked(path, "utf-16", remarks)
    nuls = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
    if max(nuls) <= 0.4:
        return None
    if min(nuls) > 0.2:
        raise InputError(f"{path}: is not text; save the table as CSV UTF-8")
    name = "utf-16-le" if nuls[1] > nuls[0] else "utf-16-be"
    remarks.append(f"{path.name} is {name.upper()} without a mark that says so, and was read as that.")
    return _checked(path, name, remarks)


def _checked(path: Path, name: str, remarks: list[str]) -> Encoding:
    """This encoding; where bytes do not fit, it is said that they are replaced."""
    with path.open(encoding=name, newline="") as file:
        try:
            while file.read(1 << 20):
                pass
            return Encoding(name)
        except UnicodeError:
            remarks.append(f"Some bytes of {path.name} are not {name.upper()} and were read as \ufffd.")
            return Encoding(name, "replace")


def _scan(path: Path) -> _Scan:
    scan, line = _Scan(path.stat().st_size), 1
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        while chunk := file.read(1 << 20):
            scan.nul += chunk.count("\0")
            if not chunk.isascii():
                bad = re.findall("[\udc80-\udcff]", chunk)
                scan.damaged += len(bad)
                scan.foreign += len(re.findall("[^\0-\x7f\udc80-\udcff]", chunk))
                if bad and not scan.line:
                    scan.line = line + chunk[: chunk.index(bad[0])].count("\n")
                if bad and len(scan.sample) < SAMPLE:
                    found = re.findall(r"[^\r\n]*[^\0-\x7f\r\n][^\r\n]*\n?", chunk[: 4 * SAMPLE])
                    scan.sample += "".join(found).encode("utf-8", "surrogateescape")[:SAMPLE]
            line += chunk.count("\n")
    return scan


# ------------------------------------------------------------------ neither UTF-8 nor UTF-16


def _guess(path: Path, scan: _Scan, remarks: list[str]) -> Encoding:
    good = _proposals(scan.sample)
    western = scan.sample.decode("cp1252", "replace")
    if len(good) == 1 or "cp1252" in good:
        name = "cp1252" if "cp1252" in good else good[0]
    elif not good and _share(western, ["".join(WESTERN)], _odd(western)) >= FITS:  # of several languages
        name = "cp1252"
    else:
        could, todo = " or ".join(f"{KNOWN[name].name}" for name in good[:3]), "say which with --encoding"
        if not good and scan.foreign > MIXED * scan.damaged:
            could, todo = "UTF-8 in other lines", "bring all lines into one encoding"
        could = could or "another encoding that is not clear"
        raise InputError(f"{path}: not UTF-8 (line {scan.line}), but {could}; {todo}, or save it as UTF-8")
    text = scan.sample.decode(name, "replace")
    example = next((word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()), None)
    example = f", for instance {example[:30]!r}" if example else ""
    where = f"{path.name} is not UTF-8 (line {scan.line})"
    remarks.append(f"{where} and was read as {KNOWN[name].name}{example}; --encoding decides otherwise.")
    return _checked(path, name, remarks)


def _proposals(sample: bytes) -> list[str]:
    """Encodings in which the sample is plain text of one language; several if they differ and none is clearly best."""
    from charset_normalizer import from_bytes

    found = {}
    for match in from_bytes(sample, cp_isolation=list(KNOWN), threshold=0.3, enable_fallback=False):
        for name in sorted(set(match.could_be_from_charset) & set(KNOWN), key=list(KNOWN).index):
            text = _whole(sample, name)
            if text and text not in found and fit(text, name) >= FITS:
                found[text] = name, match
    good = list(found.values())
    if not good:
        return []
    best = good[0][1]  # in the library's order
    return [
        name
        for name, match in good
        if match.chaos - best.chaos < CLOSE[0] and best.coherence - match.coherence < CLOSE[1]
    ]


def _whole(sample: bytes, name: str) -> str:
    """The sample as a text that gives the same bytes again; nothing if there is none. Its last character may be cut."""
    for cut in range(4):
        part = sample[: len(sample) - cut]
        try:
            text = part.decode(name)
            return text if text.encode(name) == part else ""
        except UnicodeError:
            continue
    return ""


def fit(text: str, name: str) -> float:
    """The share of the letters beyond ASCII, and odd signs among them, that one alphabet of an encoding has."""
    if name in LATIN:
        return _share(text, KNOWN[name].alphabets, _odd(text))
    words = re.findall(r"[^\W\d_\0-\x7f]+", text)
    if name in ALPHABETIC:
        if len("".join(words)) < 2 * len(words):  # single letters among Latin ones
            return 0.0
        return _share(text, KNOWN[name].alphabets, _odd(text) + len(re.findall(r"[a-zA-Z][^\W\d_\0-\x7f]", text)))
    return _share(text, KNOWN[name].alphabets, 0, KNOWN[name].usual)


def _odd(text: str) -> int:
    return len(ODD.findall(text))


def _share(text: str, alphabets: Collection[str], odd: int, usual: str = "") -> float:
    letters = "".join(re.findall(r"[^\W\d_\0-\x7f]", text.lower()))
    common = letters.encode(usual, "ignore").decode(usual) if usual else letters
    most = max(len(re.findall(f"[{alphabet}]", common)) for alphabet in alphabets)
    return (most + 1) / (len(letters) + odd + 1)  # 1 where there are none: signs only, which need no alphabet
