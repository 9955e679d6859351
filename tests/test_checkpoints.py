"""takehome/checkpoints.py: whole or not at all, wherever it is killed; and nothing is removed that is not ours."""

import os
import shutil
from pathlib import Path

import pytest

from takehome import checkpoints
from takehome.checkpoints import begin, claim, damage, finish, newest_whole, only_one_run, recover, remove, seal, sweep
from takehome.errors import InputError


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture
def kill_at(monkeypatch):
    """Ends the process, as it were, before the n-th change of the file system."""
    left = [10**9]

    def counted(original):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return original(*args, **kwargs)

        return call

    for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))

    def set_limit(calls: int) -> None:
        left[0] = calls

    return set_limit


def make(final: Path, text: str) -> None:
    draft = begin(final, "model")
    (draft / "weights").write_text(text, encoding="utf-8")
    (draft / "below").mkdir()
    (draft / "below" / "more").write_text(2 * text, encoding="utf-8")
    finish(final)


def state(folder: Path) -> dict:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def test_killed_anywhere_the_old_or_the_new_is_there_whole(tmp_path, kill_at):
    """Whatever change of the file system is the last one, the next run finds one of the two, and cleans up."""
    final, last = tmp_path / "mine", None
    for calls in range(200):
        kill_at(10**9)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        make(final, "old")
        kill_at(calls)
        try:
            make(final, "new")
            last = calls
        except Killed:
            pass
        kill_at(10**9)
        recover(final)
        assert damage(final) == ""
        assert (final / "weights").read_text(encoding="utf-8") in ("old", "new")
        assert (final / "below" / "more").read_text(encoding="utf-8") == 2 * (final / "weights").read_text(
            encoding="utf-8"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        if last is not None:
            break
    assert last and last > 15 and (final / "weights").read_text(encoding="utf-8") == "new"


def test_killed_while_removing_the_rest_goes_at_the_next_run(tmp_path, kill_at):
    for calls in range(100):
        kill_at(10**9)
        folder = claim(tmp_path / "run", "run")
        for step in (1, 2):
            make(folder / f"checkpoint-{step}", "x")
        kill_at(calls)
        try:
            checkpoints.remove_checkpoints(folder, 1, print)
            done = True
        except Killed:
            done = False
        kill_at(10**9)
        sweep(folder)
        names = {path.name for path in folder.iterdir()} - {checkpoints.MARKER}
        assert names in ({"checkpoint-1", "checkpoint-2"}, {"checkpoint-2"})
        assert all(damage(folder / name) == "" for name in names)
        if done:
            return
    pytest.fail("never came to its end")


def foreign_folder(path: Path, tmp_path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine", encoding="utf-8")


def foreign_link(path: Path, tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "mine")
    path.symlink_to(tmp_path / "elsewhere")


def foreign_file(path: Path, tmp_path: Path) -> None:
    path.write_text("mine", encoding="utf-8")


@pytest.mark.parametrize("what", [foreign_folder, foreign_link, foreign_file])
@pytest.mark.parametrize("name", ["mine", ".mine.every-parameter-draft", ".mine.every-parameter-old"])
def test_what_is_not_ours_is_in_the_way_and_stays(tmp_path, what, name):
    what(tmp_path / name, tmp_path)
    before = state(tmp_path)
    with pytest.raises(InputError, match=r"mine"):
        make(tmp_path / "mine", "new")
    after = state(tmp_path)
    assert {key: value for key, value in after.items() if key in before} == before
    with pytest.raises(InputError):
        remove(tmp_path / name)
    with pytest.raises(InputError):
        claim(tmp_path / name, "run")


def test_a_file_that_somebody_added_keeps_a_finished_folder(tmp_path):
    make(tmp_path / "mine", "old")
    (tmp_path / "mine" / "below" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"below/notes\.txt"):
        make(tmp_path / "mine", "new")
    with pytest.raises(InputError, match=r"below/notes\.txt"):
        remove(tmp_path / "mine")
    assert (tmp_path / "mine" / "below" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert damage(tmp_path / "mine") == ""


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [empty, cut, zeros, flip, Path.unlink])
@pytest.mark.parametrize("name", ["weights", "below/more", checkpoints.MARKER])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, spoil, name):
    run, said = claim(tmp_path / "run", "run"), []
    for step in (9, 10):
        make(run / f"checkpoint-{step}", str(step))
    assert newest_whole(run, said.append) == run / "checkpoint-10" and not said
    spoil(run / "checkpoint-10" / name)
    if name == checkpoints.MARKER and spoil is flip and damage(run / "checkpoint-10") == "":
        return  # a bit in the word that says what it is: all that matters is as it was
    assert newest_whole(run, said.append) == run / "checkpoint-9"
    assert len(said) == 1 and "checkpoint-10" in said[0]
    assert name in said[0] or name == checkpoints.MARKER
    spoil(run / "checkpoint-9" / name)
    with pytest.raises(InputError, match=r"no checkpoint .* is whole .*--overwrite"):
        newest_whole(run, said.append)


def test_what_was_passed_over_counts_for_nothing_when_old_checkpoints_go(tmp_path):
    run = claim(tmp_path / "run", "run")
    for step in (1, 2, 3, 9):
        make(run / f"checkpoint-{step}", str(step))
    flip(run / "checkpoint-9" / "weights")
    checkpoints.remove_checkpoints(run, 2, print, reached=3)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_a_checkpoint_that_was_not_sealed_is_a_start_from_the_beginning(tmp_path):
    run, said = claim(tmp_path / "run", "run"), []
    claim(run / "checkpoint-3", "checkpoint")
    (run / "checkpoint-3" / "weights").write_text("half", encoding="utf-8")
    assert newest_whole(run, said.append) is None
    assert said == [f"{run / 'checkpoint-3'} is passed over: was not written to its end"]
    seal(run / "checkpoint-3")
    assert newest_whole(run, said.append) == run / "checkpoint-3"


def test_one_run_at_a_time(tmp_path):
    with only_one_run(tmp_path), pytest.raises(InputError, match="another run"), only_one_run(tmp_path):
        pass
    with only_one_run(tmp_path):
        pass


def test_a_file_that_somebody_changed_keeps_a_finished_folder(tmp_path):
    make(tmp_path / "mine", "old")
    (tmp_path / "mine" / "weights").write_text("old, with my corrections", encoding="utf-8")
    with pytest.raises(InputError, match=r"weights has .* Move it away"):
        make(tmp_path / "mine", "new")
    assert (tmp_path / "mine" / "weights").read_text(encoding="utf-8") == "old, with my corrections"


def test_a_folder_of_another_kind_is_not_replaced(tmp_path):
    make(tmp_path / "mine", "old")
    begin(tmp_path / "mine", "evaluation")
    with pytest.raises(InputError, match="holds a model"):
        finish(tmp_path / "mine")
    assert (tmp_path / "mine" / "weights").read_text(encoding="utf-8") == "old"


def test_the_best_checkpoint_stays_as_long_as_another_needs_it(tmp_path):
    run = claim(tmp_path / "run", "run")
    for step in (1, 2, 3, 4, 5):
        make(run / f"checkpoint-{step}", str(step))
    best = {4: 4, 5: 2}
    checkpoints.remove_checkpoints(
        run, 2, print, keep=lambda path: run / f"checkpoint-{best[checkpoints.step_of(path)]}"
    )
    assert [path.name for path in checkpoints.checkpoints(run)] == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
