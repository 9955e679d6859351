"""One folder with everything that a room without a network needs, for a USB stick or a file server.

    make classroom-bundle PROFILE=laptop                  # once, online: writes classroom-bundle/
    make install-from-bundle BUNDLE=/media/stick/classroom-bundle     # on each laptop, in the bundle's folder `course`

The bundle holds `course` (this project), `hub` (models and data sets of the profile at their revisions, and
classroom.toml, the profile with local paths), `wheels` (packages for the system it was made on) and checksums.sha256.
Stopped on the way? The same command goes on. For laptops of another system run it there once more with the same
BUNDLE: only wheels are added. `--wheels none` leaves them out.

The install checks every checksum and names each damaged file. It needs nothing but Python 3.11 or newer.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from helpers.profiles import PLACES, ROOT, Pretraining, ProfileError, load_profile

CHECKSUMS = "checksums.sha256"
MODEL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")


class BundleError(Exception):
    """Something is missing or damaged; the message says what and what to do."""


# ------------------------------------------------------------------ making


def wanted_files(kind: str, task, paths: dict[str, int]) -> list[str]:
    """Chooses from a repository what a task needs: one format of the weights, one config, one shard of a corpus.

    Args:
        kind: "model" or "dataset".
        task: a table of the profile.
        paths: the repository's files with their sizes in bytes.
    """
    if kind == "model":
        weights = [path for path in paths if fnmatch(path, "model*.safetensors")]
        weights = weights or [path for path in paths if fnmatch(path, "pytorch_model*.bin")]
        return weights + [path for path in paths if "/" not in path and any(fnmatch(path, p) for p in MODEL_FILES)]
    files = [path for path in paths if path.endswith(".parquet")]
    if task.config and any(path.startswith(f"{task.config}/") for path in files):
        files = [path for path in files if path.startswith(f"{task.config}/")]
    if isinstance(task, Pretraining):
        files = sorted(files)[:1]  # a room trains for minutes; the corpus would fill the stick
    return [*files, *(path for path in paths if path == "README.md")]


def download(profile, hub: Path) -> dict[tuple[str, str], str]:
    """Fetches models and data sets of a profile into `hub`; returns {(key, id): folder name below hub}."""
    from huggingface_hub import HfApi, snapshot_download

    repositories = {}
    for task in profile.tables.values():
        for key, kind, revision in (("dataset", "dataset", task.revision),
                                    ("checkpoint", "model", task.checkpoint_revision)):  # fmt: skip
            name = getattr(task, key)
            if Path(name).is_absolute():
                continue
            tree = HfApi().list_repo_tree(name, recursive=True, revision=revision, repo_type=kind)
            paths = {entry.path: entry.size for entry in tree if hasattr(entry, "size")}
            chosen = {path: paths[path] for path in wanted_files(kind, task, paths)}
            known = repositories.setdefault((key, name), (kind, revision, {}))
            known[2].update(chosen)
    total = sum(sum(files.values()) for _, _, files in repositories.values())
    print(f"{len(repositories)} models and data sets, {total / 1e6:,.0f} MB", flush=True)
    folders = {}
    for (key, name), (kind, revision, files) in repositories.items():
        folder = f"{kind}s/{name.replace('/', '--')}-{(revision or 'main')[:8]}"
        print(f"{name}: {len(files)} files, {sum(files.values()) / 1e6:,.0f} MB", flush=True)
        snapshot_download(name, repo_type=kind, revision=revision, local_dir=hub / folder, allow_patterns=list(files))
        folders[key, name] = folder
    return folders


def local_profile(profile, folders: dict[tuple[str, str], str]) -> str:
    """The profile as TOML, every id a path beside it."""
    lines = ['inherits = "reduced"', f"description = {json.dumps(profile.description + ', from the bundle')}"]
    lines += [f"use_cpu = {json.dumps(profile.use_cpu)}", "offline = true"]
    for name, task in profile.tables.items():
        values = {key: value for key, value in dataclasses.asdict(task).items() if value is not None}
        for key in PLACES & values.keys():
            place = Path(values[key])
            if (key, values[key]) in folders:
                values[key] = f"./{folders[key, values[key]]}"
            elif place.is_absolute():
                values[key] = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else str(place)
            else:
                values[key] = f"data/metrics/{values[key]}"  # the same scores, computed here
        lines += ["", f"[{name}]"]
        lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if k not in ("revision", "checkpoint_revision")]
    return "\n".join(lines) + "\n"


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(bundle: Path) -> list[Path]:
    """The files of a bundle that count, without the marks that downloads leave to go on from."""
    files = (path for path in sorted(bundle.rglob("*")) if path.is_file() and path.name != CHECKSUMS)
    return [path for path in files if ".cache" not in path.relative_to(bundle).parts]


def damaged(bundle: Path) -> list[str]:
    """What differs from its checksum or is not there, one sentence a file.

    Raises:
        BundleError: there are no checksums.
    """
    try:
        lines = (bundle / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BundleError(f"{bundle} is no finished bundle, it has no {CHECKSUMS}: make it again") from error
    found = []
    for expected, name in (line.split("  ", 1) for line in lines):
        path = bundle / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif digest(path) != expected:
            found.append(f"{name} is damaged")
    return found


def make(bundle: Path, name: str, wheels: str) -> None:
    """Gathers everything into `bundle`; what is already there and whole is not fetched again."""
    begin = time.perf_counter()
    profile = load_profile(name)
    if profile.no_hub:
        raise BundleError(f"a bundle is made online, but {profile.no_hub}")
    bundle.mkdir(parents=True, exist_ok=True)
    if (bundle / CHECKSUMS).exists():
        for sentence in damaged(bundle):
            print(f"{sentence}: fetched again", flush=True)
            (bundle / sentence.rsplit(" is ", 1)[0]).unlink(missing_ok=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for path in filter(None, tracked.split("\0")):
        if (ROOT / path).is_file():
            (bundle / "course" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, bundle / "course" / path)
    folders = download(profile, bundle / "hub")
    (bundle / "hub" / "classroom.toml").write_text(local_profile(profile, folders), encoding="utf-8")
    if wheels == "here":
        # `wheel`, not `download`: a package that comes as source (seqeval) cannot be built without a network
        pip = [sys.executable, "-m", "pip", "wheel", "-c", "constraints.txt", "--group", "full-finetuning"]
        subprocess.run([*pip, "pip", "setuptools", "-w", str(bundle.resolve() / "wheels")], cwd=ROOT, check=True)
    files = contents(bundle)
    lines = [f"{digest(path)}  {path.relative_to(bundle).as_posix()}" for path in files]
    (bundle / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in files)
    print(f"{bundle}: {len(files)} files, {size / 1e6:,.0f} MB, in {time.perf_counter() - begin:.0f} s")


# ------------------------------------------------------------------ installing


def install(bundle: Path, course: Path) -> None:
    """Checks a bundle and sets up the course from it: environment, models, data. Nothing is asked of a network."""
    begin = time.perf_counter()
    if problems := damaged(bundle):
        listed = "\n".join(f"  {sentence}" for sentence in problems)
        raise BundleError(f"{bundle}: copy it again, or make it again, for\n{listed}")
    target = course / "classroom"
    partial = course / "classroom.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bundle / "hub", partial, ignore=shutil.ignore_patterns(".cache"))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    if (bundle / "wheels").is_dir():
        environment = course / ".venv"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        pip = [str(python), "-m", "pip", "install", "--no-index", "--find-links", str((bundle / "wheels").resolve())]
        for words in (["pip"], ["--group", "full-finetuning", "-e", "."]):
            subprocess.run([*pip, "-c", "constraints.txt", *words], cwd=course, check=True)
        (environment / ".full-finetuning-installed").touch()
    print(f"installed in {time.perf_counter() - begin:.0f} s; start with")
    print("  FINETUNING_PROFILE=classroom/classroom.toml make lab")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("bundle", type=Path)
    making.add_argument("--profile", default="laptop", help="name or TOML file")
    making.add_argument("--wheels", choices=["here", "none"], default="here")
    installing = commands.add_parser("install")
    installing.add_argument("bundle", type=Path)
    installing.add_argument("--course", type=Path, default=ROOT, help="the folder to set up; default: this one")
    options = parser.parse_args(arguments)
    try:
        if options.command == "make":
            make(options.bundle, options.profile, options.wheels)
        else:
            install(options.bundle.resolve(), options.course.resolve())
    except (BundleError, ProfileError) as error:
        print(f"classroom_bundle.py: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"classroom_bundle.py: failed with status {error.returncode}: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
