"""The Hub without the Hub: no long wait where it does not answer, and everything that the profiles name is asked for.

tests/loopback_hub.py stands in for it, with the real ids and revisions and our own data.
"""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from loopback_hub import Fault, Hub

from helpers import profiles
from helpers.profiles import ROOT, ProfileError, load_profile

BOUND = 3.0  # seconds until the profile loader knows whether the Hub answers


@pytest.fixture
def clean_environment(monkeypatch):
    for key in ("FINETUNING_PROFILE", "HF_ENDPOINT", "HF_HOME", *profiles.OFFLINE):
        monkeypatch.setenv(key, "")  # recorded, so that monkeypatch restores it
        monkeypatch.delenv(key)
    monkeypatch.setattr(profiles, "_SET_BY_US", [])
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
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
    "not_there", ["refused", "silent", "dripping", "swallowed", "no such name"], indirect=True
)  # fmt: skip
def test_without_the_hub_it_is_known_in_time_what_is_missing(not_there, clean_environment, tmp_path):
    clean_environment.setenv("HF_ENDPOINT", not_there)
    clean_environment.setenv("HF_HOME", str(tmp_path / "cache"))
    begin = time.perf_counter()
    profile = load_profile("laptop")
    assert time.perf_counter() - begin < BOUND
    assert {key: os.environ.get(key) for key in profiles.OFFLINE} == profiles.OFFLINE
    with pytest.raises(ProfileError) as caught:
        profile.mrpc  # noqa: B018
    said = str(caught.value)
    assert f"profile laptop, [mrpc]: the Hub cannot be reached ({not_there}: " in said
    for part in ("data set nyu-mll/glue, config mrpc, revision bcdcba79d07b", "metric glue", str(tmp_path / "cache"),
                 "checkpoint distilbert/distilbert-base-uncased, revision 12040accade4",
                 'load_profile("reduced")', "classroom bundle", "SETUP.md"):  # fmt: skip
        assert part in said
    assert load_profile("reduced").mrpc  # needs nothing of it


def test_a_server_in_trouble_is_no_hub_and_one_that_refuses_is(clean_environment):
    for status, usable in ((200, True), (404, True), (401, True), (500, False), (503, False)):
        with Hub(fault=lambda *_, status=status: Fault(status=status if status > 200 else 0)) as hub:
            clean_environment.setenv("HF_ENDPOINT", hub.url)
            assert (profiles.check_hub() == "") == usable, status
            profiles._set_offline(False)


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
    with Hub() as hub:
        clean_environment.setenv("HF_ENDPOINT", hub.url)
        assert load_profile("full").imdb and "HF_HUB_OFFLINE" not in os.environ


def environment(**changes) -> dict:
    """The environment for a fresh process that knows nothing of this one's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "FINETUNING_"))}
    return kept | {"OMP_NUM_THREADS": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"} | changes


ENTRY_POINTS = {
    "notebook": ["-c", "from helpers.profiles import load_profile\nload_profile('full').concepts"],
    "mrpc_accelerate": ["scripts/mrpc_accelerate.py", "--profile", "laptop", "--output_dir", "{out}"],
    "mrpc_accelerate launches": [
        "scripts/mrpc_accelerate.py", "--profile", "laptop", "--output_dir", "{out}",
        "--config_file", "scripts/launch/ddp_cpu.yaml",
    ],
    "pretrain_gpt2": ["scripts/pretrain_gpt2.py", "--profile", "laptop", "--output-dir", "{out}"],
    "memory": ["-m", "helpers.memory", "someone/model", "--batch-size", "1", "--sequence-length", "8"],
    "doctor": ["-m", "helpers.doctor"],
}  # fmt: skip


@pytest.mark.parametrize("not_there", ["silent"], indirect=True)  # the slowest of the ways
def test_first_useful_message_of_every_entry_point(not_there, tmp_path):
    """Five seconds: HUB_SECONDS for the question, and what it computes on a core of its own."""
    for name, words in ENTRY_POINTS.items():
        command = [sys.executable, *(word.format(out=tmp_path / name) for word in words)]
        env = environment(HF_ENDPOINT=not_there, HF_HOME=str(tmp_path / "cache"))
        before, begin = os.times(), time.perf_counter()
        outcome = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
        wall, after = time.perf_counter() - begin, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        said = outcome.stdout + outcome.stderr
        assert "the Hub cannot be reached" in said or "the Hub does not answer" in said, (name, said)
        assert "Traceback" not in said or name == "notebook"
        assert (outcome.returncode == 0) == (name == "doctor")
        print(f"{name:26} {wall:5.1f} s, of which {cpu:.1f} s on a core")
        assert cpu + profiles.HUB_SECONDS < 5 and wall < 60, (name, wall, cpu)  # wall: others may use the cores
