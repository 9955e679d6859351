"""The Hugging Face Hub: whether it answers, what is set when it does not, and what the cache holds of it.

    from helpers.hub import check_hub
    no_hub = check_hub()        # before transformers or datasets are imported

Why something could not be loaded is said by helpers/hub_errors.py. The doctor uses this file before anything is
installed, with any Python from 3.8: only the standard library is imported at the top, and huggingface_hub only after it
is decided whether there is a Hub.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HUB_SECONDS = 2.0  # until the Hub counts as not there: name lookup, connection and answer together
FILE_SECONDS = 8.0  # without a byte, until a request of the libraries has failed
PATIENCE = 12.0  # seconds of nothing but failures, until the libraries give up; they would go on for minutes
# huggingface_hub, evaluate and the download counter of datasets read these once, when they are imported.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
NO_HTTP = "something answers that is not the Hub: it does not speak HTTP"
_SET_BY_US: list[str] = []
_reasons: list[str] = [""]  # what check_hub found out, the last one last


class NotTheHub(OSError):
    """Something answered in the Hub's place; the message says what it said."""


@dataclass(frozen=True)
class Answer:
    """What came of asking the Hub: why it cannot be used (empty if it can), and how long that took in seconds."""

    reason: str
    seconds: float


# ------------------------------------------------------------------ is it there?


def endpoint() -> str:
    """The address of the Hub, or of the mirror that HF_ENDPOINT names, without a slash at the end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def said_offline() -> bool:
    """Whether the environment forbids the Hub."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def ask_hub(address: str = "", seconds: float = HUB_SECONDS) -> Answer:
    """Asks the Hub for a model's entry, within `seconds` whatever the name lookup, proxy or server does.

    A mirror that lacks that model, or wants a token for it, is a Hub too. A web page is not.
    """
    import ssl
    import urllib.error
    import urllib.request

    url = (address or endpoint()).rstrip("/") + "/api/models/openai-community/gpt2"
    begin, reasons = time.perf_counter(), [f"no answer within {seconds} s"]

    def ask():
        try:
            context = ssl.create_default_context()
            with contextlib.suppress(ImportError):  # Python from python.org has none on macOS, the libraries have
                context.load_verify_locations(importlib.import_module("certifi").where())
            with urllib.request.urlopen(url, timeout=seconds, context=context) as response:
                reasons.append(_judge(response.status, response.headers, response.read(2**20), response.url))
        except urllib.error.HTTPError as error:
            body = b""
            with contextlib.suppress(Exception):
                body = error.read(2**16)
            reasons.append(_judge(error.code, error.headers, body, url))
        except Exception as error:  # whatever it is, the Hub cannot be used
            reasons.append(network_reason(error))

    thread = threading.Thread(target=ask, daemon=True)  # a name lookup cannot be stopped, only left behind
    thread.start()
    thread.join(seconds)
    return Answer(reasons[-1], time.perf_counter() - begin)


def _judge(status: int, headers, body: bytes, url: str) -> str:
    """Why an answer is not that of a Hub in good order; empty if it is."""
    page = body.lstrip()[:1] == b"<" or "html" in (headers.get("Content-Type") or "")
    if status == 429:
        return f"HTTP 429, too many requests; it asks to wait {headers.get('Retry-After') or 'some'} seconds"
    if status in (407, 511):
        return f"the network or its proxy wants a login first, HTTP {status}"
    if status >= 500:
        return f"HTTP {status}"
    if 300 <= status < 400:
        return f"something that is not the Hub sends every question on to another address, HTTP {status}"
    if status == 200:
        with contextlib.suppress(ValueError):
            if {"id", "modelId"} & json.loads(body).keys():
                return ""
    elif status == 404 or not page:  # a mirror may lack that model, or want a token for it
        return ""
    return not_the_hub(body, url)


def not_the_hub(body: bytes, url: str) -> str:
    """A sentence about an answer that is not the Hub's: from where, and what it says."""
    text = body[: 2**16].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    words = " ".join(re.sub(r"<[^>]*>", " ", title[1] if title else text).split())
    words = "".join(letter if letter.isprintable() else "?" for letter in words[:60])
    says = f'says "{words}"' if words else "sends a web page"
    return (
        f"something answers that is not the Hub: {urlsplit(url).netloc} {says}; if this network has a login page, log "
        "in with a browser, and if it has a filter or a proxy, ask those who run it to let the Hub through"
    )


def network_reason(error: BaseException) -> str:
    """What went wrong on the way to a server, in words."""
    error = getattr(error, "reason", error)  # of urllib's URLError
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not trusted: the clock of this machine is wrong, or a proxy reads along and "
            "SSL_CERT_FILE must name its certificate"
        )
    if "[SSL" in text:
        return f"no secure connection can be made; something in between, or HF_ENDPOINT, is wrong: {text}"
    kinds = [kind.__name__ for kind in type(error).__mro__]  # http.client need not be imported for this
    if "RemoteDisconnected" in kinds:
        return "the connection was closed without an answer"
    if "HTTPException" in kinds:
        return NO_HTTP
    return text


def check_hub() -> str:
    """Finds out in HUB_SECONDS whether the Hub can be used; if not, sets offline mode. If yes, bounds its waits.

    HF_HUB_OFFLINE, set by the user, is believed without asking. Call it before huggingface_hub is imported.

    Returns:
        Why the Hub cannot be used; an empty string if it can.
    """
    told = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
    if told and "HF_HUB_OFFLINE" not in _SET_BY_US:
        _reasons.append("HF_HUB_OFFLINE is set" if said_offline() else "")
    else:
        reason = ask_hub().reason
        _reasons.append(reason and f"the Hub cannot be reached ({endpoint()}: {reason})")
        if reason:
            set_offline(True)
            if not getattr(sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE", True):  # imported online
                warnings.warn("the Hub does not answer: restart the kernel, or the libraries wait for it", stacklevel=3)
    if not _reasons[-1]:
        bound_waits()
    return _reasons[-1]


def why_offline() -> str:
    """Why the Hub is not asked, as far as this process knows; empty if nothing speaks against it."""
    return _reasons[-1] or ("HF_HUB_OFFLINE is set" if said_offline() else "")


def set_offline(offline: bool) -> None:
    """Sets the offline variables, or takes back those that an earlier profile of this process set."""
    if offline:
        for key in OFFLINE:
            if not os.environ.get(key):
                os.environ[key] = OFFLINE[key]
                _SET_BY_US.append(key)
    elif _SET_BY_US:
        while _SET_BY_US:
            os.environ.pop(_SET_BY_US.pop(), None)
        if "huggingface_hub" in sys.modules:
            warnings.warn("libraries were imported offline: restart the kernel to reach the Hub", stacklevel=3)


def bound_waits() -> None:
    """Makes huggingface_hub give up after PATIENCE, where it would go on for minutes, and refuse web pages for files.

    A time-out counts as HTTP 504 and a broken connection as 502, what a proxy would answer: then the library takes
    from its cache what is there, and tries again until one of its errors goes on for PATIENCE.
    """
    try:
        import httpx2
        from huggingface_hub.utils import _http
    except ImportError:  # before the install there is nothing to bound
        return
    failing = []  # the times of the failures that no good answer has ended yet

    class Client(httpx2.Client):
        def send(self, request, **options):
            begin = time.monotonic()
            file_seconds = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or FILE_SECONDS)
            if failing and begin - failing[-1] > PATIENCE:  # long ago
                failing.clear()
            seconds = min(file_seconds, max(1.0, failing[0] + PATIENCE - begin)) if failing else file_seconds
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
            try:
                response = super().send(request, **options)
            except httpx2.TimeoutException:
                response = failure(504, "no answer in time", request)
            except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
                if "illegal" in str(error):
                    raise NotTheHub(NO_HTTP) from error
                response = failure(502, network_reason(error), request)
            page = "text/html" in response.headers.get("Content-Type", "") and not request.url.path.endswith(".html")
            if page and response.status_code == 200:
                body = b"" if request.method == "HEAD" else response.read()
                raise NotTheHub(not_the_hub(body, str(response.url)))
            if response.status_code < 500 and response.status_code not in (408, 429):
                failing.clear()
                return response
            failing.append(begin)
            if time.monotonic() + wait_asked(response.headers) > failing[0] + PATIENCE:
                response.read()
                _http.hf_raise_for_status(response)
            return response

    def failure(status: int, reason: str, request):
        words = " ".join(reason.split()).encode("ascii", "replace")
        return httpx2.Response(status, headers={"X-Error-Message": words}, request=request)

    def client():
        hooks = {"request": [_http.hf_request_event_hook]}
        return Client(event_hooks=hooks, follow_redirects=True, timeout=None)

    _http.set_client_factory(client)


def wait_asked(headers) -> int:
    """The seconds that an answer asks to wait for; 0 if it does not. A date counts as too long."""
    limit = re.search(r"\bt=(\d+)", headers.get("RateLimit") or "")
    said = headers.get("Retry-After") or (limit[1] if limit else "0")
    return int(said) if said.isdigit() else 2 * int(PATIENCE)


# ------------------------------------------------------------------ what is in the cache


def cache_folder() -> Path:
    """Hugging Face's cache on this machine."""
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{general}/huggingface").expanduser()


def cached(name: str, file: str, revision: str = "", kind: str = "model") -> str:
    """The path of a file of the Hub in the cache; empty without one. Asks nobody, and imports huggingface_hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(os.environ.get("HF_HUB_CACHE") or cache_folder() / "hub").expanduser()
    try:
        found = try_to_load_from_cache(name, file, cache_dir=folder, revision=revision or None, repo_type=kind)
    except HFValidationError:  # no such name can be
        return ""
    return found if isinstance(found, str) else ""
