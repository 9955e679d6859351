"""scripts/pretrain_gpt2.py: what it reads, what survives a kill, what it refuses, and that its launchers agree.

Most runs are forked from a process that has imported torch already: a real process, killed with a real SIGKILL, that
starts in a moment.
"""

import importlib.util
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import program_run
import pytest
import warm

from helpers.profiles import ROOT, load_profile

load_profile("reduced")  # offline, before any library is imported
import pretrain_gpt2  # noqa: E402
import pretraining_speed  # noqa: E402

from takehome import checkpoints  # noqa: E402
from takehome.tokens import Position, TokenStream  # noqa: E402

CORPUS = str(ROOT / "data" / "openwebtext")
TINY = [
    "--config-overrides=n_layer=2,n_embd=32,n_head=2",
    "--sequence-length=32",
    "--per-device-train-batch-size=4",
    "--max-steps=24",
    "--eval-steps=12",
    "--save-steps=3",
    "--logging-steps=1",
    "--validation-documents=8",
    "--shuffle-buffer=50",
]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def die_while_writing(call: int) -> None:
    """In the program's process: SIGKILL when a file of a checkpoint is to reach the disk for the n-th time."""
    sync, left = checkpoints.sync, iter(range(call, 0, -1))

    def counted(path):
        if next(left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    checkpoints.sync = counted


def small_disk(folder: str, size: int) -> None:
    """In the program's process: a disk of so many bytes at a folder, which it lists at the end."""
    warm.mount_disk(Path(folder), size)
    main = pretrain_gpt2.main

    def main_and_list(words):
        try:
            return main(words)
        finally:
            print("left behind:", sorted(path.name for path in Path(folder).rglob("*")), flush=True)

    pretrain_gpt2.main = main_and_list


class Run(program_run.Run):
    """The program, started in one or two processes."""

    def __init__(self, folder, *words, **more):
        super().__init__("pretrain_gpt2", folder, *TINY, *words, **more)

    @property
    def log(self) -> list[dict]:
        """What has been written so far, a line that is being written left out."""
        path = self.folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def steps(self) -> list[tuple]:
        """(step, loss, rate, position) for each step; the validation lines among them."""
        return [tuple((k, str(v)) for k, v in line.items() if k != "tokens_per_second") for line in self.log]

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.log if "loss" in line]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("pretrain") / "uninterrupted", forecast=True).finish()


HALF = "--per-device-train-batch-size=2"


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Run:
    """The same on two processes, with half a batch each."""
    told = (program_run.tell_what_is_left,)
    return Run(tmp_path_factory.mktemp("pretrain") / "two", HALF, processes=2, change=told).finish()


# --- The stream ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(load_profile("reduced").openwebtext.checkpoint)


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    """Three shards of 40, 30 and 50 short documents, among them an empty one, and one longer than several blocks."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("corpus")
    texts = [f"Document {i} tells of {i * 7} ships." for i in range(120)]
    texts[50], texts[77] = "", "A long tale. " * 100
    for number, (first, last) in enumerate([(0, 40), (40, 70), (70, 120)]):
        Dataset.from_dict({"text": texts[first:last]}).to_parquet(folder / f"train-{number}.parquet")
    return folder, texts


def make_stream(corpus, tokenizer, *arguments):
    told = ["--output-dir=unused", f"--dataset={corpus}", "--validation-documents=5", "--shuffle-buffer=16"]
    return TokenStream(pretrain_gpt2.parse_arguments([*told, *arguments]).corpus, tokenizer)


def take(stream, tokens: int, start=None, rows=2, length=16) -> tuple[list[int], list]:
    """Returns at least so many tokens in the order of the stream, and (tokens before it, position) after each batch."""
    ids, positions = [], []
    for batch, position in stream.blocks(rows, length, start or Position()):
        assert batch.shape == (rows, length + 1)
        assert (batch[:-1, -1] == batch[1:, 0]).all()  # the last label of a row is the first token of the next
        ids += batch[:, :-1].flatten().tolist()
        positions.append((len(ids), position))
        if len(ids) >= tokens:
            return ids, positions


def test_an_epoch_holds_every_document_once_and_every_token(small_corpus, tokenizer):
    folder, texts = small_corpus
    stream = make_stream(folder, tokenizer)
    expected = [ids.tolist() for ids in stream.encode(texts[5:])]
    count = sum(map(len, expected))
    ids, _ = take(stream, 2 * count + 100)
    epochs = [ids[:count], ids[count : 2 * count]]
    for epoch in epochs:
        found, document = [], []
        for token in epoch:
            document.append(token)
            if token == tokenizer.eos_token_id:
                found.append(document)
                document = []
        assert not document  # an epoch ends with a document's end: nothing is dropped
        assert sorted(found) == sorted(expected)
    assert epochs[0] != epochs[1]  # in another order


def test_the_stream_goes_on_from_any_position(small_corpus, tokenizer):
    ids, positions = take(make_stream(small_corpus[0], tokenizer), 5000)
    for done, position in positions[:: len(positions) // 12]:
        again, _ = take(make_stream(small_corpus[0], tokenizer), 320, position)
        assert again == (ids + again)[done : done + len(again)] or done + len(again) > len(ids)
    assert len({position.epoch for _, position in positions}) > 1
    assert any(position.token > 16 for _, position in positions)


def test_the_order_depends_on_the_seed_and_validation_is_held_out(small_corpus, tokenizer):
    first, _ = take(make_stream(small_corpus[0], tokenizer), 1000)
    other, _ = take(make_stream(small_corpus[0], tokenizer, "--seed=1"), 1000)
    assert first != other
    stream = make_stream(small_corpus[0], tokenizer)
    held = [token for ids in stream.encode(small_corpus[1][:5]) for token in ids.tolist()]
    assert stream.validation_blocks(16)[:, :-1].flatten().tolist() == held[: (len(held) - 1) // 16 * 16]


@pytest.mark.parametrize("suffix", ["jsonl", "txt", "csv"])
def test_other_files_are_read(suffix, tmp_path, tokenizer):
    from datasets import Dataset

    texts = [f"Line {i} of the file." for i in range(40)]
    path = tmp_path / f"corpus.{suffix}"
    if suffix == "txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    else:
        data = Dataset.from_dict({"text": texts})
        data.to_json(path) if suffix == "jsonl" else data.to_csv(path)
    stream = make_stream(path, tokenizer, "--shuffle-buffer=1")
    expected = [token for ids in stream.encode(texts[5:]) for token in ids.tolist()]
    ids, _ = take(stream, 200)
    assert ids[:200] == expected[:200]


# --- Training ------------------------------------------------------------------------------------


def test_it_says_what_it_will_take_learns_and_saves_a_model(uninterrupted):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for told in ("parameters", "24 steps of 128 tokens: 3,072 tokens", "GB a process, predicted", "tokens/s"):
        assert told in uninterrupted.text
    losses = uninterrupted.losses
    assert len(losses) == 24
    assert abs(losses[0] - math.log(4096)) < 0.2  # a random model guesses evenly
    assert losses[-1] < losses[0] - 0.3
    model = AutoModelForCausalLM.from_pretrained(uninterrupted.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(uninterrupted.folder / "model")
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert f"model       {model.num_parameters():,} parameters" in uninterrupted.text

    stream = make_stream(CORPUS, tokenizer, "--validation-documents=8")
    blocks = stream.validation_blocks(32)
    with torch.no_grad():
        logits = model(blocks[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten()).item()
    last = uninterrupted.log[-1]
    assert loss == pytest.approx(last["eval_loss"], abs=1e-4)
    assert last["perplexity"] == pytest.approx(math.exp(loss), rel=1e-3)


def test_its_loss_is_that_of_transformers(tokenizer):
    """The head in parts, with its gradients made beforehand, changes nothing, nor does the other GELU."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from takehome.gpt2 import build_config, build_model

    config = build_config(pretrain_gpt2.parse_arguments(["--output-dir=unused", *TINY]).shape, tokenizer)
    model = build_model(config)
    plain = GPT2LMHeadModel(GPT2Config(**{**config.to_dict(), "activation_function": "gelu_new"}))
    plain.load_state_dict(model.state_dict())
    ids = torch.randint(0, 4096, (40, 33))
    loss, expected = model(ids), plain(input_ids=ids, labels=ids).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for each in (loss, expected):
        each.backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(parameter.grad, other.grad, atol=1e-5), name
    with torch.no_grad():
        assert model(ids).item() == loss.item()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        in_bf16 = model(ids)
    (2 * in_bf16).backward()  # a factor, as accumulation has one
    assert in_bf16.item() == pytest.approx(expected.item(), abs=1e-2)
    head, other = model.lm_head.weight.grad / 2, plain.lm_head.weight.grad
    assert (head - other).norm() < 0.02 * other.norm()


def test_attention_in_bf16_on_a_cpu():
    """Step by step it is what torch's kernel makes of the same numbers in fp32, but for rounding."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    import takehome.gpt2  # noqa: F401 (which registers it)

    attend = ALL_ATTENTION_FUNCTIONS["causal"]
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 40, 16, requires_grad=True) for _ in "qkv"]
    slope, gradients, mixed = torch.randn(2, 40, 3, 16), {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        mixed[dtype] = attend(None, *(part.to(dtype) for part in parts), None)[0].float()
        gradients[dtype] = torch.autograd.grad((mixed[dtype] * slope).sum(), parts)
    for one, other in zip(*([mixed[dtype], *gradients[dtype]] for dtype in gradients), strict=True):
        assert (one - other).norm() < 0.01 * one.norm()
    later = [part.detach().bfloat16().index_fill(2, torch.arange(20, 40), 9.0) for part in parts]
    assert torch.equal(attend(None, *later, None)[0].float()[:, :20], mixed[torch.bfloat16][:, :20])


def test_two_processes_take_the_same_steps_as_one(uninterrupted, two):
    assert two.text.count("models left: 0") == 2  # a model that goes last can hang the process at its end
    assert [line.get("position") for line in two.log] == [line.get("position") for line in uninterrupted.log]
    assert two.losses == pytest.approx(uninterrupted.losses, abs=1e-4)
    assert two.log[-1]["eval_loss"] == pytest.approx(uninterrupted.log[-1]["eval_loss"], abs=1e-4)


def test_accumulation_checkpointing_and_bf16_change_the_cost_not_the_course(uninterrupted, tmp_path):
    short = ["--save-steps=100"]
    parts = Run(tmp_path / "parts", "--per-device-train-batch-size=1", "--gradient-accumulation-steps=4", *short)
    parts.finish()
    assert parts.losses == pytest.approx(uninterrupted.losses, abs=1e-4)
    cheap = Run(tmp_path / "cheap", "--activation-checkpointing", "--mixed-precision=bf16", *short).finish()
    assert cheap.losses == pytest.approx(uninterrupted.losses, abs=0.05)
    assert cheap.losses != uninterrupted.losses


def test_muon_learns_and_resumes(tmp_path):
    arguments = ["--optim=muon", "--logging-steps=4"]
    whole = Run(tmp_path / "whole", *arguments).finish()
    run = Run(tmp_path / "killed", *arguments)
    run.wait(until=lambda: len(run.losses) >= 8)
    run.kill()
    assert Run(tmp_path / "killed", *arguments).finish().steps == whole.steps
    assert whole.losses[-1] < whole.losses[0] - 0.5


@pytest.mark.skipif(not installed("tensorboard"), reason="TensorBoard is not installed: the group `tracking`")
def test_tensorboard_shows_the_log(tmp_path):
    run = Run(tmp_path / "run", "--report-to=tensorboard", "--max-steps=6").finish()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run.folder / "tracking/pretrain_gpt2")).Reload()
    assert [event.step for event in shown.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in shown.Scalars("loss")] == pytest.approx(run.losses)
    assert shown.Scalars("perplexity")[-1].value == pytest.approx(run.log[-1]["perplexity"])


@pytest.mark.skipif(not installed("trackio"), reason="trackio is not installed: SETUP.md says how")
def test_trackio_shows_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = Run(tmp_path / "run", "--report-to=trackio", "--max-steps=6").finish()
    from trackio.sqlite_storage import SQLiteStorage

    shown = [line for line in SQLiteStorage.get_logs("pretrain_gpt2", "run") if "loss" in line]
    assert [line["loss"] for line in shown] == pytest.approx(run.losses)
    assert [line["step"] for line in shown] == [1, 2, 3, 4, 5, 6]


# --- Killed and resumed --------------------------------------------------------------------------


def drafts(folder: Path) -> list[Path]:
    return list(folder.glob(f".checkpoint-*{checkpoints.DRAFT}"))


def kill_while_training(run: Run, step: int) -> None:
    run.wait(until=lambda: len(run.losses) >= step)
    assert run.kill(), "it ended before it was killed"


def kill_while_writing(run: Run) -> None:
    """Waits for the kill between the first and the last byte of a second checkpoint, and kills the other process."""
    run.wait(until=lambda: not run.processes[0].is_alive())
    run.kill()
    assert run.statuses[0] == -signal.SIGKILL and drafts(run.folder) and checkpoints.checkpoints(run.folder)


def check_checkpoints(folder: Path) -> None:
    """Every checkpoint that has its name is whole."""
    for path in folder.glob("checkpoint-*"):
        assert checkpoints.damage(path) == ""
        assert json.loads((path / "state.json").read_text(encoding="utf-8"))["step"] == checkpoints.step_of(path)


def kill_and_resume(folder: Path, kills: list[str], processes: int, seed: int) -> tuple[Run, list]:
    """Kills and resumes; returns the run that finished and everything that all of them logged."""
    rng, logged = random.Random(seed), []
    batch = f"--per-device-train-batch-size={4 // processes}"
    for number, kind in enumerate(kills):
        dying = (die_while_writing, rng.choice([7, 8])) if kind == "writing" else None
        run = Run(folder, batch, processes=processes, change=dying)
        if kind == "writing":
            kill_while_writing(run)
        else:
            # Always a little further than the kill before, or it would never end.
            kill_while_training(run, min(23, 4 + number * 18 // len(kills) + rng.randrange(3)))
        logged += run.steps
        check_checkpoints(folder)
    run = Run(folder, batch, processes=processes).finish()
    assert "resuming" in run.text
    return run, logged + run.steps


def assert_nothing_happened(run: Run, logged: list, whole: Run) -> None:
    assert run.steps == whole.steps  # losses to the last bit, positions to the token
    assert set(logged) == set(whole.steps)  # also those that were computed and lost
    assert len(logged) > len(run.steps)
    assert (run.folder / "model" / "model.safetensors").read_bytes() == (
        whole.folder / "model" / "model.safetensors"
    ).read_bytes()
    assert not drafts(run.folder)


def test_killed_and_resumed_it_is_the_same_run(uninterrupted, tmp_path):
    run, logged = kill_and_resume(tmp_path / "killed", ["training", "writing"], processes=1, seed=1)
    assert_nothing_happened(run, logged, uninterrupted)


def test_two_processes_killed_while_writing_and_resumed(two, tmp_path):
    run, logged = kill_and_resume(tmp_path / "killed", ["writing"], processes=2, seed=2)
    assert_nothing_happened(run, logged, two)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ten_kills(processes, uninterrupted, two, tmp_path):
    whole = two if processes == 2 else uninterrupted
    run, logged = kill_and_resume(tmp_path / "killed", ["training", "writing"] * 5, processes, seed=3)
    assert_nothing_happened(run, logged, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_signals_end_a_step_of_all_processes_and_lose_nothing(two, tmp_path):
    """Ctrl-C, SIGTERM and SIGHUP, one after the other; only one of two processes gets them."""
    seen, slow = 0, (program_run.slow_steps, 0.1)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name)
        run = Run(tmp_path / "run", HALF, "--save-steps=24", processes=2, change=slow)
        run.wait(until=lambda run=run, seen=seen: len(run.losses) >= seen + 2)
        os.kill(run.processes[1].pid, number)
        assert run.statuses == [128 + number] * 2, run.text
        assert "Traceback" not in run.text and run.text.count("stopped     after step") == 1
        seen = len(run.losses)
        assert checkpoints.step_of(checkpoints.checkpoints(run.folder)[-1]) == seen < 24
    assert Run(tmp_path / "run", HALF, processes=2).finish().steps == two.steps


@pytest.mark.slow
def test_twenty_kills_at_random_moments(uninterrupted, tmp_path):
    killed = number = 0
    while killed < 20:
        folder = tmp_path / str(number)
        killed += program_run.kill_at_random_moments(lambda folder=folder: Run(folder), "validation ", 1.0, 4, number)
        run = Run(folder).finish()
        assert run.steps == uninterrupted.steps and not drafts(folder)
        model = Path("model") / "model.safetensors"
        assert (folder / model).read_bytes() == (uninterrupted.folder / model).read_bytes()
        number += 1
    print(f"\n{killed} kills of {number} runs, all came to the same end")


def test_old_checkpoints_go_and_a_finished_run_stays_finished(uninterrupted):
    assert sorted(p.name for p in uninterrupted.folder.glob("checkpoint-*")) == ["checkpoint-21", "checkpoint-24"]
    steps = uninterrupted.steps
    assert Run(uninterrupted.folder).finish().steps == steps


# --- Bad input -----------------------------------------------------------------------------------


def write_shards(folder: Path, texts: list, column: str = "text") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for number in range(2):
        pq.write_table(pa.table({column: texts}), folder / f"train-{number}.parquet")
    return folder


def bad_corpus(kind: str, folder: Path) -> tuple[Path, str]:
    """Makes a corpus with one thing wrong, and returns it with what the error must say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"Text {i} is about nothing in particular." for i in range(60)]
    if kind == "no text column":
        return write_shards(folder, texts, "body"), "no column 'text'; it has body"
    corpus = write_shards(folder, texts)
    shard = corpus / "train-1.parquet"
    if kind == "empty shard":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), shard)
        return corpus, "train-1.parquet holds no documents"
    if kind == "no bytes":
        shard.write_bytes(b"")
        return corpus, "train-1.parquet cannot be read"
    if kind == "cut off":
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
        return corpus, "train-1.parquet cannot be read"
    if kind == "huge line":
        pq.write_table(pa.table({"text": [*texts[:30], "word " * 3_000_000]}), shard)
        return corpus, "document 30 has 15,000,000 characters"
    if kind == "null":
        pq.write_table(pa.table({"text": [*texts[:30], None]}), shard)
        return corpus, "document 30 is no text"
    assert kind == "not UTF-8"
    values = pa.array([*[text.encode() for text in texts[:30]], b"caf\xe9"], pa.binary())
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 31, values.buffers())}), shard)
    return corpus, "train-1.parquet cannot be read"


@pytest.mark.parametrize(
    "kind", ["no text column", "empty shard", "no bytes", "cut off", "huge line", "null", "not UTF-8"]
)
def test_a_bad_corpus_is_refused(kind, tmp_path):
    corpus, expected = bad_corpus(kind, tmp_path / "corpus")
    run = Run(tmp_path / "run", f"--dataset={corpus}", "--save-steps=100", "--eval-steps=100")
    assert expected in run.refusal()
    assert not list(run.folder.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sequence-length=257"], "the model has 256 positions"),
        (["--dataset=no/such/corpus"], "--dataset no/such/corpus cannot be read"),
        (["--model=" + str(ROOT / "data/models/bert")], "not a GPT-2"),
        (["--config-overrides=layers=2"], "layers is not a number of GPT2Config"),
        (["--config-overrides=n_layer=2,n_embd=33,n_head=2"], "n_embd 33 is no multiple of n_head 2"),
        (["--config-overrides=n_layer=2,n_embd=1000000,n_head=2"], "of memory, there are"),
        (["--per-device-train-batch-size=100000", "--sequence-length=256"], "of memory, there are"),
        (["--validation-documents=100000"], "take fewer"),
        (["--learning-rate=1e9", "--max-grad-norm=1e9"], "lower --learning-rate"),
        pytest.param(
            ["--report-to=trackio"],
            "not installed; SETUP.md",
            marks=pytest.mark.skipif(installed("trackio"), reason="trackio is installed"),
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, expected, tmp_path):
    run = Run(tmp_path / "run", "--save-steps=100", "--eval-steps=100", *arguments)
    assert expected in run.refusal()
    assert not list(run.folder.glob("checkpoint-*"))


def test_a_checkpoint_of_another_configuration_is_refused(uninterrupted):
    before = sorted(uninterrupted.folder.rglob("*"))
    refusal = Run(uninterrupted.folder, "--sequence-length=64", "--seed=1").refusal()
    assert "sequence_length was 32, is 64" in refusal
    assert "seed was 42, is 1" in refusal
    assert sorted(uninterrupted.folder.rglob("*")) == before


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(uninterrupted, tmp_path):
    run = Run(tmp_path / "run", "--max-steps=24")
    run.wait(until=lambda: (run.folder / "checkpoint-3").exists())
    run.kill()
    run = Run(run.folder, change=(warm.limit_files, 300_000))
    assert "could not be written, what was there is untouched" in run.refusal()
    assert checkpoints.checkpoints(run.folder) and not drafts(run.folder)
    check_checkpoints(run.folder)
    assert Run(run.folder).finish().steps == uninterrupted.steps  # room was made: it goes on


def test_a_full_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    run = Run(
        folder / "run", change=(small_disk, str(folder), 5_000_000)
    )  # a checkpoint has 2 MB: there is no room for a third
    run.wait()
    if run.statuses == [77]:
        pytest.skip("mounting a small disk is not allowed here")
    assert "checkpoint-9 could not be written" in run.refusal()
    assert "MB are free" in run.refusal()
    left = run.text.split("left behind:")[1].splitlines()[0]
    assert "'checkpoint-3'" in left
    assert "'checkpoint-6'" in left
    assert "draft" not in left


# --- Launchers and speed -------------------------------------------------------------------------


def launch(folder: Path, *command: str) -> Run:
    """Runs the program as a reader does."""
    run = Run.__new__(Run)
    run.folder = folder
    batch = [HALF] if command else []
    told = [sys.executable, *command, str(ROOT / "scripts/pretrain_gpt2.py"), *TINY, *batch, f"--output-dir={folder}"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PATH": path}
    done = subprocess.run(
        [*told, "--max-steps=6"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run.output = Path(f"{folder}.out")
    run.output.write_text(done.stdout, encoding="utf-8")
    return run


def accelerate(file: str) -> list[str]:
    return ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "scripts/launch" / file)]


@pytest.mark.slow
def test_five_launchers_take_the_same_steps(tmp_path):
    python = launch(tmp_path / "python")
    others = {
        "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node=2"],
        "ddp": accelerate("ddp_cpu.yaml"),
        "fsdp2": accelerate("fsdp2_cpu.yaml"),
    }
    if installed("deepspeed"):
        others["zero2"] = accelerate("zero2_cpu.yaml")
    for name, command in others.items():
        run = launch(tmp_path / name, *command)
        assert "2 processes" in run.text
        assert [line.get("position") for line in run.log] == [line.get("position") for line in python.log], name
        assert run.losses == pytest.approx(python.losses, abs=1e-4 if name in ("torchrun", "ddp") else 1e-3), name
        kind = json.loads((run.folder / "checkpoint-6/state.json").read_text(encoding="utf-8"))["configuration"]
        assert kind["distributed_type"] == {"fsdp2": "FSDP", "zero2": "DEEPSPEED"}.get(name, kind["distributed_type"])
        shutil.copytree(run.folder, tmp_path / "again")
        shutil.rmtree(tmp_path / "again/checkpoint-6")
        again = launch(tmp_path / "again", *command)
        assert "resuming" in again.text
        assert again.steps == run.steps, name
        shutil.rmtree(tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("shape", pretraining_speed.SHAPES)
def test_speed(shape, precision):
    """Needs a quiet machine: pytest -m slow -s -k speed tests/test_pretrain_gpt2.py"""
    speeds, reading = pretraining_speed.compare_speed(shape, precision)
    ours = speeds["program"]
    print(
        f"\n{shape}, {precision}: transformers {speeds['transformers']:,.0f} tokens/s, plain torch "
        f"{speeds['torch']:,.0f}, program {ours:,.0f}: {ours / speeds['transformers']:.2f} and "
        f"{ours / speeds['torch']:.2f} times; reading, tokenising, packing {reading['alone']:.1%} of the step, "
        f"beside it {reading['beside']:.1%}"
    )
    assert ours / speeds["transformers"] >= (1.0 if shape == "124 M" else 1.1)
    assert ours / speeds["torch"] >= 1.0
    assert reading["alone"] < 0.05
