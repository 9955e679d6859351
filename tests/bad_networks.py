"""Two dozen networks between us and the Hub that are not what they should be, and what has to be said about each.

    python tests/bad_networks.py        # tries them all in one process, and prints what was said as JSON

tests/test_hub_errors.py runs it and compares. `asked` is what the question whether the Hub answers has to find out
(empty: it answers, only files are bad); the others are what `explain` says of `from_pretrained` and `load_dataset`,
and what the making of a classroom bundle says. None: it is not tried, since what is bad is not used there.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loopback_hub import ROOT, Fault, Hub

PAGE = b"<!DOCTYPE html>\n<html><head><title>Hotel Login</title></head><body>Please log in.</body></html>"
CHECKPOINT, DATASET = "distilbert/distilbert-base-uncased", "nyu-mll/glue"
OTHER_WEIGHTS = (ROOT / "data/models/gpt2/model.safetensors").read_bytes()
CUT_WEIGHTS = (ROOT / "data/models/distilbert/model.safetensors").read_bytes()[:100_000]
NOT_THE_HUB = "something answers .*that is not the Hub"


@dataclass(frozen=True)
class Network:
    """A fault, called with (method, path, headers), and what has to be said: regular expressions."""

    fault: Callable
    asked: str
    model: str | None
    dataset: str | None
    bundle: str | None = ""  # empty: the bundle is not made, for the reason that `asked` names


def always(**what):
    return lambda *_: Fault(**what)


def files(ending: str = "", method: str = "", **what):
    """The fault for files whose names end so."""

    def fault(asked, path, _):
        return Fault(**what) if "/resolve/" in path and path.endswith(ending) and method in ("", asked) else None

    return fault


def api(**what):
    return lambda _, path, __: Fault(**what) if path.startswith("/api/") and "/gpt2" not in path else None


def sent_to_login(_, path, headers):
    return Fault(page=PAGE) if path == "/login" else Fault(location=f"http://{headers['Host']}/login")


def sent_to_another_host(_, path, headers):
    address = headers["Host"].replace("127.0.0.1", "localhost")
    return Fault(page=PAGE) if "localhost" in headers["Host"] else Fault(location=f"http://{address}/login")


IN_TROUBLE = r"is in trouble \(HTTP 503\); try again later"
NOT_SHOWN = "is (not on|no data set of) the Hub, or is not shown to you.*hf auth login"
REFUSED = r"access is refused \(HTTP 403\)"
WAIT = r"HTTP 429.* asks to wait 300 seconds"
SILENT = r"cannot be reached \(no answer in time\)"
NETWORKS = {
    "login page with 200": Network(always(page=PAGE), f'{NOT_THE_HUB}.* says "Hotel Login"', NOT_THE_HUB, NOT_THE_HUB),
    "login page after 302": Network(sent_to_login, f'{NOT_THE_HUB}.* says "Hotel Login"', NOT_THE_HUB, NOT_THE_HUB),
    "login page of another host": Network(
        sent_to_another_host, f'{NOT_THE_HUB}: localhost.* says "Hotel Login"', NOT_THE_HUB, NOT_THE_HUB
    ),
    "redirect loop": Network(
        always(location="/again"), "not the Hub sends every question on", NOT_THE_HUB, NOT_THE_HUB
    ),
    "garbage": Network(always(raw=b"\x00\x01?\r\n\r\n"), "does not speak HTTP", NOT_THE_HUB, NOT_THE_HUB),
    "another service's JSON": Network(always(raw=b"HTTP/1.0 200 OK\r\n\r\n{}"), NOT_THE_HUB, NOT_THE_HUB, NOT_THE_HUB),
    "proxy wants a login": Network(always(status=407, page=PAGE), "wants a login first", "HTTP 407", "HTTP 407"),
    "filter's page with 403": Network(always(status=403, page=PAGE), NOT_THE_HUB, REFUSED, f"{REFUSED}|{NOT_THE_HUB}"),
    "proxy's page with 503": Network(always(status=503, page=PAGE), "HTTP 503", IN_TROUBLE, IN_TROUBLE),
    "too many requests": Network(
        always(status=429, retry_after=300), "HTTP 429, too many requests; it asks to wait 300", WAIT, WAIT
    ),
    "too many requests for files": Network(files(status=429, retry_after=300), "", WAIT, WAIT, WAIT),
    "503 for files": Network(files(status=503), "", IN_TROUBLE, IN_TROUBLE, IN_TROUBLE),
    "500 for the tree": Network(api(status=500), "", None, r"HTTP 500", r"is in trouble \(HTTP 500\)"),
    "web page for the tree": Network(api(page=PAGE), "", None, NOT_THE_HUB, NOT_THE_HUB),
    "silent files": Network(files(silent=100), "", SILENT, SILENT, SILENT),
    "cut weights": Network(
        files("model.safetensors", content=CUT_WEIGHTS),
        "",
        r"model.safetensors has 100000 bytes instead of \d+; delete .* and load again",
        None,
        r"what came for model.safetensors has 100000 bytes instead of \d+",
    ),
    "cut transfer": Network(
        files("model.safetensors", share=0.5), "", "the connection broke", None, "the connection broke"
    ),
    "foreign weights": Network(  # a program must look which tensors it got: test_fine_tune.py
        files("model.safetensors", content=OTHER_WEIGHTS), "", None, None, "another size or digest than the Hub states"
    ),
    "config is a web page": Network(
        files("config.json", content=PAGE), "", "config.json is a web page; delete", None, "config.json is a web page"
    ),
    "config is sent as a web page": Network(files("config.json", "GET", page=PAGE), "", NOT_THE_HUB, None, NOT_THE_HUB),
    "Parquet is a web page": Network(
        files(".parquet", content=PAGE), "", None, "parquet is a web page; delete", "parquet is a web page"
    ),
    "401": Network(always(status=401), "", NOT_SHOWN, NOT_SHOWN, NOT_SHOWN),
    "gated": Network(
        always(status=403, code="GatedRepo"),
        "",
        "wants its terms accepted",
        "wants its terms accepted",
        "wants its terms accepted",
    ),
    "403": Network(always(status=403), "", REFUSED, REFUSED, REFUSED),
    "404": Network(always(status=404, code="RepoNotFound"), "", *[NOT_SHOWN] * 3),
    "404 of a mirror": Network(always(status=404), "", *[r"does not have it \(HTTP 404\)"] * 3),
    "404 for the weights": Network(
        files("model.safetensors", status=404, code="EntryNotFound"),
        "",
        "not appear to have a file named",
        None,
        "has no file model.safetensors",
    ),
    "no such revision": Network(always(status=404, code="RevisionNotFound"), "", *["has no revision"] * 3),
}


def main() -> None:
    state = {"fault": None}
    hub = Hub(fault=lambda *asked: state["fault"](*asked) if state["fault"] else None)
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    with hub:
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache"), "TQDM_DISABLE": "1"}
        sys.path.insert(0, str(ROOT / "tools"))
        from helpers import hub as our_hub

        usual, short = (our_hub.PATIENCE, our_hub.FILE_SECONDS), (1.0, 0.3)
        sleep = time.sleep
        time.sleep = lambda seconds: sleep(min(seconds, 0.02))
        warnings.simplefilter("ignore")
        our_hub.check_hub()
        import bundle_making
        import transformers
        from bundle_checksums import CHECKSUMS, BundleError
        from datasets import load_dataset

        from helpers.hub_errors import explain

        logging.disable(logging.CRITICAL)
        transformers.logging.set_verbosity_error()
        profile = folder / "mine.toml"
        profile.write_text(
            f'inherits = "reduced"\noffline = false\n[mrpc]\ndataset = "{DATASET}"\nconfig = "mrpc"\n'
            f'checkpoint = "{CHECKPOINT}"\n',
            encoding="utf-8",
        )
        loads = {
            "model": lambda: transformers.AutoModelForSequenceClassification.from_pretrained(CHECKPOINT),
            "dataset": lambda: load_dataset(DATASET, "mrpc", split="train"),
            "bundle": lambda: bundle_making.make(folder / "bundle", str(profile), "none"),
        }
        bundle_making.tracked_files = lambda root: ["README.md"]
        for name, network in NETWORKS.items():
            for way, load in loads.items():
                if getattr(network, way) is None:
                    continue
                for place in ("cache", "bundle/hub"):
                    shutil.rmtree(folder / place, ignore_errors=True)
                our_hub.PATIENCE, our_hub.FILE_SECONDS = short if "silent" in name else usual
                state["fault"], said, begin = network.fault, None, time.perf_counter()
                sys.stdout, out = open(os.devnull, "w", encoding="utf-8"), sys.stdout  # noqa: SIM115
                try:
                    load()
                except BundleError as error:
                    said = str(error)
                except Exception as error:
                    said = explain(error, DATASET if way == "dataset" else CHECKPOINT)
                sys.stdout = out
                our_hub.set_offline(False)
                row = {"network": name, "way": way, "said": said, "seconds": round(time.perf_counter() - begin, 2)}
                print(json.dumps(row | {"finished": (folder / "bundle" / CHECKSUMS).exists()}), flush=True)
                (folder / "bundle" / CHECKSUMS).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
