"""site/fits.py, what the page "Does it fit?" shows: the figures of helpers.memory, and advice that holds."""

import importlib
import json
import random
import subprocess
import sys
import tomllib

import build
import pytest

import helpers.memory
from helpers.flops import GPUS
from helpers.memory import KNOWN_MODELS, METHODS, PRECISIONS, estimate
from helpers.profiles import ROOT


@pytest.fixture(scope="module")
def fits():
    sys.path.insert(0, str(ROOT / "site"))
    import fits

    yield fits
    sys.path.remove(str(ROOT / "site"))


def random_run(fits, draw: random.Random):
    return fits.Run(
        model=draw.choice(list(KNOWN_MODELS)),
        card=draw.choice(list(GPUS)),
        task=draw.choice(["causal-lm", "sequence-classification"]),
        method=draw.choice(METHODS),
        precision=draw.choice(PRECISIONS),
        optim=draw.choice(["adamw_torch_fused", "adamw_8bit", "sgd"]),
        per_device_train_batch_size=draw.choice([1, 2, 3, 16, 64]),
        sequence_length=draw.choice([64, 128, 512]),
        num_gpus=draw.choice([1, 4]),
        sharding=draw.choice(["ddp", "zero2", "fsdp"]),
        activation_checkpointing=draw.random() < 0.5,
        padded=draw.random() < 0.5,
    )


def settings_of(run) -> dict:
    """What the dials say, in the keywords of `estimate`, written out once more."""
    words = ("task", "method", "precision", "optim", "attn_implementation", "per_device_train_batch_size")
    words += ("sequence_length", "num_gpus", "activation_checkpointing", "padded")
    return {word: getattr(run, word) for word in words} | {"sharding": run.sharding if run.num_gpus > 1 else "ddp"}


def test_the_page_shows_what_estimate_says(fits):
    draw, right, wrong = random.Random(0), 0, 0
    for _ in range(300):
        run = random_run(fits, draw)
        shown = json.loads(fits.as_json(fits.answer, json.dumps(fits.asdict(run))))
        try:
            expected = estimate(run.model, **settings_of(run))
        except ValueError as error:
            assert shown["error"] == str(error)
            wrong += 1
            continue
        assert not shown["error"] and shown["peak"] == expected.peak_bytes and shown["instants"] == expected.instants
        assert shown["peak_instant"] == expected.peak_instant
        right += 1
    assert right > 150 and wrong > 10


def test_the_advice_holds(fits):
    draw = random.Random(1)
    for _ in range(60):
        run = random_run(fits, draw)
        if fits.answer(run).error:
            continue
        settings, room = settings_of(run), GPUS[run.card].memory * 1e9 - fits.HELD_BACK
        rows = fits.advice(run).largest_batch

        def peak(rows: int, run=run, settings=settings) -> int:
            return estimate(run.model, **settings | {"per_device_train_batch_size": rows}).peak_bytes

        assert rows == 0 or peak(rows) <= room
        assert rows == fits.MOST_ROWS or peak(rows + 1) > room
        for change in fits.advice(run).changes:
            assert change.peak < fits.answer(run).peak and change.fits == (change.peak <= room)


def test_a_pasted_config_and_nonsense(fits):
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 100, "n_positions": 512}
    assert (
        fits.answer(fits.Run(config=json.dumps(config))).peak == estimate(config, **settings_of(fits.Run())).peak_bytes
    )
    for text in ("{", "[]", "5", '{"model_type": 5}', '{"model_type": "gpt2"}', "null"):
        assert fits.answer(fits.Run(config=text)).error
    assert "batch_size" in fits.answer(fits.Run(per_device_train_batch_size=0)).error


def test_the_command_people_can_type():
    """`does-it-fit` is what `python -m helpers.memory` is."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    module, function = scripts["does-it-fit"].split(":")
    assert getattr(importlib.import_module(module), function) is helpers.memory.main


def test_nothing_heavy_is_imported():
    code = "import fits, sys; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "site", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_page_brings_all_files_that_its_python_imports(tmp_path):
    """In the browser there are these files and Python's own library, nothing else."""
    for path in (path for name in build.OUR_FILES for path in ROOT.glob(name)):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(tmp_path / 'site')!r}]; import fits; print(fits.__file__)"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(tmp_path))
