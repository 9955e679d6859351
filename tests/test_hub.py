"""The Hub without the Hub: no long wait where it does not answer, and everything that the profiles name is asked for.

tests/loopback_hub.py stands in for it, with the real ids and revisions and our own data.
"""

import ast
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from loopback_hub import FOLDERS, Fault, Hub, revisions

from helpers import hub, profiles
from helpers.profiles import ROOT, ProfileError, load_profile

BOUND = 5 * hub.HUB_SECONDS  # with room for a busy machine; the libraries alone go on for half a minute and more


@pytest.fixture
def clean_environment(monkeypatch):
    for key in ("FINETUNING_PROFILE", "HF_ENDPOINT", "HF_HOME", *hub.OFFLINE):
        monkeypatch.setenv(key, "")  # recorded, so that monkeypatch restores it
        monkeypatch.delenv(key)
    monkeypatch.setattr(hub, "_SET_BY_US", [])
    monkeypatch.setattr(hub, "bound_waits", lambda: None)  # it would import huggingface_hub
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    return monkeypatch


@pytest.fixture
def not_there(request):
    """An address where no Hub answers, in one of several ways."""
    with socket.socket() as listener, socket.socket() as waiting:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if request.param in ("silent", "dripping"):  # accepts, and never answers or never finishes
            listener.listen(50)
        if request.param == "swallowed":  # a full queue: the system drops further connections, as a firewall does
            listener.listen(0)
            waiting.connect(("127.0.0.1", port))
        if request.param == "dripping":
            threading.Thread(target=drip, args=(listener,), daemon=True).start()
        yield {"no such name": "http://hub.invalid"}.get(request.param, f"http://127.0.0.1:{port}")


def drip(listener):
    """Answers a byte a second, so that no single wait is long."""
    try:
        connection, _ = listener.accept()
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 60:
            connection.send(bytes([byte]))
            time.sleep(1)
    except OSError:
        pass


@pytest.mark.parametrize(
    "not_there",
    [
        "refused",
        "silent",
        "dripping",
        "no such name",
        pytest.param("swallowed", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux's queue is meant")),
    ],
    indirect=True,
)
def test_without_the_hub_it_is_known_in_time_what_is_missing(not_there, clean_environment, tmp_path):
    clean_environment.setenv("HF_ENDPOINT", not_there)
    clean_environment.setenv("HF_HOME", str(tmp_path / "cache"))
    begin = time.perf_counter()
    profile = load_profile("laptop")
    assert time.perf_counter() - begin < BOUND
    assert {key: os.environ.get(key) for key in hub.OFFLINE} == hub.OFFLINE
    with pytest.raises(ProfileError) as caught:
        profile.mrpc  # noqa: B018
    said = str(caught.value)
    assert f"profile laptop, [mrpc]: the Hub cannot be reached ({not_there}: " in said
    for part in (
        "data set nyu-mll/glue, config mrpc, revision bcdcba79d07b",
        str(tmp_path / "cache"),
        "checkpoint distilbert/distilbert-base-uncased, revision 12040accade4",
        'load_profile("reduced")',
        "classroom bundle",
        "SETUP.md",
    ):
        assert part in said
    assert load_profile("reduced").mrpc  # needs nothing of it


def test_a_server_in_trouble_is_no_hub_and_one_that_refuses_is(clean_environment):
    for status, usable in ((200, True), (404, True), (401, True), (500, False), (503, False)):
        with Hub(fault=lambda *_, status=status: Fault(status=status if status > 200 else 0)) as server:
            clean_environment.setenv("HF_ENDPOINT", server.url)
            assert (hub.check_hub() == "") == usable, status
            hub.set_offline(False)


def test_what_the_user_says_about_the_hub_is_believed(clean_environment, tmp_path):
    def ask():
        raise AssertionError("asked")

    clean_environment.setattr(threading, "Thread", ask)
    clean_environment.setenv("HF_HOME", str(tmp_path))
    clean_environment.setenv("HF_HUB_OFFLINE", "0")
    assert load_profile("full").imdb and os.environ["HF_HUB_OFFLINE"] == "0"
    clean_environment.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ProfileError, match=r"full, \[imdb\]: HF_HUB_OFFLINE is set, and .* lacks data set"):
        load_profile("full").imdb  # noqa: B018
    assert load_profile("reduced").imdb  # asks nobody: it names no Hub id


def test_a_hub_that_comes_back_is_used(clean_environment, tmp_path):
    clean_environment.setenv("HF_HOME", str(tmp_path))
    clean_environment.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load_profile("full").no_hub and os.environ["HF_HUB_OFFLINE"] == "1"
    with Hub() as server:
        clean_environment.setenv("HF_ENDPOINT", server.url)
        assert load_profile("full").imdb and "HF_HUB_OFFLINE" not in os.environ


def environment(**changes) -> dict:
    """The environment for a fresh process that knows nothing of this one's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "FINETUNING_"))}
    return kept | {"OMP_NUM_THREADS": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"} | changes


ENTRY_POINTS = {
    "notebook": ["-c", "from helpers.profiles import load_profile\nload_profile('full').concepts"],
    "mrpc_accelerate": ["scripts/mrpc_accelerate.py", "--profile", "laptop", "--output-dir", "{out}"],
    "mrpc_accelerate launches": [
        "scripts/mrpc_accelerate.py",
        "--profile",
        "laptop",
        "--output-dir",
        "{out}",
        "--config-file",
        "scripts/launch/ddp_cpu.yaml",
    ],
    "pretrain_gpt2": ["scripts/pretrain_gpt2.py", "--profile", "laptop", "--output-dir", "{out}"],
    "memory": ["-m", "helpers.memory", "someone/model", "--batch-size", "1", "--sequence-length", "8"],
    "doctor": ["-m", "helpers.doctor"],
}


def test_every_entry_point_asks_once_and_says_it(tmp_path):
    """Servers that accept and never answer, the slowest of the ways: no library waits for it a second time."""
    with contextlib.ExitStack() as stack:
        started = {}
        for name, words in ENTRY_POINTS.items():  # side by side, since they mostly wait
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            silent.settimeout(0)
            command = [sys.executable, *(word.format(out=tmp_path / name) for word in words)]
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            env = environment(HF_ENDPOINT=address, HF_HOME=str(tmp_path / f"cache of {name}"))
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            started[name] = silent, stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=env, **pipes))
        for name, (silent, process) in started.items():
            said, _ = process.communicate(timeout=120)
            assert "the Hub cannot be reached" in said or "the Hub does not answer" in said, (name, said)
            assert "Traceback" not in said or name == "notebook"
            assert (process.returncode == 0) == (name == "doctor")
            assert connections(silent) == 1, name


def connections(listener: socket.socket) -> int:
    """How many have connected since the last time."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


# --- What is asked for ---------------------------------------------------------------------------

# Columns of the originals, and the names of their classes, as their cards on the Hub have them.
ORIGINALS = {
    "stanfordnlp/imdb": {"text": None, "label": ["neg", "pos"]},
    "nyu-mll/glue": {
        "sentence1": None,
        "sentence2": None,
        "label": ["not_equivalent", "equivalent"],
        "idx": None,
    },
    "Skylion007/openwebtext": {"text": None},
    "lhoestq/conll2003": {
        "id": None,
        "tokens": None,
        "pos_tags": None,
        "chunk_tags": None,
        "ner_tags": ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"],
    },
}

# The calls of the lessons, for every table of a profile.
LOADS = """
import json, sys, time
begin = time.perf_counter()
from helpers.profiles import Pretraining, load_profile
profiles = {name: load_profile(name) for name in sys.argv[2:]}
import datasets, evaluate
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
import transformers
for library in (datasets, transformers):
    library.logging.set_verbosity_error()
for name, profile in profiles.items():
    for table, settings in profile.tables.items():
        if sys.argv[1] == "cached" and isinstance(settings, Pretraining):
            continue  # a stream leaves nothing in the cache
        settings, columns = getattr(profile, table), {}
        if not settings.dataset.endswith(".csv"):
            rows = datasets.load_dataset(
                settings.dataset, settings.config, revision=settings.revision, split="train",
                streaming=isinstance(settings, Pretraining),
            )
            first = next(iter(rows))
            for column in first:
                feature = rows.features[column]
                feature = getattr(feature, "feature", feature)
                columns[column] = getattr(feature, "names", None)
        AutoTokenizer.from_pretrained(settings.checkpoint, revision=settings.checkpoint_revision)
        if not isinstance(settings, Pretraining):
            kind = AutoModelForCausalLM if table == "concepts" else AutoModelForSequenceClassification
            kind.from_pretrained(settings.checkpoint, revision=settings.checkpoint_revision)
        scores = None
        if table == "mrpc":
            scores = evaluate.load(settings.metric, "mrpc").compute(predictions=[1, 1], references=[0, 1])
        row = {"profile": name, "table": table, "dataset": settings.dataset, "columns": columns, "scores": scores}
        print(json.dumps(row | {"no_hub": profile.no_hub, "seconds": time.perf_counter() - begin}))
"""


def run_loads(which: str, endpoint: str, cache: Path) -> list[dict]:
    """Runs LOADS in a fresh process against a Hub (`all` tables, or those that can be `cached`)."""
    env = environment(HF_ENDPOINT=endpoint, HF_HOME=str(cache), TQDM_DISABLE="1")
    command = [sys.executable, "-c", LOADS, which, "full", "laptop"]
    outcome = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hub") / "cache"


@pytest.fixture(scope="module")
def loaded(cache):
    """What the calls of the lessons returned, and what they asked the Hub for."""
    with Hub() as server:
        return run_loads("all", server.url, cache), server.asked


def pinned(profile: str):
    """(kind, id, revision) of everything that a profile names on the Hub."""
    for table in tomllib.loads((ROOT / "helpers" / "profiles.toml").read_text(encoding="utf-8"))[profile].values():
        if isinstance(table, dict):
            yield from (
                (kind, table[key], table[revision])
                for kind, key, revision in (
                    ("datasets", "dataset", "revision"),
                    ("models", "checkpoint", "checkpoint_revision"),
                )
                if revision in table
            )


def test_every_id_and_revision_is_asked_for_as_written(loaded):
    rows, asked = loaded
    assert {row["no_hub"] for row in rows} == {""}
    wanted = {*pinned("full"), *pinned("laptop")}
    assert len(wanted) > 8
    assert {(one.kind, one.id, one.revision) for one in asked if one.revision} == wanted
    assert not [one for one in asked if one.file.endswith(".py") and one.status == 200]  # no program comes from there
    # Of what is not there, only extras that a repository may lack were asked for.
    missing = {one.file for one in asked if one.status == 404 and one.kind == "datasets"}
    assert not [name for name in missing if name.endswith((".parquet", ".md"))]


def test_columns_and_class_names_are_those_of_the_originals(loaded):
    seen = {}
    for row in loaded[0]:
        if row["dataset"] in ORIGINALS:
            original = ORIGINALS[row["dataset"]]
            assert row["columns"] == {column: original[column] for column in row["columns"]}
            seen[row["dataset"]] = row["columns"]
    assert seen.keys() == ORIGINALS.keys()
    for name, lacks in (("lhoestq/conll2003", {"pos_tags", "chunk_tags"}), ("nyu-mll/glue", set())):
        assert ORIGINALS[name].keys() - seen[name].keys() == lacks  # as their cards say


def test_configs_and_rows_per_class_are_named_in_the_cards():
    """Our data has the configs that the profiles ask the Hub for."""
    for kind, name, _ in {*pinned("full"), *pinned("laptop")}:
        assert (kind, name) in FOLDERS, f"tests/loopback_hub.py: say which folder stands in for {name}"
    for profile in ("full", "laptop"):
        for table in load_profile_quietly(profile).tables.values():
            if ("datasets", table.dataset) in FOLDERS and table.config:
                card = (ROOT / FOLDERS["datasets", table.dataset] / "README.md").read_text(encoding="utf-8")
                assert f"config_name: {table.config}\n" in card


def load_profile_quietly(name: str):
    """A Hub profile without the question whether the Hub answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "check_hub", lambda: "")
        return load_profile(name)


def test_cached_it_is_the_same_without_the_hub(loaded, cache):
    def shown(rows):
        return [{key: row[key] for key in ("profile", "table", "columns", "scores")} for row in rows]

    offline = run_loads("cached", "http://127.0.0.1:9", cache)
    assert all("the Hub cannot be reached" in row["no_hub"] for row in offline)
    assert shown(offline) == [row for row in shown(loaded[0]) if row["table"] != "openwebtext"]


@pytest.mark.slow
def test_cached_it_starts_as_fast_as_with_the_hub(loaded, cache):
    seconds = {"online": [], "offline": []}
    with Hub() as server:
        for _ in range(3):
            for where, endpoint in (("online", server.url), ("offline", "http://127.0.0.1:9")):
                seconds[where].append(run_loads("cached", endpoint, cache)[0]["seconds"])
    print(seconds)
    assert sorted(seconds["offline"])[1] < 1.1 * sorted(seconds["online"])[1]


def test_what_the_hub_does_not_have_gets_its_error_code():
    def answer(path):
        try:
            return urllib.request.urlopen(server.url + path).status, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers["X-Error-Code"]

    revision = revisions()["datasets", "stanfordnlp/imdb"]
    with Hub() as server:
        assert answer(f"/datasets/stanfordnlp/imdb/resolve/{revision}/README.md") == (200, None)
        assert answer("/datasets/stanfordnlp/imdb/resolve/main/README.md") == (200, None)
        assert answer(f"/datasets/stanfordnlp/imdb/resolve/{revision}/no.txt") == (404, "EntryNotFound")
        assert answer(f"/datasets/stanfordnlp/imdb/resolve/{'1' * 40}/README.md") == (404, "RevisionNotFound")
        assert answer(f"/api/datasets/stanfordnlp/imdb/revision/{'1' * 40}") == (404, "RevisionNotFound")
        for path in (
            "/imdb/resolve/main/README.md",
            "/datasets/standfordnlp/imdb/resolve/main/README.md",
            "/api/models/stanfordnlp/imdb",
        ):
            assert answer(path)[1] in ("RepoNotFound", "EntryNotFound")


CALLS = {"load_dataset": ("dataset", "revision"), "from_pretrained": ("checkpoint", "checkpoint_revision")}


def sources():
    """(name, code) of every notebook and script."""
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path.name, "\n".join(line for cell in code for line in cell.splitlines() if line[:1] not in "%!")
    for path in ROOT.glob("scripts/*.py"):
        yield path.name, path.read_text(encoding="utf-8")


def test_every_call_names_the_revision():
    """`load_dataset(x.dataset)` and `from_pretrained(x.checkpoint)` take the revision from the same table."""
    seen = 0
    for name, code in sources():
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            function = getattr(call.func, "attr", getattr(call.func, "id", ""))
            place, revision = CALLS.get(function, ("", ""))
            if place and call.args and getattr(call.args[0], "attr", "") == place:
                given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                expected = f"{ast.unparse(call.args[0].value)}.{revision}"
                written = given.get("revision", "").removesuffix(" or None")
                elsewhere = None in given and f'"revision": {expected}' in code  # as **something
                assert written == expected or elsewhere, f"{name}: {ast.unparse(call)}"
                seen += 1
    assert seen > 10


# --- Every notebook and script, with the real ids ------------------------------------------------


def short(shape: str, folder: Path) -> Path:
    """A profile file: ids and revisions of a Hub profile, every number of the reduced one."""
    lines = [f'inherits = "{shape}"', "use_cpu = true"]
    for name, table in load_profile_quietly("reduced").tables.items():
        lines.append(f"[{name}]")
        for key, value in dataclasses.asdict(table).items():
            if value is not None and key not in (*profiles.PLACES, "config", "revision", "checkpoint_revision"):
                lines.append(f"{key} = {json.dumps(value)}")
    path = folder / f"{shape}_short.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The notebooks in a folder of their own, so that what they write is not in the reader's way; and one cache."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("outputs", ".*"))
    for name in ("scripts", "data", "helpers", "takehome", "tools"):
        (folder / name).symlink_to(ROOT / name)
    with Hub() as server:
        yield folder, environment(HF_ENDPOINT=server.url, HF_HOME=str(folder / "cache"))


NOTEBOOKS = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]
NOTEBOOKS = sorted(path.relative_to(ROOT / "notebooks").as_posix() for path in NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["full", "laptop"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_with_the_real_ids(name, shape, course):
    """Each cell runs, and each of the notebook's own assertions holds, with the ids and revisions of the profile."""
    folder, env = course
    profile = short(shape, folder)
    code = (
        f"import sys; sys.path.insert(0, 'tools'); from execute import *; "
        f"path = Path('notebooks').resolve() / {name!r}; "
        f"print(execute(read(path), path.parent, {str(profile)!r}))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    print(name, shape, outcome.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["full", "laptop"])
@pytest.mark.parametrize(
    "words",
    [
        ["mrpc_accelerate.py", "--max-steps", "5", "--output-dir"],
        ["pretrain_gpt2.py", "--max-steps", "5", "--output-dir"],
    ],
    ids=lambda words: words[0],
)
def test_scripts_with_the_real_ids(words, shape, course, tmp_path):
    folder, env = course
    profile = short(shape, folder)
    command = [sys.executable, f"scripts/{words[0]}", "--profile", str(profile), *words[1:], str(tmp_path / "out")]
    outcome = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
