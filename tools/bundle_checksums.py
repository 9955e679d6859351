"""The list of a classroom bundle: which files it has, by name and sha256. Nothing that is not in it is used.

    DIGEST  course/Makefile
    ...
    # 207 files, sha256 of the lines above: DIGEST

The last line tells a whole list from a cut one. Like the rest of the install this needs nothing but Python.
"""

import hashlib
import os
import re
import tempfile
from pathlib import Path, PurePosixPath

CHECKSUMS = "checksums.sha256"
FOLDERS = ("course", "hub", "site", "wheels")
MARKER = "BUNDLE.txt"
MARK = "A classroom bundle of Every Parameter."  # the marker's first line
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
LAST = re.compile(r"# (\d+) files, sha256 of the lines above: ([0-9a-f]{64})")


class BundleError(Exception):
    """Something is missing or damaged; the message says what and what to do."""


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_list(digests: dict[str, str]) -> str:
    """The text of a list, from {name below the bundle: sha256}."""
    body = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return f"{body}# {len(digests)} files, sha256 of the lines above: {hashlib.sha256(body.encode()).hexdigest()}\n"


def read_list(path: Path) -> dict[str, str]:
    """Reads a list, also one that an editor or PowerShell has saved with other line ends or as UTF-16.

    Raises:
        BundleError: it is not there, cut, changed, or names what is not inside the bundle.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise BundleError(f"{path} is not a file: {AGAIN}")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent} is no finished bundle, it has no {path.name}: make it again") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is damaged, it is not text: {AGAIN}") from error
    if not text.strip():
        raise BundleError(f"{path} is empty: {AGAIN}")
    *lines, last = text.removesuffix("\n").split("\n")
    digests = {}
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line)
        if not match:
            what = "is empty" if not line.strip() else "is not a sha256, two spaces and a name"
            raise BundleError(f"{path}, line {number} {what}: {AGAIN}")
        if reason := outside(match[2]):
            raise BundleError(f"{path}, line {number} names {match[2]!r}, which {reason}: do not use this bundle")
        if match[2] in digests:
            raise BundleError(f"{path}, line {number} names {match[2]} a second time: {AGAIN}")
        digests[match[2]] = match[1]
    if not (match := LAST.fullmatch(last)):
        raise BundleError(f"{path} is cut, its last line is missing: {AGAIN}")
    body = "".join(f"{line}\n" for line in lines)
    if int(match[1]) != len(digests) or hashlib.sha256(body.encode()).hexdigest() != match[2]:
        raise BundleError(f"{path} was changed or damaged, its last line does not fit the others: {AGAIN}")
    return digests


AGAIN = "copy the bundle again, or make it again"


def outside(name: str) -> str:
    """Why a name is not that of a file of the bundle; empty if it is."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ":" in name or not name.isprintable():
        return "is not a plain relative path"
    if ".." in parts or str(PurePosixPath(name)) != name:
        return "is not a plain path inside the bundle"
    if name != MARKER and (len(parts) < 2 or parts[0] not in FOLDERS):
        return f"is not below {', '.join(FOLDERS)}"
    return ""


def wrong(bundle: Path, name: str, expected: str) -> str:
    """What is wrong with one file of a bundle, as a sentence; empty if it is what the list says."""
    path = bundle
    for part in PurePosixPath(name).parts:
        path = path / part
        if is_link(path):
            return f"{name} is a link, or in a folder that is one"
    if not path.is_file():
        return f"{name} is missing"
    try:
        return "" if digest(path) == expected else f"{name} is damaged"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link, or Windows' junction."""
    return path.is_symlink() or getattr(path, "is_junction", bool)()  # is_junction came with Python 3.12


def every_file(folder: Path) -> list[str]:
    """The names of all files below a folder, links among them, in order."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if is_link(Path(place) / name)]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in (*files, *links)]
        folders[:] = [name for name in folders if name not in links]
    return sorted(found)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; what was there before stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
