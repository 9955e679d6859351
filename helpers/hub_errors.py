"""Why something from the Hub or from a directory could not be loaded, in one sentence that says what to do.

from helpers.hub_errors import explain
try:
    model = AutoModel.from_pretrained(name)
except Exception as error:
    raise SystemExit(explain(error, name))
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from helpers.hub import NotTheHub, cache_folder, endpoint, network_reason, not_the_hub, wait_asked, why_offline


def damage(path: Path) -> str:
    """What is wrong with a file that came from somewhere else, as far as its form and its name in the cache tell.

    A file in the cache is named by its digest: of its content, or as git makes it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2**16)
        file.seek(max(0, size - 4))
        tail = file.read(4)
        if size == 0:
            return "is empty"
        if re.match(rb"\s*<(!doctype html|html)\b", head, re.IGNORECASE):
            return "is a web page"
        if head.startswith(b"version https://git-lfs"):
            return "is only a pointer of Git LFS: run `git lfs pull` where it was cloned"
        if path.suffix == ".json":
            try:
                json.loads(path.read_bytes())
            except ValueError:
                return "is not JSON"
        if path.suffix == ".parquet" and (head[:4] != b"PAR1" or tail != b"PAR1"):
            return "is not a whole Parquet file"
        if path.suffix == ".safetensors" and (expected := _safetensors_size(head, file)) != size:
            return f"has {size} bytes instead of {expected}" if expected else "is not a safetensors file"
        digest = {40: hashlib.sha1(b"blob %d\0" % size), 64: hashlib.sha256()}.get(len(path.resolve().name))
        if digest and re.fullmatch("[0-9a-f]+", path.resolve().name):
            file.seek(0)
            for block in iter(lambda: file.read(2**20), b""):
                digest.update(block)
            if digest.hexdigest() != path.resolve().name:
                return "is not what the Hub has: its digest differs"
    return ""


def _safetensors_size(head: bytes, file) -> int:
    """How long a safetensors file must be, as its header says; 0 if there is no header."""
    length = int.from_bytes(head[:8], "little")
    if length > 10**8:
        return 0
    file.seek(8)
    try:
        tensors = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return 0
    return 8 + length + max(ends, default=0)


# ------------------------------------------------------------------ why it could not be loaded


def explain(error: BaseException, what: str, cache: str = "") -> str:
    """Turns what `from_pretrained`, `load_dataset` or a download raised into one sentence: what is wrong, what to do.

    The sentence begins with `what` and has no full stop, so that a caller may put words around it.

    Args:
        error: the exception; those behind it are looked at too.
        what: the directory, or the name on the Hub, that was to be loaded.
        cache: the folder of downloads, if it is not the usual one.
    """
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    sentence = _reason(chain, str(what), cache)
    return "".join(letter if letter.isprintable() else " " for letter in sentence)


def _reason(chain: list, what: str, cache: str) -> str:
    place = Path(what).expanduser()
    if not place.exists() and (place.is_absolute() or what.startswith(("./", "../", "~")) or what.count("/") > 1):
        return f"{what} does not exist: correct the path"
    kinds = {type(error).__name__ for error in chain}
    for error in chain:
        if isinstance(error, NotTheHub):
            return f"{what} cannot be loaded: {error}"
        if getattr(error, "errno", None) == errno.ENOSPC:
            return f"{what} cannot be loaded: the disk is full; make room, or set HF_HOME to a folder on another disk"
        if isinstance(error, PermissionError):
            return f"{what} cannot be loaded: {error.filename or 'a file'} may not be read or written; correct that"
    for error in chain:
        response = getattr(error, "response", None)
        if getattr(response, "status_code", None):
            return _reason_of_answer(response, type(error).__name__, what)
    if kinds & {"TooManyRedirects", "FileMetadataError"}:
        does = "sends every question on" if "TooManyRedirects" in kinds else "says nothing that the Hub says of a file"
        return (
            f"{what} cannot be loaded: something answers at {endpoint()} that is not the Hub, it {does}; if this "
            "network has a login page, log in with a browser; if HF_ENDPOINT is set, correct it"
        )
    texts = " ".join(str(error) for error in chain)
    if "DatasetNotFoundError" in kinds:  # datasets hides the Hub's own answer
        return _reason_of_dataset(texts, what)
    if kinds & {"HFValidationError", "HfUriError"}:
        return f"{what} is neither a folder here nor a name on the Hub, which has the form owner/name: correct it"
    if "[SSL" in texts:
        return f"{what} cannot be loaded: {endpoint()}: {network_reason(OSError(texts))}"
    if "trust_remote_code" in texts:
        return f"{what} wants to run program code of its own, and we never run code of others: choose another"
    why = why_offline()
    offline = kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError"} or (why and "not cached" in texts)
    if offline and not place.exists():
        why = why or "the Hub could not be reached"
        return f"{what} is not in the cache of this machine ({cache or cache_folder()}), and {why}: {WITHOUT_NETWORK}"
    for file, wrong in _damaged_files(what, cache):
        copy = next((folder for folder in file.parents if "--" in folder.name), file)  # a repository in the cache
        again = "copy or save it again" if place.exists() else f"delete {copy} and load again"
        return f"{what} cannot be loaded: {file} {wrong}; {again}"
    if kinds & {"RemoteProtocolError", "ConnectError", "ReadTimeout", "ConnectTimeout", "ReadError"}:
        return f"{what} cannot be loaded: the connection broke ({str(chain[-1])[:200]}); run it again"
    lacking = re.search(
        r"configuration class <class '[\w.]+\.(\w+)Config'> for this kind of AutoModel: AutoModel(\w+)", texts
    )
    if lacking:
        return f"{what} is a {lacking[1]}, and transformers has no {lacking[1]}{lacking[2]}: choose another model"
    if "mismatch" in texts:
        return f"{what} has weights that do not fit its config.json: they are those of another model, or damaged"
    text = " ".join(str(chain[0]).split())[:300] or type(chain[0]).__name__
    return text if text.startswith(what) else f"{what} cannot be loaded: {text}"


TERMS = "wants its terms accepted"
NAME_OR_TOKEN = (
    "correct the name, which has the form owner/name; if it is private, run `hf auth login`; if your token is old, "
    "renew it"
)
WITHOUT_NETWORK = (
    "bring a classroom bundle, or the cache of a machine that has it (SETUP.md, Without a network), or connect and "
    "try again"
)


def _reason_of_dataset(text: str, what: str) -> str:
    if "gated" in text:
        return f"{what} {TERMS}: do that at {endpoint()}/datasets/{what}, then run `hf auth login`"
    if revision := re.search(r"Revision '(.+?)' doesn't exist", text):
        return f"{what} has no revision {revision[1]}: correct the revision, or leave it out"
    return f"{what} is no data set of the Hub, or is not shown to you: {NAME_OR_TOKEN}"


def _reason_of_answer(response, kind: str, what: str) -> str:
    """A sentence about an HTTP answer that was an error."""
    status, said = response.status_code, response.headers.get("X-Error-Message") or ""
    path = urlsplit(str(getattr(response, "url", ""))).path
    found = re.search(r"/(?:resolve|tree|revision|paths-info)/([^/]+)(?:/(.+))?", path)
    revision, file = found.groups() if found else ("", "")
    if kind == "GatedRepoError":
        return f"{what} {TERMS}: do that at {endpoint()}/{what}, then run `hf auth login`"
    if kind == "RevisionNotFoundError":
        return f"{what} has no revision {revision}: correct the revision, or leave it out"
    if kind in ("RemoteEntryNotFoundError", "EntryNotFoundError"):
        return f"{what} has no file {file}: choose another model or data set, or another revision of it"
    if kind == "DisabledRepoError":
        return f"{what} was disabled on the Hub: choose another"
    if kind == "RepositoryNotFoundError" or status == 401:
        return f"{what} is not on the Hub, or is not shown to you (HTTP {status}): {NAME_OR_TOKEN}"
    with contextlib.suppress(Exception):
        if status in (403, 404) and b"<html" in response.content[:1000].lower():
            return f"{what} cannot be loaded: {not_the_hub(response.content, str(response.url))} (HTTP {status})"
    reasons = {
        403: "access is refused (HTTP 403): your token lacks the right to read it, or a filter of this network is in "
        "the way; run `hf auth login`, or ask those who run the network",
        404: f"{endpoint()} does not have it (HTTP 404): correct the name, or HF_ENDPOINT if that is a mirror",
        407: "the proxy of this network wants a login (HTTP 407): set HTTPS_PROXY with a name and password",
        429: f"too many requests from here (HTTP 429), and the Hub asks to wait {wait_asked(response.headers) or 60} "
        "seconds: do that, then run again; with `hf auth login` the limit is higher",
        511: "this network wants a login (HTTP 511): log in with a browser",
    }
    if status in reasons:
        return f"{what} cannot be loaded: {reasons[status]}"
    if said and status in (502, 504):
        return f"{what} cannot be loaded: {endpoint()} cannot be reached ({said}); check the network, then run again"
    return f"{what} cannot be loaded: {endpoint()} is in trouble (HTTP {status}); try again later"


def _damaged_files(what: str, cache: str):
    """Files of a directory, or of the cached copies of a repository, that are damaged, each with a word about it."""
    folders = [Path(what).expanduser()]
    if not folders[0].exists():
        usual = os.environ.get("HF_HUB_CACHE") or cache_folder() / "hub"
        names = [f"{kind}s--{what.replace('/', '--')}" for kind in ("model", "dataset", "space")]
        folders = [Path(hub).expanduser() / name / "snapshots" for hub in (cache, usual) if hub for name in names]
    for path in (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()):
        with contextlib.suppress(OSError):
            if wrong := damage(path):
                yield path, wrong
