"""A stream under fire: whatever the network does, no row is lost, none comes twice, none is corrupt.

The stream is that of scripts/pretrain_gpt2.py, read from a Hub on loopback that misbehaves. The client's waits are
shortened two thousand times. As a program, `python tests/test_stream_faults.py [SEED ...]`, this file prints the table
of faults, and that of random sequences of faults from the seeds given.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from loopback_hub import Fault, Hub
from test_hub import environment, short

ROOT = Path(__file__).resolve().parent.parent
SHARDS, DOCUMENTS = 12, 30  # documents of a shard
ID = "course/corpus"
STALL, IMPATIENT, PATIENT = 0.6, 0.25, 30.0  # seconds: a silence, and how long the client bears one where it is tested

# What goes wrong with the n-th request for a part of a file (n from 1); what has no end goes on for ever.
FAULTS = {
    "none": lambda n: None,
    "503 for a while": lambda n: Fault(status=503) if 5 <= n < 8 else None,
    "429 with Retry-After": lambda n: Fault(status=429, retry_after=30) if n in (5, 6) else None,
    "connections dropped": lambda n: Fault(share=0.5) if n in (2, 5, 6, 9) else None,
    "connections stalled": lambda n: Fault(share=0.5, seconds=STALL) if n in (5, 8) else None,
    "outage, longer than the client tries": lambda n: Fault(status=503) if 6 <= n < 30 else None,
    "Range ignored once": lambda n: Fault(whole=True) if n == 7 else None,
    "Range ignored always": lambda n: Fault(whole=True),
    "file changes under way": lambda n: "changed" if n >= 7 else None,
    "404 in the middle": lambda n: Fault(status=404) if n >= 7 else None,
    "outage without end": lambda n: Fault(status=503) if n >= 7 else None,
}
STOPS = {  # what the error says; everything else goes through
    "file changes under way": "has changed on the server while it was read: name a revision",
    "404 in the middle": "404 Not Found",
    "outage without end": "503 Service Unavailable",
}
EXTRA = "Lesson 03's shuffled stream in an outage"


def random_fault(rng: random.Random):
    """One of the faults, or mostly none."""
    kinds = {
        **{Fault(status=503): 1, Fault(status=500): 1, Fault(status=429, retry_after=rng.randrange(60)): 1},
        **{Fault(whole=True): 1, Fault(share=rng.random()): 1, Fault(share=rng.random(), seconds=STALL): 0.5},
        **{Fault(status=404): 0.2, "changed": 0.2, None: 4},
    }
    return rng.choices(list(kinds), list(kinds.values()))[0]


def run_child(*seeds: int) -> dict[str, dict]:
    """Runs this file as a program, where the libraries are imported with the loopback Hub's address."""
    command = [sys.executable, __file__, "--json", *map(str, seeds)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return {row["fault"]: row for row in map(json.loads, outcome.stdout.splitlines())}


@pytest.fixture(scope="module")
def outcomes():
    return run_child(1, 2, 3)


@pytest.mark.parametrize("fault", [*FAULTS, EXTRA])
def test_no_row_is_lost_repeated_or_corrupt(outcomes, fault):
    row = outcomes[fault]
    assert (row["lost"], row["repeated"], row["corrupt"]) == (0, 0, 0)
    assert row["rows"] == row["of"] > 300
    if fault in STOPS:
        assert STOPS[fault] in row["stopped"] and "train-000" in row["stopped"] and row["before"] > 0
    else:
        assert row["stopped"] == ""
    assert (row["asked_again"] > 0) == (fault not in ("none", "Range ignored once", "Range ignored always"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_faults(outcomes, seed):
    check_random(outcomes[f"random, seed {seed}"])


@pytest.mark.slow
def test_twenty_random_sequences_of_faults():
    rows = run_child(*range(20))
    for seed in range(20):
        check_random(rows[f"random, seed {seed}"])


@pytest.mark.slow
def test_the_program_sits_out_an_outage_with_the_same_losses(tmp_path):
    """The real waits: the client gives up after 23 s, the program goes on when the server is back."""
    profile, losses, parts = short("full", tmp_path), {}, []

    def outage(method, path, headers):
        if method == "GET" and path.endswith(".parquet"):
            parts.append(path)
            return Fault(status=503) if 4 <= len(parts) < 14 else None

    for name, fault in (("calm", None), ("outage", outage)):
        with Hub(fault=fault) as hub:
            words = ["--profile", str(profile), "--output-dir", str(tmp_path / name), "--max-steps", "12"]
            words += ["--logging-steps", "1", "--validation-documents", "20"]
            env = environment(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache"))
            command = [sys.executable, "scripts/pretrain_gpt2.py", *words]
            outcome = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
        assert ("trying again in" in outcome.stderr) == (name == "outage"), outcome.stderr[-3000:]
        lines = map(json.loads, (tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines())
        losses[name] = [(line["step"], line.get("loss"), line.get("eval_loss")) for line in lines]
    assert len(parts) >= 14 and losses["calm"] == losses["outage"]


def check_random(row: dict) -> None:
    assert (row["lost"], row["repeated"], row["corrupt"]) == (0, 0, 0)
    assert row["rows"] == row["of"] > 300 and row["faults"] >= 3


# --- As a program --------------------------------------------------------------------------------


class QuickTime:
    """Stands in for the module time: sleeping takes a two-thousandth, and the clock runs on as if it had not."""

    slept = 0.0

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        QuickTime.slept += seconds
        time.sleep(seconds / 2000)

    def monotonic(self):
        return time.monotonic() + QuickTime.slept


def write_corpus(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rng = random.Random(0)
    for shard in range(SHARDS):
        first = shard * DOCUMENTS
        texts = []
        for number in range(first, first + DOCUMENTS):
            words = [f"{rng.random():.6f}" for _ in range(rng.randrange(5, 80))]
            texts.append(f"Document {number}: {' '.join(words)}")
        other = [rng.randbytes(4000) for _ in texts]  # a file of one request would be whole or not there
        path = folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet"
        table = pa.table({"text": texts, "other": other})
        parquet.write_table(table, path, row_group_size=10, compression="none")


def main(arguments: list[str]) -> None:
    as_json = "--json" in arguments
    seeds = [int(word) for word in arguments if word.isdigit()]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "corpus"
        folder.mkdir()
        write_corpus(folder)
        with Hub({("datasets", ID): folder}) as hub:
            for key in [key for key in os.environ if key.startswith("HF_")]:
                del os.environ[key]
            os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": f"{place}/home", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
            for row in every_fault(hub, folder, seeds):
                print(json.dumps(row) if as_json else in_words(row), flush=True)


def in_words(row: dict) -> str:
    counts = (
        f"rows {row['rows']} of {row['of']}, lost {row['lost']}, repeated {row['repeated']}, corrupt {row['corrupt']}"
    )
    tries = f"asked again {row['asked_again']}, waited {row['waited']:.0f} s, stops {row['stops']}"
    return f"{row['fault']:42} {counts}, {tries}  {row['stopped'][:110]}"


def every_fault(hub: Hub, folder: Path, seeds: list[int]):
    """Yields a row of the table for each fault and each seed."""
    import datasets
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.utils._http
    from transformers import AutoTokenizer

    import helpers.streams
    from takehome.tokens import InputError, Position, TokenStream

    huggingface_hub.utils._http.time = helpers.streams.time = QuickTime()
    datasets.config.STREAMING_READ_RETRY_INTERVAL = 0.02
    datasets.utils.logging.set_verbosity(50)
    huggingface_hub.utils.logging.set_verbosity(50)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/gpt2")

    class Arguments:
        dataset, dataset_config, dataset_revision, split, text_column = ID, None, None, "train", "text"
        validation_split, validation_documents, shuffle_buffer, seed = None, 5, 16, 7
        max_document_characters = 10_000_000

    def epoch(start=Position()):  # noqa: B008 (frozen)
        """Yields the documents of the first epoch from a position on, as text, each with the position after it."""
        for where, ids in TokenStream(Arguments, tokenizer).documents(start):
            if where.epoch:
                return
            yield tokenizer.decode(ids[:-1]), Position(where.epoch, where.shard, where.document + 1)

    def changed(path: str) -> Fault:
        content = (folder / path.rsplit("/")[-1]).read_bytes()
        return Fault(content=content.replace(b"Document", b"Forgery "))

    def under(fault, name: str, read) -> dict:
        """Reads everything; where it stops with an error, the fault is over and it is read on from there."""
        stalls = "stalled" in name or "random" in name
        huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT = IMPATIENT if stalls else PATIENT
        hub.asked.clear()
        QuickTime.slept, count, texts, stops, position = 0.0, [0, 0], [], [], Position()

        def decide(method, path, headers):
            if method != "GET" or not path.endswith(".parquet"):
                return None
            count[0] += 1
            chosen = fault(count[0]) if fault else None
            count[1] += chosen is not None
            return changed(path) if chosen == "changed" else chosen

        hub.fault = decide
        while True:
            helpers.streams.VERSIONS.clear()  # as in a new process
            try:
                for text, after in read(position):
                    texts.append(text)
                    position = after
                break
            except InputError as error:
                stops.append((len(texts), str(error)))
                if len(stops) == 30:
                    break
                if name in FAULTS:
                    fault = None
        hub.fault = None
        parts = sum(asked.file.endswith(".parquet") and asked.method == "GET" for asked in hub.asked)
        before, stopped = stops[0] if stops else (0, "")
        return {
            "fault": name,
            "rows": len(texts),
            "asked": parts,
            "faults": count[1],
            "waited": QuickTime.slept,
            "stops": len(stops),
            "stopped": stopped,
            "before": before,
            "texts": texts,
        }

    def compared(row: dict, truth: dict) -> dict:
        texts, expected = row.pop("texts"), truth["texts"]
        return row | {
            "of": len(expected),
            "lost": len(set(expected) - set(texts)),
            "repeated": len(texts) - len(set(texts)),
            "corrupt": len(set(texts) - set(expected)),
            "asked_again": row["asked"] - truth["asked"],
        }

    def lesson(_):
        stream = datasets.load_dataset(ID, split="train", streaming=True).skip(5).shuffle(seed=7, buffer_size=50)
        return ((row["text"], None) for row in helpers.streams.steady(stream))

    truth = under(None, "", epoch)
    for name, fault in FAULTS.items():
        yield compared(under(fault, name, epoch), truth)
    yield compared(under(FAULTS["outage, longer than the client tries"], EXTRA, lesson), under(None, "", lesson))
    for seed in seeds:
        rng = random.Random(seed)
        yield compared(under(lambda n, rng=rng: random_fault(rng), f"random, seed {seed}", epoch), truth)


if __name__ == "__main__":
    main(sys.argv[1:])
