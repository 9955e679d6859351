"""Runs of a lesson's own cells over several seeds, kept in a file: for adapter_experiments and remedy_experiments."""

import argparse
import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pretraining_experiments import write

FIRST_SEED, SEEDS = 42, 3


@dataclass(frozen=True)
class LessonRuns:
    """What is run, and where its results go.

    Attributes:
        lesson: the notebook.
        results: a JSON file {name of a run: [its figures for each seed]}; what stands there is not computed again.
        names: of the runs.
        prepare: runs the lesson's first cells with a seed, and returns the names that they define.
        run: one run, from these names and its own; returns its figures.
    """

    lesson: Path
    results: Path
    names: Iterable[str]
    prepare: Callable[[int], dict]
    run: Callable[[dict, str], dict[str, float]]

    def main(self, description: str, arguments: list[str] | None = None) -> dict:
        """Runs the command line; returns all results, those computed before among them."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seeds", type=int, default=SEEDS)
        parser.add_argument("--results", type=Path, default=self.results)
        args = parser.parse_args(arguments)
        path = args.results.resolve()
        os.environ["FINETUNING_PROFILE"], os.environ["MPLBACKEND"] = "reduced", "agg"
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for number in range(args.seeds):
            missing = [name for name in self.names if len(results.get(name, [])) <= number]
            if not missing:
                continue
            # the lesson's paths begin in its folder
            with contextlib.chdir(self.lesson.parent), contextlib.redirect_stdout(io.StringIO()):
                defined = self.prepare(FIRST_SEED + number)
            for name in missing:
                results.setdefault(name, []).append(self.run(defined, name))
                write(results, path)
                print(f"seed {FIRST_SEED + number}: {name} {results[name][-1]}", flush=True)
        return results
