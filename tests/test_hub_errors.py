"""Bad networks, damaged files, wrong names: who is blamed for what does not load, by all that loads something."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import test_hub
from bad_networks import NETWORKS
from loopback_hub import Hub
from test_hub import environment

from helpers import doctor, hub
from helpers.hub_errors import explain
from helpers.profiles import ROOT, ProfileError, load_profile

clean_environment = test_hub.clean_environment  # a fixture
ASKED = {name: network for name, network in NETWORKS.items() if network.asked}


@pytest.mark.parametrize("name", ASKED)
def test_what_answers_and_is_not_the_hub_is_recognised(name, clean_environment, tmp_path):
    """By the profile and by the doctor, with the same words."""
    with Hub(fault=ASKED[name].fault) as server:
        clean_environment.setenv("HF_ENDPOINT", server.url)
        clean_environment.setenv("HF_HOME", str(tmp_path))
        profile = load_profile("laptop")
        reachable, line = doctor.hub_line(hub.ask_hub())
    assert re.search(ASKED[name].asked, profile.no_hub) and "\n" not in profile.no_hub
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(ProfileError, match="the Hub cannot be reached"):
        profile.imdb  # noqa: B018
    assert re.search(ASKED[name].asked, line) and not reachable


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """What was said of each bad network: {(network, way): row}."""
    command = [sys.executable, "tests/bad_networks.py", str(tmp_path_factory.mktemp("networks"))]
    outcome = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return {(row["network"], row["way"]): row for row in map(json.loads, outcome.stdout.splitlines())}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_bad_network_gets_the_right_blame(name, tried):
    """`from_pretrained`, `load_dataset` and the classroom bundle: one line, and no bundle of what is not the Hub's."""
    network, seen = NETWORKS[name], 0
    for way in ("model", "dataset", "bundle"):
        expected = getattr(network, way)
        if expected is not None:
            row, seen = tried[name, way], seen + 1
            assert row["said"] and "\n" not in row["said"], row
            assert re.search(expected or network.asked, row["said"]), row
            assert not row["finished"], row
    assert seen


def chain(*errors):
    """The last of some errors, each raised from the one before."""
    for before, error in itertools.pairwise(errors):
        error.__cause__ = before
    return errors[-1]


def test_a_directory_or_a_cache_that_is_damaged_is_named(tmp_path, monkeypatch):
    place = tmp_path / "mine"
    shutil.copytree(ROOT / "data" / "models" / "distilbert", place)
    error = OSError("Can't load the model")
    assert explain(error, str(place)) == f"{place} cannot be loaded: Can't load the model"
    for name, content, said in (
        ("config.json", b"{", "config.json is not JSON; copy or save it again"),
        ("config.json", b"", "config.json is empty"),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "pointer of Git LFS: run `git lfs pull`",
        ),
        ("model.safetensors", b"\x08" + bytes(7) + b'{"a": 1}', "is not a safetensors file"),
        ("a.parquet", b"PAR1 and then nothing", "a.parquet is not a whole Parquet file"),
    ):
        before = (place / name).read_bytes() if (place / name).exists() else None
        (place / name).write_bytes(content)
        assert said in explain(error, str(place)), name
        (place / name).unlink() if before is None else (place / name).write_bytes(before)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    blob = tmp_path / "hub" / "models--me--mine" / "blobs" / hashlib.sha256(b"right").hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"wrong")
    (blob.parent.parent / "snapshots" / "abc").mkdir(parents=True)
    try:
        (blob.parent.parent / "snapshots" / "abc" / "vocab.txt").symlink_to(blob)
    except OSError:
        pytest.skip("no links on this system")
    assert f"digest differs; delete {blob.parent.parent} and load again" in explain(error, "me/mine")
    blob.write_bytes(b"right")
    assert explain(error, "me/mine") == "me/mine cannot be loaded: Can't load the model"


def test_what_is_not_the_hubs_fault_is_not_blamed_on_it(tmp_path):
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    for error, what, said in (
        (
            chain(OfflineModeIsEnabled("x"), LocalEntryNotFoundError("y"), OSError("couldn't connect")),
            "me/mine",
            "me/mine is not in the cache of this machine .*SETUP.md",
        ),
        (OSError("no such"), "./nowhere", "./nowhere does not exist: correct the path"),
        (OSError(28, "No space left on device"), "me/mine", "the disk is full; make room, or set HF_HOME"),
        (PermissionError(13, "Permission denied", "/hub/x"), "me/mine", "/hub/x may not be read or written"),
        (HFValidationError("bad"), "a b", "a b is neither a folder here nor a name on the Hub"),
        (OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "me/mine", "its certificate is not trusted"),
        (OSError("[SSL: WRONG_VERSION_NUMBER] wrong"), "me/mine", "no secure connection can be made"),
        (ValueError("Please pass the argument `trust_remote_code=True`"), "me/mine", "we never run code of others"),
        (RuntimeError("size mismatch for a.weight"), "me/mine", "me/mine has weights that do not fit its config.json"),
        (ValueError("BuilderConfig 'x' not found.\nAvailable: ['a']"), "me/mine", "x' not found. Available: ..a"),
        (KeyError(), "me/mine", "cannot be loaded: KeyError"),
    ):
        sentence = explain(error, what)
        assert re.search(said, sentence) and "\n" not in sentence and sentence.startswith(what), sentence


def test_a_model_that_cannot_do_the_task_is_named_with_what_is_missing():
    from transformers import AutoModelForSequenceClassification, MambaConfig

    with pytest.raises(ValueError) as caught:
        AutoModelForSequenceClassification.from_config(MambaConfig())
    said = explain(caught.value, "owner/name")
    assert said == "owner/name is a Mamba, and transformers has no MambaForSequenceClassification: choose another model"
