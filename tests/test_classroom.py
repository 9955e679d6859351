"""The classroom bundle: made from a Hub on loopback, installed, and lessons run from it without any network.

`pytest -m classroom` makes, installs and runs; the quick tests look at the checksums and the choice of files.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import classroom_bundle
import pytest
from loopback_hub import Hub
from test_hub import environment, load_profile_quietly, short

from helpers.profiles import ROOT, load_profile

LESSONS = ("01_concepts", "02_imdb_gpt2_classifier", "04_mrpc_trainer")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle without wheels of the laptop's ids and the reduced profile's numbers, and what making it printed."""
    folder = tmp_path_factory.mktemp("room")
    profile, bundle = short("laptop", folder), folder / "a bundle"
    with Hub() as hub:
        env = environment(HF_ENDPOINT=hub.url, HF_HOME=str(folder / "cache"), TQDM_DISABLE="1")
        outcomes = []
        for _ in range(2):  # the second time everything is there, but for what we take away
            command = [sys.executable, "tools/classroom_bundle.py", "make", str(bundle)]
            command += ["--profile", str(profile), "--wheels", "none"]
            outcomes.append(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900))
            assert outcomes[-1].returncode == 0, outcomes[-1].stderr[-3000:]
            if len(outcomes) == 1:
                before = len(hub.asked)
                weights = next(bundle.glob("hub/models/*gpt2*/model.safetensors"))
                weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        again = [one for one in hub.asked[before:] if one.method == "GET" and "/" not in one.file[:1]]
    return bundle, outcomes, [one.file for one in again if one.file.endswith((".safetensors", ".parquet"))]


@pytest.mark.classroom
def test_made_and_made_again(made):
    bundle, outcomes, fetched = made
    assert "MB, in " in outcomes[0].stdout
    assert "model.safetensors is damaged: fetched again" in outcomes[1].stdout
    assert fetched == ["model.safetensors"]
    assert classroom_bundle.damaged(bundle) == []
    assert len(list(bundle.glob("hub/datasets/*openwebtext*/*/*.parquet"))) == 1
    assert (bundle / "course" / "Makefile").exists()


@pytest.mark.classroom
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="needs Linux's unshare")
def test_lessons_run_from_it_without_a_network(made, tmp_path):
    bundle = made[0]
    course = tmp_path / "course"
    shutil.copytree(bundle / "course", course)
    offline = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]  # notebooks talk over loopback
    env = environment(HF_HOME=str(tmp_path / "cache"), PYTHONPATH=str(course))
    command = [*offline, sys.executable, "tools/classroom_bundle.py", "install", str(bundle)]
    outcome = subprocess.run(command, cwd=course, env=env, capture_output=True, text=True, timeout=600)
    assert outcome.returncode == 0, outcome.stderr
    assert "FINETUNING_PROFILE=classroom/classroom.toml" in outcome.stdout
    env["FINETUNING_PROFILE"] = str(course / "classroom" / "classroom.toml")
    for lesson in LESSONS:
        code = (
            f"import sys; sys.path.insert(0, 'tools'); from execute import *; "
            f"path = Path('notebooks').resolve() / '{lesson}.ipynb'; "
            f"print(execute(read(path), path.parent, {env['FINETUNING_PROFILE']!r}))"
        )
        command = [*offline, sys.executable, "-c", code]
        outcome = subprocess.run(command, cwd=course, env=env, capture_output=True, text=True, timeout=3000)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
        print(lesson, outcome.stdout)


@pytest.fixture
def small(tmp_path):
    """A finished bundle of two files."""
    bundle = tmp_path / "bundle"
    (bundle / "hub").mkdir(parents=True)
    (bundle / "hub" / "classroom.toml").write_text('inherits = "reduced"\n')
    (bundle / "hub" / "weights").write_bytes(b"weights" * 1000)
    lines = [f"{classroom_bundle.digest(path)}  {path.relative_to(bundle).as_posix()}"
             for path in classroom_bundle.contents(bundle)]  # fmt: skip
    (bundle / classroom_bundle.CHECKSUMS).write_text("\n".join(lines) + "\n")
    return bundle


def test_damaged_and_missing_files_are_named_and_nothing_is_installed(small, tmp_path, capsys):
    course = tmp_path / "course"
    course.mkdir()
    words = ["install", str(small), "--course", str(course)]
    weights = small / "hub" / "weights"
    weights.write_bytes(b"wEights" + weights.read_bytes()[7:])
    (small / "hub" / "classroom.toml").unlink()
    assert classroom_bundle.main(words) == 1
    said = capsys.readouterr().err
    assert "hub/weights is damaged" in said and "hub/classroom.toml is missing" in said
    assert list(course.iterdir()) == []
    (small / classroom_bundle.CHECKSUMS).unlink()
    assert classroom_bundle.main(words) == 1
    assert "is no finished bundle" in capsys.readouterr().err


def test_a_whole_bundle_is_installed_twice_alike(small, tmp_path, capsys):
    course = tmp_path / "course"
    course.mkdir()
    for _ in range(2):
        assert classroom_bundle.main(["install", str(small), "--course", str(course)]) == 0
        assert sorted(path.name for path in (course / "classroom").iterdir()) == ["classroom.toml", "weights"]
    assert "make lab" in capsys.readouterr().out


def test_of_a_repository_only_what_is_needed_is_taken():
    laptop = load_profile_quietly("laptop").tables
    model = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "onnx/config.json", "vocab.txt",
             "README.md"]  # fmt: skip
    chosen = classroom_bundle.wanted_files("model", laptop["imdb"], dict.fromkeys(model, 1))
    assert sorted(chosen) == ["README.md", "config.json", "model.safetensors", "vocab.txt"]
    chosen = classroom_bundle.wanted_files("model", laptop["imdb"], {"config.json": 1, "pytorch_model.bin": 1})
    assert "pytorch_model.bin" in chosen
    glue = ["README.md", "mrpc/train-00000-of-00001.parquet", "cola/train-00000-of-00001.parquet"]
    chosen = classroom_bundle.wanted_files("dataset", laptop["mrpc"], dict.fromkeys(glue, 1))
    assert sorted(chosen) == ["README.md", "mrpc/train-00000-of-00001.parquet"]
    corpus = [f"plain_text/train-{i:05d}-of-00080.parquet" for i in range(80)]
    chosen = classroom_bundle.wanted_files("dataset", laptop["openwebtext"], dict.fromkeys(corpus, 1))
    assert chosen == corpus[:1]


def test_the_profile_of_a_bundle_has_local_paths_and_the_same_numbers(tmp_path):
    laptop = load_profile_quietly("laptop")
    names = {(key, getattr(task, key)) for task in laptop.tables.values() for key in ("dataset", "checkpoint")}
    folders = {(key, name): name.replace("/", "--") for key, name in names if not Path(name).is_absolute()}
    path = tmp_path / "classroom.toml"
    path.write_text(classroom_bundle.local_profile(laptop, folders), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.profiles.set_offline", lambda offline: None)
        ours = load_profile(path)
    assert ours.offline
    for name, task in laptop.tables.items():
        mine = ours.tables[name]
        assert (mine.learning_rate, mine.seed, mine.config) == (task.learning_rate, task.seed, task.config)
        assert mine.revision is mine.checkpoint_revision is None
        assert all(Path(place).is_absolute() for place in (mine.dataset, mine.checkpoint))
    assert ours.tables["imdb"].checkpoint == str(tmp_path / "distilbert--distilgpt2")
    assert ours.tables["mrpc"].metric == str(ROOT / "data" / "metrics" / "glue")
    assert json.dumps(os.fspath(tmp_path)) not in path.read_text(encoding="utf-8")
