"""Checkpoints of the programs for several processes, spoilt in every way: passed over or refused, never run, never
taken silently; and what others put beside them stays."""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from program_run import DAMAGES, Payload, Run, listing, pickled, pickled_by_torch, slow_steps
from small_models import write_small_model

from takehome.checkpoints import MARKER, checkpoints, read_marker, seal
from takehome.errors import InputError
from takehome.runs import open_run

PRETRAINING = [
    "--config-overrides=n_layer=2,n_embd=32,n_head=2",
    "--sequence-length=32",
    "--per-device-train-batch-size=2",
    "--max-steps=12",
    "--eval-steps=12",
    "--save-steps=3",
    "--logging-steps=1",
    "--validation-documents=5",
    "--shuffle-buffer=50",
]
KINDS = {"pretrain_gpt2": "pretraining run", "mrpc_accelerate": "MRPC run"}


@dataclass
class Interrupted:
    """A run that was killed: its folder has two checkpoints or more."""

    program: str
    folder: Path
    words: list[str]
    processes: int

    def again(self, folder: Path, *more: str) -> Run:
        return Run(self.program, folder, *self.words, *more, processes=self.processes)


def interrupt(program: str, folder: Path, words: list[str], processes: int) -> Interrupted:
    run = Run(program, folder, *words, processes=processes, change=(slow_steps, 0.1))
    run.wait(until=lambda: len(checkpoints(folder)) == 2)
    assert run.kill(), run.text
    return Interrupted(program, folder, words, processes)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Pretraining on two processes."""
    return interrupt("pretrain_gpt2", tmp_path_factory.mktemp("two") / "run", PRETRAINING, 2)


@pytest.fixture(scope="module")
def mrpc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mrpc")
    model = write_small_model(folder / "small", "bert")
    sizes = f'[mrpc]\nmax_train_samples = 160\nmax_eval_samples = 20\ncheckpoint = "{model}"\n'
    (folder / "small.toml").write_text(f'inherits = "reduced"\n{sizes}', encoding="utf-8")
    words = [f"--profile={folder / 'small.toml'}", "--save-steps=2", "--max-steps=12"]
    return interrupt("mrpc_accelerate", folder / "run", words, 1)


@pytest.fixture(params=["two", "mrpc"])
def interrupted(request, tmp_path):
    """Each of them, in a folder of its own."""
    made = request.getfixturevalue(request.param)
    folder = shutil.copytree(made.folder, tmp_path / "run")
    return Interrupted(made.program, folder, made.words, made.processes)


def start_of(run: Interrupted, said: list[str]) -> Path | None:
    with open_run(run.folder, KINDS[run.program], False, False, said.append) as start:
        return start


@pytest.mark.parametrize("damage", [*DAMAGES, pickled_by_torch], ids=lambda damage: damage.__name__)
def test_each_file_spoilt_is_passed_over_and_the_last_one_refused(interrupted, damage):
    older, newer = checkpoints(interrupted.folder)[-2:]
    files = sorted(path.name for path in newer.iterdir())
    assert files == sorted([MARKER, "state.json", *(f"process-{n}.safetensors" for n in range(interrupted.processes))])
    for name in files:
        before, said = (newer / name).read_bytes(), []
        damage(newer / name)
        assert start_of(interrupted, said) == older, name
        assert len(said) == 1 and newer.name in said[0] and (name in said[0] or name == MARKER)
        (newer / name).write_bytes(before)
    said = []
    assert start_of(interrupted, said) == newer and not said
    for path in checkpoints(interrupted.folder):
        damage(path / files[-1])
    with pytest.raises(InputError, match=r"no checkpoint in .* is whole .*--overwrite"):
        start_of(interrupted, said)
    assert not (interrupted.folder / "executed").exists()


def test_an_unknown_key_in_the_state_is_a_change(interrupted):
    older, newer = checkpoints(interrupted.folder)[-2:]
    state = json.loads((newer / "state.json").read_text(encoding="utf-8"))
    (newer / "state.json").write_text(json.dumps(state | {"more": 1}), encoding="utf-8")
    assert start_of(interrupted, []) == older


def test_from_the_checkpoint_before_it_comes_to_the_same_end(interrupted):
    whole = interrupted.again(shutil.copytree(interrupted.folder, interrupted.folder.with_name("whole"))).finish()
    older, newer = checkpoints(interrupted.folder)[-2:]
    DAMAGES[3](newer / f"process-{interrupted.processes - 1}.safetensors")
    run = interrupted.again(interrupted.folder).finish()
    resumed = f"{older}, at" if interrupted.program == "pretrain_gpt2" else f"from step {older.name[11:]} "
    assert f"{newer} is passed over" in run.text and resumed in run.text
    weights = Path("model") / "model.safetensors"
    assert (run.folder / weights).read_bytes() == (whole.folder / weights).read_bytes()


# --- Made by a stranger, so that the digests agree -----------------------------------------------

UNPICKLED_BY_ACCELERATE = [
    "random_states_0.pkl",
    "custom_checkpoint_0.pkl",
    "optimizer.bin",
    "scheduler.bin",
    "scaler.pt",
    "sampler.bin",
    "pytorch_model.bin",
    "pytorch_model_fsdp_0/.metadata",
    "optimizer_0/.metadata",
    "pytorch_model/mp_rank_00_model_states.pt",
]


def reseal(folder: Path) -> None:
    """Makes the digests agree with what is there now."""
    (folder / MARKER).write_text(json.dumps({"kind": "checkpoint", "files": None}), encoding="utf-8")
    seal(folder)


def changed_state(**changes):
    def change(folder: Path) -> None:
        path = folder / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return change


STRANGE = {
    "pickled tensors": lambda folder: pickled(folder / "process-0.safetensors"),
    "pickled tensors of torch": lambda folder: pickled_by_torch(folder / "process-0.safetensors"),
    "pickled state": lambda folder: pickled(folder / "state.json"),
    "unknown key": changed_state(more=1),
    "step is a text": changed_state(step="3"),
    "no progress": changed_state(progress={}),
    "another progress": changed_state(progress={"position": {"epoch": "x"}, "losses": 3}),
    "no tensors": lambda folder: (folder / "process-0.safetensors").unlink(),
}


MANY = ("unknown key", "step is a text", "no progress", "no tensors")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in MANY)) for kind in STRANGE])
def test_a_strangers_checkpoint_is_refused_and_nothing_in_it_runs(interrupted, kind):
    newest = checkpoints(interrupted.folder)[-1]
    STRANGE[kind](newest)
    reseal(newest)
    said = interrupted.again(interrupted.folder).refusal()
    assert newest.name in said and "is not what this program writes" in said and "--overwrite" in said
    assert not (interrupted.folder / "executed").exists()


def test_pickles_under_the_names_that_accelerate_reads_are_not_read(interrupted):
    newest = checkpoints(interrupted.folder)[-1]
    for name in UNPICKLED_BY_ACCELERATE:
        (newest / name).parent.mkdir(exist_ok=True)
        (newest / name).write_bytes(pickle.dumps(Payload(interrupted.folder / "executed")))
    reseal(newest)
    run = interrupted.again(interrupted.folder).finish()
    assert not (run.folder / "executed").exists() and (run.folder / "model").is_dir()


# --- What others put there -----------------------------------------------------------------------


def test_what_others_put_into_the_folder_stays(interrupted):
    folder = interrupted.folder
    for name in ("model.old", "model.tmp", "checkpoint-best", "checkpoint-6.draft", "checkpoint-x", "checkpoint-10"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
        (folder / name / "weights").write_text("mine", encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    theirs = {name: text for name, text in listing(folder).items() if "weights" in name or name == "notes.txt"}
    assert len(theirs) == 7
    run = interrupted.again(folder).finish()
    assert listing(folder).items() >= theirs.items()
    assert len(checkpoints(folder)) == 2 and read_marker(folder / "model").kind == "model"
    again = interrupted.again(folder, "--overwrite").finish()
    assert listing(folder).items() >= theirs.items() and again.folder == run.folder
