"""The classroom bundle: made from a Hub on loopback, installed, and lessons run from it without any network.

`pytest -m classroom` makes, installs and runs; the quick tests look at the list of checksums and at the install.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import classroom_bundle
import pytest
from bundle_checksums import CHECKSUMS, digest, every_file, format_list, is_link, read_list
from loopback_hub import Hub
from test_hub import environment, short

from helpers.profiles import ROOT

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
    (course / "classroom").write_text("a file", encoding="utf-8")
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


def test_wheels_for_another_system_get_one_line(small, capsys, monkeypatch):
    fill(small, {"wheels/torch-2-win_amd64.whl": "torch"})
    write_list(small, *read_list(small / CHECKSUMS), "wheels/torch-2-win_amd64.whl")
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(classroom_bundle.subprocess, "run", lambda command, **options: failed)
    code, said = install(small, capsys)
    assert code == 1 and "They are for the system and Python that made them" in said and sys.platform in said
