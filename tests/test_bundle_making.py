"""Making a classroom bundle: what it holds, where it may be written, and nothing of anybody's lost.

tests/test_hub_errors.py has the networks that spoil it, tests/test_classroom.py the install.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import bundle_making
import classroom_bundle
import pytest
from bundle_checksums import CHECKSUMS, every_file, format_list, read_list
from bundle_making import HubFile
from test_classroom import fill, link, snapshot, write_list
from test_hub import load_profile_quietly

from helpers.profiles import ROOT, load_profile

# --- Making --------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small course in a git repository of its own, and a place for a bundle beside it."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    root = tmp_path / "project"
    fill(root, {"README.md": "the course", "notes/a b.txt": "text", "untracked.txt": "mine"})
    for words in (["init", "-q"], ["add", "README.md", "notes"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    monkeypatch.setattr(bundle_making, "ROOT", root)
    monkeypatch.setattr(bundle_making, "download", lambda repositories, bundle: [])
    monkeypatch.setattr("helpers.hub.set_offline", lambda offline: None)
    monkeypatch.setattr("helpers.profiles.set_offline", lambda offline: None)
    monkeypatch.setattr("helpers.profiles.check_hub", lambda: "")
    mine = tmp_path / "mine.toml"
    mine.write_text('inherits = "reduced"\noffline = false\ndescription = "Kurs 🎓"\n', encoding="utf-8")
    return root, lambda bundle: classroom_bundle.main(["make", str(bundle), "--profile", str(mine), "--wheels", "none"])


def test_a_bundle_names_each_of_its_files(repository, capsys):
    root, make = repository
    bundle = root.parent / "new" / "bundle"
    assert make(bundle) == 0
    assert set(every_file(bundle)) == {*read_list(bundle / CHECKSUMS), CHECKSUMS}
    assert set(read_list(bundle / CHECKSUMS)) == {
        "BUNDLE.txt",
        "course/README.md",
        "course/notes/a b.txt",
        "hub/classroom.toml",
    }
    assert tomllib.loads((bundle / "hub" / "classroom.toml").read_text("utf-8"))["description"].startswith("Kurs 🎓,")
    before = snapshot(bundle)
    assert make(bundle) == 0
    assert snapshot(bundle) == before


def test_a_site_that_is_built_comes_along_and_is_installed(repository, capsys):
    root, make = repository
    fill(root / "site" / "_build" / "html", {"index.html": "the site", "static/a.js": "script"})
    bundle, course = root.parent / "bundle", root.parent / "course"
    assert make(bundle) == 0 and "with the site, as it was built" in capsys.readouterr().out
    course.mkdir()
    for again in (False, True):
        assert classroom_bundle.main(["install", str(bundle), "--course", str(course)]) == 0
        told = capsys.readouterr().out
        assert (course / "classroom" / "site" / "static" / "a.js").read_text(encoding="utf-8") == "script", again
        assert (course / "classroom" / "site" / "index.html").as_uri() in told


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("project", "has files and is no bundle"),
        ("other", "has files and is no bundle"),
        ("thesis.txt", "is a file: name a folder"),
        ("linked", "has a link in it, course, and a bundle has none"),
        ("marked by a link", "has files and is no bundle"),
    ],
)
def test_no_bundle_is_made_where_something_else_is(repository, capsys, name, said):
    """A folder `course` in somebody's repository, somebody's file, links that lead out."""
    root, make = repository
    fill(root.parent, {"other/course/README.md": "another course", "thesis.txt": "years of work"})
    fill(root.parent, {"linked/BUNDLE.txt": bundle_making.MARKER_TEXT, "marker": bundle_making.MARKER_TEXT})
    link(root.parent / "linked" / "course", root.parent / "other" / "course")
    fill(root.parent, {"marked by a link/course/README.md": "another course"})
    link(root.parent / "marked by a link" / "BUNDLE.txt", root.parent / "marker")
    before = snapshot(root.parent)
    assert make(root.parent / name) == 1
    assert said in capsys.readouterr().err
    assert snapshot(root.parent) == before


def test_a_received_bundle_makes_nothing_disappear(repository, capsys):
    """Its list names files of the maker by absolute and relative paths, and files that it does not have."""
    root, make = repository
    bundle = root.parent / "received"
    fill(root.parent, {"thesis.txt": "years of work"})
    assert make(bundle) == 0
    fill(bundle, {"hub/notes.txt": "theirs", "course/README.md": "their own words"})
    for name in ("../thesis.txt", f"{root.parent.as_posix()}/thesis.txt"):
        digests = {name: "0" * 64, "course/README.md": "0" * 64, "hub/notes.txt": "0" * 64}
        (bundle / CHECKSUMS).write_text(format_list(digests), encoding="utf-8")
        before = snapshot(root.parent)
        assert make(bundle) == 1
        assert "which is not" in capsys.readouterr().err
        assert snapshot(root.parent) == before
    (bundle / CHECKSUMS).write_text(
        format_list({"course/README.md": "0" * 64, "hub/notes.txt": "0" * 64}), encoding="utf-8"
    )
    assert make(bundle) == 0
    assert "the changed one is now README.md.kept" in capsys.readouterr().out
    assert (bundle / "course" / "README.md.kept").read_text(encoding="utf-8") == "their own words"
    assert (bundle / "course" / "README.md").read_text(encoding="utf-8") == "the course"
    assert (bundle / "hub" / "notes.txt").read_text(encoding="utf-8") == "theirs"
    assert not {"hub/notes.txt", "course/README.md.kept"} & read_list(bundle / CHECKSUMS).keys()


def test_a_course_without_git_gets_one_line(repository, capsys, monkeypatch, tmp_path):
    root, make = repository
    shutil.move(root / ".git", root.parent / "kept")
    assert make(tmp_path / "a") == 1
    assert "is no git clone of its own (is it from a ZIP?)" in capsys.readouterr().err
    subprocess.run(["git", "init", "-q"], cwd=root.parent, check=True)  # unpacked inside another repository
    subprocess.run(["git", "add", "-f", "project/README.md"], cwd=root.parent, check=True)
    assert make(tmp_path / "b") == 1
    assert "is no git clone of its own" in capsys.readouterr().err
    monkeypatch.setattr(bundle_making.shutil, "which", lambda name: None)
    assert make(tmp_path / "c") == 1
    assert "git tells which files belong to the course, and it is not installed" in capsys.readouterr().err


def test_wheels_of_other_systems_stay_and_foreign_ones_are_refused(repository, capsys):
    root, make = repository
    bundle = root.parent / "bundle"
    assert make(bundle) == 0
    fill(bundle, {"wheels/a-1-py3-none-win_amd64.whl": "made on Windows"})
    write_list(bundle, *read_list(bundle / CHECKSUMS), "wheels/a-1-py3-none-win_amd64.whl")
    assert make(bundle) == 0
    assert "wheels/a-1-py3-none-win_amd64.whl" in read_list(bundle / CHECKSUMS)
    fill(bundle, {"wheels/b.whl": "?"})
    assert make(bundle) == 1
    assert "wheels/b.whl was not put there by this program: move it away" in capsys.readouterr().err
    (bundle / "wheels" / "b.whl").unlink()
    fill(bundle, {"wheels/a-1-py3-none-win_amd64.whl": "made on Wind"})
    assert make(bundle) == 1
    assert "win_amd64.whl is damaged; delete it" in capsys.readouterr().err


def test_wheels_come_whole_or_not_at_all(repository, capsys, monkeypatch):
    """pip, which is not run here, writes beside the bundle's wheels, and its own are moved there when all are made."""
    root, _ = repository
    bundle, real = root.parent / "bundle", subprocess.run

    def pip(failing):
        def run(command, **options):
            if "wheel" not in command:
                return real(command, **options)
            fill(Path(command[-1]), {"torch-2.whl": "torch", "numpy-2.whl": "numpy"})
            if failing:
                raise subprocess.CalledProcessError(1, command)

        return run

    for failing in (True, False):
        monkeypatch.setattr(bundle_making.subprocess, "run", pip(failing))
        outcome = classroom_bundle.main(["make", str(bundle), "--profile", str(root.parent / "mine.toml")])
        assert outcome == failing
        assert ("failed with status 1" in capsys.readouterr().err) == failing
        wheels = [] if failing else ["wheels/numpy-2.whl", "wheels/torch-2.whl"]
        assert [name for name in every_file(bundle) if name.endswith(".whl")] == wheels
        assert not list(bundle.glob(".wheels*"))
    assert {"wheels/numpy-2.whl", "wheels/torch-2.whl"} <= read_list(bundle / CHECKSUMS).keys()


def test_what_the_hub_states_is_what_counts(tmp_path):
    content = b"{}\n"
    (tmp_path / "a").write_bytes(content)
    git = "0967ef424bce6791893e9a57bb952f80fd536e93"  # of `echo '{}' | git hash-object --stdin`
    sha256 = hashlib.sha256(content).hexdigest()
    for stated, fits in (
        (HubFile("a", 3, sha1=git), True),
        (HubFile("a", 3, sha256, "0" * 40), True),  # of a large file, git's digest is that of a pointer
        (HubFile("a", 4, sha1=git), False),
        (HubFile("a", 3, sha1="0" * 40), False),
        (HubFile("a", 3, "0" * 64, git), False),
        (HubFile("a", 3), False),
    ):
        assert stated.fits(tmp_path / "a") is fits
    assert not HubFile("b", 3, sha1=git).fits(tmp_path / "b")


def test_of_a_repository_only_what_is_needed_is_taken():
    laptop = load_profile_quietly("laptop").tables
    model = [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "onnx/config.json",
        "vocab.txt",
        "README.md",
    ]
    chosen = bundle_making.wanted_files("model", laptop["imdb"], dict.fromkeys(model, 1))
    assert sorted(chosen) == ["README.md", "config.json", "model.safetensors", "vocab.txt"]
    chosen = bundle_making.wanted_files("model", laptop["imdb"], {"config.json": 1, "pytorch_model.bin": 1})
    assert "pytorch_model.bin" in chosen
    glue = ["README.md", "mrpc/train-00000-of-00001.parquet", "cola/train-00000-of-00001.parquet"]
    chosen = bundle_making.wanted_files("dataset", laptop["mrpc"], dict.fromkeys(glue, 1))
    assert sorted(chosen) == ["README.md", "mrpc/train-00000-of-00001.parquet"]
    corpus = [f"plain_text/train-{i:05d}-of-00080.parquet" for i in range(80)]
    chosen = bundle_making.wanted_files("dataset", laptop["openwebtext"], dict.fromkeys(corpus, 1))
    assert chosen == corpus[:1]


def test_the_profile_of_a_bundle_has_local_paths_and_the_same_numbers(tmp_path):
    laptop = load_profile_quietly("laptop")
    names = {(key, getattr(task, key)) for task in laptop.tables.values() for key in ("dataset", "checkpoint")}
    folders = {(key, name): name.replace("/", "--") for key, name in names if not Path(name).is_absolute()}
    path = tmp_path / "classroom.toml"
    path.write_text(bundle_making.local_profile(laptop, folders), encoding="utf-8")
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
