"""The classroom bundle: made from a Hub on loopback, installed, and lessons run from it without any network.

`pytest -m classroom` makes, installs and runs; the quick tests look at the checksums and the choice of files.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import bundle_making
import classroom_bundle
import pytest
from bundle_checksums import CHECKSUMS, digest, every_file, format_list, is_link, read_list
from bundle_making import HubFile
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


# --- The list of checksums -----------------------------------------------------------------------


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def write_list(bundle: Path, *names: str) -> Path:
    """Names files of a bundle, or of elsewhere, in its list."""
    digests = {name: digest(bundle / name) for name in names}
    (bundle / CHECKSUMS).write_text(format_list(digests), encoding="utf-8")
    return bundle


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder: {name: digest, or where a link leads}."""
    names = every_file(folder)
    return {name: os.readlink(folder / name) if is_link(folder / name) else digest(folder / name) for name in names}


def link(place: Path, target: Path) -> None:
    try:
        place.symlink_to(target)
    except OSError:
        pytest.skip("no links on this system")


@pytest.fixture
def small(tmp_path):
    """A finished bundle of three files, and beside it somebody's own."""
    bundle = tmp_path / "bundle"
    fill(bundle, {"hub/classroom.toml": 'inherits = "reduced"\n', "hub/weights": "weights " * 100, "BUNDLE.txt": "!"})
    fill(tmp_path, {"thesis.txt": "years of work", "course/README.md": "the course"})
    return write_list(bundle, "hub/classroom.toml", "hub/weights", "BUNDLE.txt")


def install(bundle: Path, capsys) -> tuple[int, str]:
    """Installs into the folder `course` beside a bundle; returns the exit code and what was said of an error."""
    code = classroom_bundle.main(["install", str(bundle), "--course", str(bundle.parent / "course")])
    return code, capsys.readouterr().err


def refused(bundle: Path, capsys) -> str:
    """What is said when a bundle is refused; checks that nothing at all was changed."""
    before = snapshot(bundle.parent)
    code, said = install(bundle, capsys)
    assert code == 1 and "Traceback" not in said
    assert snapshot(bundle.parent) == before
    return said


def test_damaged_and_missing_files_are_named_and_nothing_is_installed(small, capsys):
    weights = small / "hub" / "weights"
    weights.write_bytes(b"wEights" + weights.read_bytes()[7:])
    (small / "hub" / "classroom.toml").unlink()
    said = refused(small, capsys)
    assert "hub/weights is damaged" in said and "hub/classroom.toml is missing" in said
    (small / CHECKSUMS).unlink()
    assert "is no finished bundle" in refused(small, capsys)
    assert "does not exist: correct the path" in refused(small.parent / "nowhere", capsys)
    assert "is a file; name the bundle's folder" in refused(small.parent / "thesis.txt", capsys)


def test_a_whole_bundle_is_installed_twice_alike(small, capsys):
    course = small.parent / "course"
    for _ in range(2):
        assert install(small, capsys)[0] == 0
        assert sorted(path.name for path in (course / "classroom").iterdir()) == [
            classroom_bundle.INSTALLED,
            "classroom.toml",
            "weights",
        ]
        assert sorted(path.name for path in course.iterdir()) == ["README.md", "classroom"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-16"),  # PowerShell: Get-Content list > list
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.removesuffix("\n").encode(),
    ],
)
def test_a_list_that_an_editor_has_saved_is_read(small, capsys, change):
    file = small / CHECKSUMS
    file.write_bytes(change(file.read_text(encoding="utf-8")))
    assert install(small, capsys) == (0, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: ["  "], "is empty"),
        (lambda lines: lines[:-1], "is cut, its last line is missing"),
        (lambda lines: lines[:2], "is cut, its last line is missing"),
        (lambda lines: [*lines[:-1], lines[-1][:-10]], "is cut, its last line is missing"),
        (lambda lines: [lines[0][:40]], "is cut"),
        (lambda lines: lines[1:], "was changed or damaged"),
        (lambda lines: [lines[0].replace("BUNDLE", "bundle"), *lines[1:]], "line 1 names 'bundle.txt', which is not"),
        (lambda lines: [lines[0], "", *lines[1:]], "line 2 is empty"),
        (lambda lines: [lines[0], "# a remark", *lines[1:]], "line 2 is not a sha256"),
        (lambda lines: [lines[0], lines[1].replace("  ", " "), *lines[2:]], "line 2 is not a sha256"),
        (lambda lines: [lines[0], lines[1][1:], *lines[2:]], "line 2 is not a sha256"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "line 2 names BUNDLE.txt a second time"),
    ],
)
def test_a_list_that_is_not_whole_is_refused(small, capsys, change, said):
    file = small / CHECKSUMS
    lines = change(file.read_text(encoding="utf-8").splitlines())
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert said in refused(small, capsys)


def test_a_list_that_is_no_text_is_refused(small, capsys):
    for content in (b"\xff\xfe\x00", b"\x80\x81\x82", bytes(100), b"<!DOCTYPE html><html>"):
        (small / CHECKSUMS).write_bytes(content)
        assert CHECKSUMS in refused(small, capsys)
    (small / CHECKSUMS).unlink()
    (small / CHECKSUMS).mkdir()
    assert CHECKSUMS in refused(small, capsys)


@pytest.mark.parametrize(
    "name",
    [
        "../thesis.txt",
        "hub/../../thesis.txt",
        "{}/thesis.txt",
        "hub/./weights",
        "hub//weights",
        "./hub/weights",
        "thesis.txt",
        "outside/x",
        "hub\\weights",
        "C:/thesis.txt",
        "hub",
        "hub/a\x1b[31m",
        "..",
    ],
)
def test_a_list_that_names_what_is_not_inside_the_bundle_is_refused(small, capsys, name):
    name = name.format(small.parent.as_posix())
    digests = read_list(small / CHECKSUMS) | {name: digest(small.parent / "thesis.txt")}
    (small / CHECKSUMS).write_text(format_list(digests), encoding="utf-8")
    said = refused(small, capsys)
    assert "which is not" in said and "do not use this bundle" in said and "\x1b" not in said


def test_links_are_not_followed(small, capsys):
    outside = small.parent / "secrets"
    fill(outside, {"key": "secret"})
    link(small / "hub" / "notes", small.parent / "thesis.txt")
    link(small / "hub" / "models", outside)
    write_list(small, "hub/classroom.toml", "hub/weights", "hub/notes", "hub/models/key")
    said = refused(small, capsys)
    assert "hub/notes is a link" in said and "hub/models/key is a link, or in a folder that is one" in said
    write_list(small, "hub/classroom.toml", "hub/weights")
    assert install(small, capsys)[0] == 0  # the links are there, and no checksum names them
    assert set(snapshot(small.parent / "course")) == {
        "README.md",
        "classroom/classroom.toml",
        "classroom/weights",
        f"classroom/{classroom_bundle.INSTALLED}",
    }


def test_files_that_no_checksum_names_do_not_go_along(small, capsys):
    fill(small, {"hub/extra.py": "evil", "course/extra.py": "evil"})
    assert install(small, capsys)[0] == 0
    assert not list((small.parent / "course").rglob("extra.py"))
    fill(small, {"wheels/evil-1.0-py3-none-any.whl": "pip would choose among all that lies there"})
    assert "no checksum names wheels/evil-1.0-py3-none-any.whl" in refused(small, capsys)


def test_what_somebody_put_into_the_course_is_not_lost(small, capsys):
    course = small.parent / "course"
    fill(course, {"classroom/notes.txt": "mine"})
    assert "classroom was not made from a bundle: give it another name" in refused(small, capsys)
    shutil.rmtree(course / "classroom")
    (course / "classroom").write_text("a file")
    assert "was not made from a bundle" in refused(small, capsys)
    (course / "classroom").unlink()
    link(course / "classroom", small.parent / "hub")
    assert "was not made from a bundle" in refused(small, capsys)
    (course / "classroom").unlink()
    assert install(small, capsys)[0] == 0
    fill(course, {"classroom/classroom.toml": "my own settings"})
    assert "classroom.toml was added or changed since the install" in refused(small, capsys)
    assert classroom_bundle.main(["install", str(small), "--course", str(small / "course")]) == 1
    assert "lies in the bundle: copy the folder `course`" in capsys.readouterr().err


def test_what_a_killed_install_leaves_is_named_and_stays(small, capsys):
    fill(small.parent / "course", {"classroom.abc.partial/new/weights": "half"})
    assert classroom_bundle.main(["install", str(small), "--course", str(small.parent / "course")]) == 0
    assert "classroom.abc.partial is left from an install that was stopped" in capsys.readouterr().out
    assert (small.parent / "course" / "classroom.abc.partial" / "new" / "weights").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(small, capsys, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert "No space left on device" in refused(small, capsys)


def test_the_install_needs_nothing_but_python(small):
    """As `make install-from-bundle` does it, before anything is installed, and from another folder."""
    command = [sys.executable, "-S", "-E", str(ROOT / "tools" / "classroom_bundle.py"), "install", str(small)]
    command += ["--course", str(small.parent / "course")]
    outcome = subprocess.run(command, cwd=small.parent, capture_output=True, text=True, timeout=60)
    assert outcome.returncode == 0, outcome.stderr
    assert "make lab" in outcome.stdout


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
    (bundle / CHECKSUMS).write_text(format_list({"course/README.md": "0" * 64, "hub/notes.txt": "0" * 64}))
    assert make(bundle) == 0
    assert "the changed one is now README.md.kept" in capsys.readouterr().out
    assert (bundle / "course" / "README.md.kept").read_text() == "their own words"
    assert (bundle / "course" / "README.md").read_text() == "the course"
    assert (bundle / "hub" / "notes.txt").read_text() == "theirs"
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


def test_wheels_for_another_system_get_one_line(small, capsys, monkeypatch):
    fill(small, {"wheels/torch-2-win_amd64.whl": "torch"})
    write_list(small, *read_list(small / CHECKSUMS), "wheels/torch-2-win_amd64.whl")
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(classroom_bundle.subprocess, "run", lambda command, **options: failed)
    code, said = install(small, capsys)
    assert code == 1 and "They are for the system and Python that made them" in said and sys.platform in said


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
