"""Tables of 50,001 to 200,000 rows, end to end: nothing fails, no part is too large, and memory does not grow."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.profiles import ROOT, load_profile

load_profile("reduced")  # offline, before any library is imported

from takehome import texts  # noqa: E402
from takehome.columns import MAX_CHARACTERS  # noqa: E402
from takehome.tokenizer import load_tokenizer  # noqa: E402

MODEL = str(ROOT / "data/models/distilbert")


def write(path: Path, rows: int, classes: int, words: str = "a short text") -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        file.writelines(f"{n} is {words},class {n % classes}\n" for n in range(rows))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "classes"), [(50_001, 3), (50_007, 7), (60_000, 77), (200_000, 500)])
def test_a_large_table_is_prepared(rows, classes, tmp_path):
    """With 3, 7 and 77 classes the shares, rounded one by one, are more rows than a part may have."""
    data, folder = write(tmp_path / "large.csv", rows, classes), tmp_path / "data"
    folder.mkdir()
    facts = texts.prepare(texts.Source(str(data)), load_tokenizer(MODEL), folder, seed=0, max_train_samples=9000)
    assert facts.rows == {"train": 9000, "validation": 5000, "test": 5000}
    assert min(facts.counts["train"]) >= 1
    for name in ("validation", "test"):
        assert len(facts.counts[name]) == classes
        assert max(facts.counts[name]) - min(facts.counts[name]) <= 1
    assert facts.remarks == []


READ = """
import sys
from takehome.tables import read_table
table = read_table(sys.argv[1])
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
except ImportError:  # Windows
    import psutil
    peak = psutil.Process().memory_info().peak_wset // 1024
print(len(table.dataset), peak, max(map(len, table.dataset["text"])))
"""


def read(path: Path) -> tuple[int, int, int]:
    """Rows, peak memory and the longest text when a table is read in a process of its own."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    rows, peak, longest = map(int, done.stdout.split())
    return rows, peak, longest


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    words = "a text of some length that says the same as all the others do; " * 2
    peaks = {}
    for rows in (10_000, 200_000):
        found, peaks[rows], _ = read(write(tmp_path / f"{rows}.csv", rows, 6, words))
        assert found == rows
    assert peaks[200_000] < 1.1 * peaks[10_000], peaks


@pytest.mark.slow
def test_a_cell_of_ten_megabytes_costs_little_more_than_itself(tmp_path):
    path = write(tmp_path / "small.csv", 1000, 2)
    _, small, _ = read(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{'word ' * 2_000_000},class 0\n")
    rows, large, longest = read(path)
    assert (rows, longest) == (1001, MAX_CHARACTERS)
    assert large - small < 200_000, (small, large)  # kilobytes: ten times the text
