"""The GPU check's own paths, on the CPU and small, so that its first run on a card does not stop at a slip."""

import json
import sys
import time

import gpu_check
import gpu_pieces
import pytest
import torch

PIECE = {"ended": "done", "seconds": 1.0, "rows": []}
CARD = {"card": "NVIDIA Test", "memory": 80e9, "python": "3.12.3", "date": "2026-01-02"}
CARD |= {"packages": {"torch": "2.11.0", "transformers": "5.17.0"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory", "pretraining", "fine_tuning"])
def test_a_piece_on_the_cpu(name):
    done = gpu_check.run_piece(name, "cpu", tiny=True, limit=280)
    assert done["ended"] == "done" and len(done["rows"]) == {"memory": 3, "pretraining": 3, "fine_tuning": 1}[name]
    wrong = gpu_check.complaints(name, done)
    assert [line for line in wrong if "slower" not in line] == []  # speeds of this machine, beside other tests
    if name == "memory":
        assert max(map(abs, gpu_check.errors_of(done, "trace"))) < 0.02


def test_lessons_on_the_cpu(monkeypatch, tmp_path, capsys):
    """A lesson of two cells, of which one fails; it runs under the profile that the piece writes."""
    import matrix
    import nbformat

    cells = ["from helpers.profiles import load_profile\nprint(load_profile().device)", "assert 1 > 2, 'no'", "missing"]
    cells += ["undefined_since = missing"]
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, tmp_path / "notebooks" / "01_small.ipynb")
    for name in ("scripts", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_pieces, "LESSONS", ["01"])
    monkeypatch.setenv("PYTHONPATH", str(gpu_check.ROOT))
    gpu_pieces.lessons_piece("cpu", tiny=True)
    (row,) = map(gpu_check.read_row, capsys.readouterr().out.splitlines())
    assert row["lesson"] == "01" and list(row["failed"]) == ["1"]
    assert row["failed"]["1"] == "AssertionError: no | 1 assert 1 > 2, 'no'"
    assert gpu_check.complaints("lessons", PIECE | {"rows": [row]}) == [f"lesson 01, cell 1: {row['failed']['1']}"]


def test_the_counters_of_cuda(monkeypatch):
    """On a card the peak is that of the second step alone; `torch.cuda` is simulated, and nvidia-smi too."""
    held = {"now": 0, "peak": 0}

    def step():
        held["now"] += 100
        held["peak"] = max(held["peak"], held["now"] + (50 if held["now"] == 100 else 7))  # the first one takes more

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=held["now"]))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 300)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    answer = type("Answer", (), {"stdout": "1024\n"})
    monkeypatch.setattr(gpu_pieces.subprocess, "run", lambda *_, **__: answer)
    assert gpu_pieces.peak_of(step, "cuda") == {"measured": 207, "reserved": 300, "nvidia_smi": 1024 * 2**20}
    answer.stdout = "[N/A]"
    assert gpu_pieces.used_by_nvidia_smi() is None


def test_every_configuration_fits_below_20_gb():
    assert len(gpu_pieces.MEMORY) == 20
    for name, (config, rows, length, settings) in gpu_pieces.MEMORY.items():
        predicted = gpu_pieces.memory.estimate(
            config, per_device_train_batch_size=rows, sequence_length=length, device="cuda", **settings
        )
        assert predicted.source == "closed form" and 1e9 < predicted.peak_bytes < 20e9, (name, predicted.peak_gb)


def test_it_takes_less_than_eight_minutes():
    assert sum(gpu_check.LIMITS.values()) < 480


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA GeForce RTX 4090", 165.2e12)],
        *[("Tesla T4", 65e12), ("NVIDIA H200", 989e12), ("NVIDIA L4", 121e12), ("NVIDIA L40S", None)],
    ],
)
def test_the_peak_of_a_card_by_its_name(monkeypatch, name, expected):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert gpu_pieces.peak_of_card("cuda") == expected
    assert gpu_pieces.peak_of_card("cpu") is None


def test_a_slow_piece_keeps_what_it_told_and_leaves_no_process(monkeypatch, tmp_path):
    import psutil

    program = tmp_path / "tools" / "gpu_pieces.py"
    program.parent.mkdir()
    program.write_text(
        "import subprocess, sys, time\nprint('{\"name\": \"a\"}', flush=True)\nprint('a library', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('{\"child\": %d}' % child.pid, flush=True)\nprint('{\"cut', flush=True)\ntime.sleep(600)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    start = time.monotonic()
    piece = gpu_check.run_piece("memory", limit=5)
    assert piece["ended"] == "out of time" and time.monotonic() - start < 60
    assert piece["rows"][0] == {"name": "a"} and len(piece["rows"]) == 2
    child = piece["rows"][1]["child"]
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    program.write_text("import sys\nsys.exit('the card is on fire')\n", encoding="utf-8")
    assert gpu_check.run_piece("memory", limit=60)["ended"] == "the card is on fire"


def test_the_report_keeps_pieces_of_the_same_machine_only(monkeypatch, tmp_path):
    path = tmp_path / "gpu-check.json"
    monkeypatch.setattr(gpu_check, "machine", lambda: CARD)
    gpu_check.add_to_report("memory", PIECE, path)
    monkeypatch.setattr(gpu_check, "machine", lambda: CARD | {"date": "2026-01-03"})
    gpu_check.add_to_report("lessons", PIECE, path)
    assert list(json.loads(path.read_text(encoding="utf-8"))["pieces"]) == ["memory", "lessons"]
    monkeypatch.setattr(gpu_check, "machine", lambda: CARD | {"card": "NVIDIA Other"})
    gpu_check.add_to_report("lessons", PIECE, path)
    assert list(json.loads(path.read_text(encoding="utf-8"))["pieces"]) == ["lessons"]


def example_report():
    memory = [{"name": "a", "measured": 10_100_000_000, "workspaces": 100_000_000, "estimate": 10_100_000_000}]
    memory[0] |= {"trace": 9_990_000_000, "nvidia_smi": 11_000_000_000}
    speed = [{"name": "program", "compiled": True, "tokens_per_second": 123456.7, "share_of_peak": 0.41}]
    tuned = [{"device": "cuda", "rows_per_second": 2000.0}, {"device": "cpu", "error": "broke"}]
    lessons = [{"lesson": f"{n:02}", "seconds": 1, "failed": {} if n != 5 else {"78": "no"}} for n in range(1, 10)]
    rows = {"memory": memory, "pretraining": speed, "fine_tuning": tuned, "lessons": lessons}
    return {"machine": CARD, "pieces": {name: PIECE | {"rows": rows[name]} for name in rows}}


def test_the_table():
    text = gpu_check.table(example_report())
    assert "| NVIDIA Test, 80 GB; Python 3.12.3, torch 2.11.0, transformers 5.17.0; 2026-01-02 | |" in text
    assert "| Lessons that run, reduced data | 8 of 9; not 05 (cells 78) |" in text
    assert "| `estimate` against the allocator's peak | 1.0% in the median, 1.0% at the worst, of 1 |" in text
    assert "| nvidia-smi shows above that peak | 0.9 to 0.9 GB |" in text
    assert "compiled | 123,457 tokens a second, 41% of the card's peak |" in text
    assert "on the GPU | 2,000 rows a second |" in text and "broke" not in text


def test_what_is_wrong_is_said():
    report = example_report()["pieces"]
    report["memory"]["rows"][0]["trace"] = 5_000_000_000
    assert gpu_check.complaints("memory", report["memory"]) == [
        "trace is off by 50.0% in the median, 50.0% at the worst"
    ]
    assert gpu_check.complaints("fine_tuning", report["fine_tuning"]) == ["cpu: broke"]
    late = PIECE | {"ended": "out of time"}
    assert gpu_check.complaints("lessons", late) == ["lessons: out of time"]
    speeds = [{"name": name, "compiled": False, "tokens_per_second": speed} for name, speed in
              (("program", 80), ("transformers", 100))]  # fmt: skip
    assert gpu_check.complaints("pretraining", PIECE | {"rows": speeds}) == [
        "the program is slower than Transformers' own loop"
    ]


def test_readme_shows_the_report_that_is_there(tmp_path):
    readme = (gpu_check.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- gpu -->\n{gpu_check.table(gpu_check.read_report())}\n<!-- /gpu -->" in readme
    page = tmp_path / "README.md"
    page.write_text("# A\n\n<!-- gpu -->\n<!-- /gpu -->\n\nEnd.\n", encoding="utf-8")
    gpu_check.write_tables({}, page)
    assert page.read_text(encoding="utf-8") == f"# A\n\n<!-- gpu -->\n{gpu_check.NOT_RUN}\n<!-- /gpu -->\n\nEnd.\n"


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert gpu_check.main() == 2
    assert capsys.readouterr().err == "gpu_check.py: torch sees no CUDA GPU here, so nothing was run\n"
