"""A Hub on loopback: serves the course's own data under the ids and revisions that the profiles name.

    with Hub() as hub:
        os.environ["HF_ENDPOINT"] = hub.url     # before the libraries are imported
        ...
        hub.asked                               # every request, in order

or, for a terminal, `python tests/loopback_hub.py` (it prints the address and serves until Ctrl-C). It knows what the
libraries ask for: files under /{id}/resolve/{revision}/ (also below /datasets/), whole or in ranges, and
/api/{models,datasets}/{id} with /revision/, /tree/ and /paths-info/. What it does not know gets 404 with
the Hub's X-Error-Code. For the tests of broken networks, `fault` decides for each request what goes wrong.
"""

import hashlib
import json
import re
import threading
import time
import tomllib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent

# What stands in for what: our data has the files, columns and labels of the original.
FOLDERS = {
    ("datasets", "stanfordnlp/imdb"): "data/imdb",
    ("datasets", "nyu-mll/glue"): "data/glue",
    ("datasets", "Skylion007/openwebtext"): "data/openwebtext",
    ("models", "openai-community/gpt2"): "data/models/gpt2",
    ("models", "distilbert/distilgpt2"): "data/models/gpt2",
    ("datasets", "lhoestq/conll2003"): "data/conll2003",
    ("datasets", "coastalcph/lex_glue"): "data/beekeeping",
    ("datasets", "rajpurkar/squad"): "data/squad",
    ("datasets", "rajpurkar/squad_v2"): "data/squad",
    ("datasets", "trl-lib/ultrafeedback_binarized"): "data/preferences",
    ("models", "HuggingFaceTB/SmolLM2-135M-Instruct"): "data/models/chat",
    ("models", "Qwen/Qwen2.5-0.5B-Instruct"): "data/models/chat",
    ("datasets", "HuggingFaceTB/smol-smoltalk"): "data/instructions",
    ("models", "HuggingFaceTB/SmolLM2-135M"): "data/models/llama",
    ("models", "Qwen/Qwen2.5-0.5B"): "data/models/llama",
    ("models", "google-bert/bert-base-uncased"): "data/models/bert",
    ("models", "google-bert/bert-base-cased"): "data/models/bert",
    ("models", "distilbert/distilbert-base-cased"): "data/models/distilbert",
    ("models", "distilbert/distilbert-base-uncased"): "data/models/distilbert",
}
LARGE = (".safetensors", ".bin", ".parquet", ".h5")
RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")


@dataclass(frozen=True)
class Asked:
    """One request: what it was for, and what the answer was. `kind` is models, datasets or empty."""

    method: str
    kind: str
    id: str
    revision: str
    file: str
    status: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    `status`: this error instead of the file. `code`: the Hub's X-Error-Code with it. `share`: only so much of the
    body, then the connection breaks, or with `seconds` is silent for so long first. `whole`: Range is ignored.
    `content`: these bytes are the file now. `page`: this web page instead of any answer, with `status` or 200.
    `location`: sent on to this address. `raw`: these bytes instead of HTTP. `silent`: seconds without any answer.
    """

    status: int = 0
    code: str = ""
    retry_after: int | None = None
    share: float = 1.0
    seconds: float = 0.0
    whole: bool = False
    content: bytes | None = None
    page: bytes | None = None
    location: str = ""
    raw: bytes = b""
    silent: float = 0.0


def digest(name: str, content: bytes) -> str:
    """What names a content on the Hub: the sha256 of a large file (LFS), the digest that git gives any other."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def revisions() -> dict[tuple[str, str], str]:
    """The pinned revision of each repository, as helpers/profiles.toml has it."""
    found = {}
    for profile in tomllib.loads((ROOT / "helpers" / "profiles.toml").read_text(encoding="utf-8")).values():
        for table in (value for value in profile.values() if isinstance(value, dict)):
            for kind, key, revision in (
                ("datasets", "dataset", "revision"),
                ("models", "checkpoint", "checkpoint_revision"),
            ):
                if revision in table:
                    found[kind, table[key]] = table[revision]
    return found


class Hub:
    """The server, on a free port of 127.0.0.1, from `with` until its end.

    Args:
        folders: {(kind, id): folder}; by default the course's data.
        fault: called with (method, path, headers) for each request; returns a Fault, or None for a true answer.
    """

    def __init__(self, folders: dict | None = None, fault=None):
        self.fault, self.asked = fault, []
        pinned = revisions()
        self.repositories = {
            key: (ROOT / folder, pinned.get(key, "0" * 40)) for key, folder in (folders or FOLDERS).items()
        }
        self.closing = threading.Event()  # ends what is silent
        self._digests, self._server = {}, None

    def __enter__(self) -> "Hub":
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def digest(self, file: Path) -> str:
        """What names a file's content on the Hub, remembered until the file changes."""
        key = (file, file.stat().st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = digest(file.name, file.read_bytes())
        return self._digests[key]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def handle_error(self, request, client_address):
        """A client that leaves in the middle is no error here."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def answer(self) -> None:
        """Answers one request, or lets it go wrong."""
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.about = ("", "", "", path)
        fault = (self.hub.fault and self.hub.fault(self.command, path, self.headers)) or Fault()
        if fault.silent:
            self.hub.closing.wait(fault.silent)
            self.close_connection = True
        elif fault.raw:
            self.wfile.write(fault.raw)
            self.close_connection = True
        elif fault.location:
            self.send(302, {"Location": fault.location}, b"", fault)
        elif fault.page is not None:
            self.send(fault.status or 200, {"Content-Type": "text/html; charset=utf-8"}, fault.page, fault)
        elif match := RESOLVE.fullmatch(path):
            self.about = (match[1] or "models", *match.groups()[1:])
            if folder := self.find(fault):
                self.send_file(folder / match[4], fault)
        elif match := API.fullmatch(path):
            kind, name, what, revision, file = match.groups()
            self.about = (kind, name, revision or "", f"{what or ''}:{file or ''}")
            if folder := self.find(fault):
                self.send_json(self.entry(folder, what, file or "", query), fault)
        else:
            self.fail(fault.status or 404, "EntryNotFound", fault)

    def find(self, fault: Fault) -> Path | None:
        """The folder of the repository that is asked for; without one, an error has been sent."""
        kind, name, revision, _ = self.about
        folder, self.commit = self.hub.repositories.get((kind, name), (None, ""))
        if fault.status:
            return self.fail(fault.status, fault.code, fault)
        if folder is None:
            return self.fail(404, "RepoNotFound", fault)
        if revision not in ("", "main", self.commit):
            return self.fail(404, "RevisionNotFound", fault)
        return folder

    def fail(self, status: int, code: str, fault: Fault) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": f"{status} on loopback"} if code else {}
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        self.send(status, headers, b"", fault)

    def send_file(self, file: Path, fault: Fault) -> None:
        """Sends a file, or the range of it that is asked for."""
        if not file.is_file() or ".." in file.parts:
            return self.fail(404, "EntryNotFound", fault)
        content = file.read_bytes() if fault.content is None else fault.content
        tag = self.hub.digest(file) if fault.content is None else digest(file.name, content)
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
        headers |= {"Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted or fault.whole:
            return self.send(200, headers, content, fault)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            return self.send(416, headers | {"Content-Range": f"bytes */{len(content)}"}, b"", fault)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.send(206, headers, content[first : last + 1], fault)

    def entry(self, folder: Path, what: str | None, below: str, query: dict):
        """What the API says about a repository, its tree, or some of its paths."""
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix != ".pyc" and path.name != "__pycache__"]
        if what == "tree":
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            top = folder / below
            paths = [path for path in paths if path.is_relative_to(top) and path != top]
            return [self.describe(folder, path) for path in paths if deep or path.parent == top]
        if what == "paths-info":
            wanted = json.loads(self.body)["paths"] if self.body[:1] == b"{" else parse_qs(self.body.decode())["paths"]
            return [self.describe(folder, folder / name) for name in wanted if (folder / name).exists()]
        files = [{"rfilename": path.relative_to(folder).as_posix()} for path in paths if path.is_file()]
        return {
            "_id": "0" * 24,
            "id": self.about[1],
            "sha": self.commit,
            "private": False,
            "disabled": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": files,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }

    def describe(self, folder: Path, path: Path) -> dict:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        entry = {"type": "file", "path": name, "oid": self.hub.digest(path)[:40], "size": path.stat().st_size}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": self.hub.digest(path), "size": path.stat().st_size, "pointerSize": 134}
        return entry

    def send_json(self, entry, fault: Fault) -> None:
        self.send(200, {"Content-Type": "application/json"}, json.dumps(entry).encode(), fault)

    def send(self, status: int, headers: dict, body: bytes, fault: Fault) -> None:
        self.hub.asked.append(Asked(self.command, *self.about, status))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: int(len(body) * fault.share)])
        self.wfile.flush()
        if fault.seconds:
            time.sleep(fault.seconds)
        if fault.share < 1:
            self.close_connection = True


if __name__ == "__main__":
    with Hub() as here:
        print(f"HF_ENDPOINT={here.url}", flush=True)
        threading.Event().wait()
