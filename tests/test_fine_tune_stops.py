"""scripts/fine_tune.py stopped: killed, asked to stop, with damaged checkpoints, among files that are not its own."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import fine_tune_runs
import pytest
from fine_tune_runs import fine_tune, posix, refused, same_model, write_csv, write_small
from small_models import write_small_model

from takehome.checkpoints import MARKER, claim, damage, draft_of, read_marker, seal
from takehome.errors import InputError
from takehome.unfinished import KIND, find_start, unfinished

# So slow that the small model's answers stay what they are, and its first checkpoint the best: it moves by bits.
SHORT = (*fine_tune_runs.SHORT, "--learning-rate=1e-5")
EARLY = (*SHORT, "--eval-steps=2", "--early-stopping-patience=1")


class Run(fine_tune_runs.Run):
    """With a model that takes a step in a moment: what is tested here does not depend on its size."""

    def __init__(self, output, data, *arguments, **more):
        super().__init__(output, data, *arguments, checkpoint=model_of(data), **more)


def told(data: Path, output: Path, *more: str) -> list[str]:
    """The command line."""
    return ["--data", str(data), "--output-dir", str(output), "--checkpoint", model_of(data), *more]


def model_of(data: Path) -> str:
    """The small model beside the small table."""
    return str(data.with_name("small"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    data = write_small(tmp_path_factory.mktemp("data"))
    write_small_model(Path(model_of(data)), "distilbert")
    return data


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small) -> Run:
    return Run(tmp_path_factory.mktemp("run") / "model", small, *SHORT).finish()


@pytest.fixture(scope="module")
def early(tmp_path_factory, small) -> tuple[Run, float]:
    """A run that stops early, and the seconds that it took."""
    run = Run(tmp_path_factory.mktemp("early") / "model", small, *EARLY)
    return run, finish_in(run)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, small) -> Path:
    """The folder of a run that was killed after its third checkpoint; the second is there, and the best, the first."""
    run = Run(tmp_path_factory.mktemp("stopped") / "model", small, *SHORT, slow=0.3)
    kill(run, 12)
    return run.work


@pytest.fixture
def damaged(stopped, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(stopped, tmp_path / "model.unfinished")


def kill(run: Run, step: int) -> None:
    """Kills a run once this checkpoint is whole."""
    run.wait(until=lambda: damage(run.work / f"checkpoint-{step}") == "")
    run.process.kill()
    run.process.join()
    assert run.process.exitcode < 0, run.text


def listing(folder: Path) -> dict[str, str]:
    """Each file with its digest, each link with its target, each folder."""
    found = {}
    for path in folder.rglob("*"):
        there = os.readlink(path) if path.is_symlink() else "folder"
        name = path.relative_to(folder).as_posix()
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else there
    return found


# --- Asked to stop -------------------------------------------------------------------------------


@posix
def test_ctrl_c_stops_after_the_step_and_the_same_command_goes_on(finished, small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT, slow=0.2)
    run.wait(until=(run.work / "checkpoint-4" / "trainer_state.json").exists)
    os.kill(run.process.pid, signal.SIGINT)
    line = run.refusal(code=130)
    step = int(line.split()[-1])
    assert 4 < step < 16  # not the checkpoint before: nothing is lost
    assert "interrupted; the same command goes on after step" in line
    assert not run.output.exists()

    other = Run(run.output, small, *SHORT, "--learning-rate=0.002")
    assert "learning_rate was 1e-05, is 0.002" in other.refusal()
    run = Run(run.output, small, *SHORT, "--resume").finish()
    assert "resuming" in run.text
    assert same_model(run, finished)
    assert not run.work.exists()


@posix
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_other_signals_are_like_ctrl_c(name, small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT, slow=0.2)
    run.wait(until=lambda: "step 4" in run.text)
    number = getattr(signal, name)
    os.kill(run.process.pid, number)
    line = run.refusal(code=128 + number)
    step = int(line.split()[-1])
    assert f"stopped by {name}; the same command goes on after step" in line and step > 4
    assert damage(run.work / f"checkpoint-{step}") == ""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_reads_nothing_is_left(number, small, tmp_path, monkeypatch, capsys, request):
    prepare, before = fine_tune.prepare, signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))  # the tests may be run with Ctrl-C ignored

    def stopped(*arguments, **settings):
        prepare(*arguments, **settings)
        signal.raise_signal(number)

    monkeypatch.setattr(fine_tune, "prepare", stopped)
    assert fine_tune.main(told(small, tmp_path / "new" / "model")) == 128 + number
    assert "nothing is kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- Killed --------------------------------------------------------------------------------------


def test_killed_while_it_writes_a_checkpoint(finished, small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT)
    run.wait(until=(run.work / "checkpoint-8").exists)
    run.process.kill()
    run.process.join()
    if (marker := read_marker(run.work / "checkpoint-8")) and marker.files is not None:  # it was quicker than we were
        (run.work / "checkpoint-8" / MARKER).write_text(
            json.dumps({"kind": "checkpoint", "files": None}), encoding="utf-8"
        )
    run = Run(run.output, small, *SHORT).finish()
    assert "checkpoint-4" in run.text
    assert same_model(run, finished)


def evaluations(run: Run) -> list[int]:
    return [entry["step"] for entry in run.metrics["log_history"] if "eval_loss" in entry]


def test_killed_after_early_stopping_had_decided(early, small, tmp_path):
    whole, _ = early
    steps = whole.metrics["measured"]["steps"]
    assert steps < whole.metrics["predicted"]["steps"]
    run = Run(tmp_path / "model", small, *EARLY)
    kill(run, steps)
    run = Run(run.output, small, *EARLY).finish()
    assert "its training was over" in run.text
    assert run.metrics["measured"]["steps"] == steps
    assert evaluations(run) == evaluations(whole)
    assert same_model(run, whole)


def finish_in(whole: Run) -> float:
    """Seconds that a run takes here, from its start."""
    begin = time.monotonic()
    whole.finish()
    return time.monotonic() - begin


def kill_often(
    whole: Run, seconds: float, small: Path, options, output: Path, times: int, rng: random.Random
) -> tuple[int, bool]:
    """Kills a run at random moments, and starts it again, until it ends; how often, and whether it is the same.

    Args:
        whole: the same run without a kill.
        seconds: that it took.
        small, options, output: of the run.
        times: kills at most.
        rng: draws the moments.
    """
    killed, run = 0, Run(output, small, *options)
    while killed < times:
        run.process.join(rng.uniform(0, seconds))
        if not run.process.is_alive():
            break
        run.process.kill()
        run.process.join()
        killed += 1
        if output.exists():
            assert damage(output) == ""  # it is whole, or not there
            break
        run = Run(output, small, *options)
    if not output.exists():
        run.finish()
    same = same_model(run, whole)
    shutil.rmtree(output)
    shutil.rmtree(unfinished(output), ignore_errors=True)
    return killed, same


def test_killed_at_random_moments_it_is_the_same_run(early, small, tmp_path):
    whole, seconds = early
    assert kill_often(whole, seconds, small, EARLY, tmp_path / "model", 3, random.Random(0))[1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [SHORT, EARLY])
def test_twenty_kills(options, small, tmp_path):
    whole, killed, rng = Run(tmp_path / "whole", small, *options), 0, random.Random(1)
    seconds = finish_in(whole)
    while killed < 20:
        more, same = kill_often(whole, seconds, small, options, tmp_path / "model", 4, rng)
        killed += more
        print(f"{killed} kills, identical: {same}", flush=True)
        assert same


# --- Damaged -------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def pickled(path: Path) -> None:
    path.write_bytes(b"cos\nsystem\n(S'touch /tmp/ran'\ntR.")


@pytest.mark.parametrize("spoil", [empty, cut, zeroed, flipped, pickled, Path.unlink])
def test_each_file_of_a_checkpoint(spoil, damaged):
    newest, record = damaged / "checkpoint-12", json.loads((damaged / "checkpoint-12" / "run.json").read_text("utf-8"))
    names = sorted(path.name for path in newest.iterdir())
    assert {
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "run.json",
        "config.json",
        "tokenizer.json",
        "training_args.bin",
        MARKER,
    } <= set(names)
    for name in names:
        said, kept = [], (newest / name).read_bytes()
        spoil(newest / name)
        if read_marker(newest) is None:  # then nothing says that it is ours
            with pytest.raises(InputError, match=r"checkpoint-12 is in the way .* move it away"):
                find_start(damaged, record, False, said.append)
        else:
            copy = shutil.copytree(newest, damaged.parent / "copy")
            assert find_start(damaged, record, False, said.append) == damaged / "checkpoint-8"
            assert not newest.exists()  # the run will write it again
            copy.rename(newest)
        assert len(said) == 1 and "checkpoint-12 is passed over" in said[0], (name, said)
        (newest / name).write_bytes(kept)
        assert damage(newest) == ""


def test_a_damaged_best_checkpoint(damaged):
    record, said = json.loads((damaged / "checkpoint-12" / "run.json").read_text("utf-8")), []
    assert json.loads((damaged / "checkpoint-12" / "trainer_state.json").read_text("utf-8"))["best_global_step"] == 4
    flipped(damaged / "checkpoint-4" / "model.safetensors")
    with pytest.raises(InputError, match=r"no checkpoint .* is whole .* the best checkpoint until then"):
        find_start(damaged, record, False, said.append)
    assert len(said) == 3
    before = listing(damaged)
    assert before == listing(damaged)
    assert find_start(damaged, record, True, said.append) is None


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(overwrite, finished, small, damaged):
    flipped(damaged / "checkpoint-12" / "optimizer.pt")
    if overwrite:
        (damaged / "checkpoint-8" / "trainer_state.json").write_text("{", encoding="utf-8")
    run = Run(damaged.with_name("model"), small, *SHORT, *overwrite).finish()
    assert "checkpoint-12 is passed over: optimizer.pt was changed or damaged" in run.text
    assert f"resuming    {damaged}/checkpoint-{4 if overwrite else 8}" in run.text
    assert same_model(run, finished)


def test_with_no_whole_checkpoint_it_says_what_to_do(capsys, small, damaged):
    for step in (4, 8, 12):
        zeroed(damaged / f"checkpoint-{step}" / "model.safetensors")
    before = {name: digest for name, digest in listing(damaged).items() if name.startswith("checkpoint")}
    line = refused(capsys, *told(small, damaged.with_name("model"), *SHORT))
    assert "no checkpoint in" in line and "begin again with --overwrite" in line
    after = {name: digest for name, digest in listing(damaged).items() if name.startswith("checkpoint")}
    assert before == after
    run = Run(damaged.with_name("model"), small, *SHORT, "--overwrite", "--max-steps=1").finish()
    assert run.metrics["measured"]["steps"] == 1


# --- Not its own ---------------------------------------------------------------------------------


def surround(folder: Path) -> dict[str, str]:
    """Files and folders of somebody else, with names that are close."""
    for name in (
        "model.old",
        "model.tmp",
        "model.unfinished.old",
        "other.unfinished",
        ".model.every-parameter",
        "mine",
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_text("mine", encoding="utf-8")
    (folder / "model.csv").write_text("mine", encoding="utf-8")
    (folder / "model.log").symlink_to(folder / "mine")
    return listing(folder)


def unchanged(folder: Path, before: dict[str, str]) -> bool:
    after = listing(folder)
    return {name: after.get(name) for name in before} == before


def test_what_stands_beside_it_stays(small, tmp_path):
    """Whether it ends well, is asked to stop, or is killed; and what somebody put into its own folder stays."""
    before = surround(tmp_path)
    run = Run(tmp_path / "model", small, *SHORT, slow=0.1)
    kill(run, 4)
    assert unchanged(tmp_path, before)
    (run.work / "notes.txt").write_text("mine", encoding="utf-8")
    before |= {"model.unfinished/notes.txt": hashlib.sha256(b"mine").hexdigest()}
    if os.name != "nt":
        run = Run(run.output, small, *SHORT, slow=0.1)
        run.wait(until=lambda: "step 8" in run.text)
        os.kill(run.process.pid, signal.SIGTERM)
        run.refusal(code=128 + signal.SIGTERM)
        assert unchanged(tmp_path, before)
    run = Run(run.output, small, *SHORT).finish()
    assert unchanged(tmp_path, before)
    assert "model.unfinished stays: it holds notes.txt" in run.text
    assert {path.name for path in run.work.iterdir() if path.name[0] != "."} == {"notes.txt"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [".model.every-parameter"]


def foreign_folder(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("mine", encoding="utf-8")


def foreign_link(path: Path) -> None:
    target = path.parent / "elsewhere"
    foreign_folder(target)
    path.symlink_to(target)


def foreign_file(path: Path) -> None:
    path.write_text("mine", encoding="utf-8")


def copied_marker(path: Path) -> None:
    """Somebody's folder of another kind, which has a marker."""
    claim(path, "evaluation")
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    seal(path)


@pytest.mark.parametrize("make", [foreign_folder, foreign_link, foreign_file, copied_marker])
@pytest.mark.parametrize("place", ["model.unfinished", "model"])
@pytest.mark.parametrize("more", [(), ("--overwrite",), ("--overwrite", "--data=none.csv")])
def test_what_is_in_the_way_is_named_and_stays(make, place, more, capsys, small, tmp_path):
    make(tmp_path / place)
    before = listing(tmp_path)
    assert f"{tmp_path / place} " in refused(capsys, *told(small, tmp_path / "model", *SHORT, *more))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("make", [foreign_folder, foreign_link, foreign_file])
def test_what_is_in_the_way_inside_stays(make, capsys, small, tmp_path):
    """Where the prepared data would be, and where a checkpoint would be."""
    work = claim(tmp_path / "model.unfinished", KIND)
    for name in ("data", "checkpoint-4"):
        make(work / name)
        before = listing(tmp_path)
        line = refused(capsys, *told(small, tmp_path / "model", *SHORT))
        assert f"{work / name} " in line
        assert unchanged(tmp_path, before)
        (work / name).rename(tmp_path / name)
        if (work / "elsewhere").exists():
            (work / "elsewhere").rename(tmp_path / f"elsewhere of {name}")


def test_a_finished_model_that_somebody_worked_on_is_not_replaced(capsys, finished, small, tmp_path):
    for change in ("README.md", "notes.txt"):
        model = Path(shutil.copytree(finished.output, tmp_path / "model"))
        with (model / change).open("a", encoding="utf-8") as file:
            file.write("mine")
        before = listing(tmp_path)
        assert change in refused(capsys, *told(small, tmp_path / "model", "--overwrite"))
        assert listing(tmp_path) == before
        shutil.rmtree(model)


def test_overwrite_replaces_a_model_of_ours(finished, small, tmp_path):
    model = Path(shutil.copytree(finished.output, tmp_path / "model"))
    run = Run(model, small, *SHORT, "--max-steps=1", "--overwrite").finish()
    assert run.metrics["measured"]["steps"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_place_that_was_taken_meanwhile(small, tmp_path):
    run = Run(tmp_path / "model", small, *SHORT, "--max-steps=4", slow=0.2)
    run.wait(until=lambda: (run.work / "data" / "facts.json").exists())
    foreign_folder(run.output)
    line = run.refusal()
    assert "model holds other things: name a new directory" in line
    assert (run.output / "notes.txt").read_text("utf-8") == "mine"
    shutil.rmtree(run.output)
    run = Run(run.output, small, *SHORT, "--max-steps=4").finish()  # and the work is not lost
    assert "its training was over" in run.text
    assert not draft_of(run.output).exists()


def test_labels_are_shown_without_their_terminal_codes(small, tmp_path):
    rows = [
        [f"Text {i} of {'one' if i % 2 else 'another'} kind", ["good", "\x1b[31mbad\x1b]0;x\x07"][i % 2]]
        for i in range(40)
    ]
    run = Run(tmp_path / "model", write_csv(small.with_name("a.csv"), rows), "--max-steps=1").finish()
    assert "\\x1b[31mbad" in run.text and "\x1b[31m" not in run.text.replace("\x1b[A", "")
    assert "\x1b" not in (run.output / "README.md").read_text("utf-8")
