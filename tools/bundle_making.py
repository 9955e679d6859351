"""Making a classroom bundle: the course, a profile's models and data sets, and wheels. See classroom_bundle.py.

What the Hub sends is compared with the size and the digest that the Hub states for it. Nothing is deleted in a bundle,
and nothing is written into a folder that is not one.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

from bundle_checksums import (
    CHECKSUMS,
    MARK,
    MARKER,
    BundleError,
    digest,
    every_file,
    format_list,
    is_link,
    outside,
    read_list,
    write_whole,
    wrong,
)

from helpers.hub_errors import damage, explain
from helpers.profiles import PLACES, ROOT, Pretraining, Profile, ProfileError, load_profile

MODEL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")
MARKER_TEXT = f"""{MARK}

On a laptop: copy the folder `course`, and in that copy run

  make install-from-bundle BUNDLE=THIS-FOLDER

More in course/SETUP.md, "A classroom without Wi-Fi".
"""


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file as the Hub states it: `sha256` of large files, of all others git's digest `sha1`."""

    path: str
    size: int
    sha256: str = ""
    sha1: str = ""

    def fits(self, path: Path) -> bool:
        """Whether a file on this machine is this one, whole."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256:
            return digest(path) == self.sha256
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.sha1


@dataclasses.dataclass(frozen=True)
class Repository:
    """A model or data set of a profile, with the files that a task needs of it."""

    key: str  # "dataset" or "checkpoint", as the profile calls it
    name: str
    kind: str  # "dataset" or "model", as the Hub calls it
    revision: str | None
    files: dict[str, HubFile]

    @property
    def folder(self) -> str:
        """Where it lies below `hub`."""
        return f"{self.kind}s/{self.name.replace('/', '--')}-{(self.revision or 'main')[:8]}"


def make(bundle: Path, name: str, wheels: str) -> None:
    """Gathers everything into `bundle`; what is already there and whole is not fetched again.

    Raises:
        BundleError: the folder is not one for a bundle, or something cannot be had.
    """
    start = time.perf_counter()
    begin(bundle)
    try:
        profile = load_profile(name)
    except ProfileError as error:
        raise BundleError(str(error)) from error
    if profile.no_hub:
        raise BundleError(f"a bundle is made online, but {profile.no_hub}")
    known = read_list(bundle / CHECKSUMS) if (bundle / CHECKSUMS).exists() else {}
    names = [MARKER]
    for path in tracked_files(ROOT):
        put((ROOT / path).read_bytes(), bundle, f"course/{path}", known)
        shutil.copymode(ROOT / path, bundle / "course" / path)
        names.append(f"course/{path}")
    names += add_site(bundle, known)
    repositories = look_up(profile)
    names += download(repositories, bundle)
    folders = {(one.key, one.name): one.folder for one in repositories}
    put(local_profile(profile, folders).encode(), bundle, "hub/classroom.toml", known)
    names += ["hub/classroom.toml", *gather_wheels(bundle, known, wheels)]
    write_whole(bundle / CHECKSUMS, format_list({name: digest(bundle / name) for name in names}).encode())
    size = sum((bundle / name).stat().st_size for name in names)
    print(f"{bundle}: {len(names)} files, {size / 1e6:,.0f} MB, in {time.perf_counter() - start:.0f} s")


def begin(bundle: Path) -> None:
    """Makes the folder, or finds that it is a bundle already, without links that lead out of it."""
    if bundle.exists() and not bundle.is_dir():
        raise BundleError(f"{bundle} is a file: name a folder for the bundle")
    marker = bundle / MARKER
    if not bundle.exists() or not any(bundle.iterdir()):
        write_whole(marker, MARKER_TEXT.encode())
    elif is_link(marker) or not marker.is_file() or not marker.read_bytes().startswith(MARK.encode()):
        raise BundleError(f"{bundle} has files and is no bundle (it has no {MARKER}): name a new folder")
    if links := [name for name in every_file(bundle) if is_link(bundle / name)]:
        raise BundleError(f"{bundle} has a link in it, {links[0]}, and a bundle has none: name a new folder")


def put(content: bytes, bundle: Path, name: str, known: dict[str, str]) -> None:
    """Writes one file of the bundle; what somebody else wrote under its name is kept beside it."""
    target = bundle / name
    if target.exists():
        now = digest(target)
        if now == hashlib.sha256(content).hexdigest():
            return
        if now != known.get(name):
            kept = next(path for i in range(10**6) if not (path := Path(f"{target}.kept{i or ''}")).exists())
            os.replace(target, kept)
            print(f"{name} was changed: the new one is written, the changed one is now {kept.name}", flush=True)
    write_whole(target, content)


def add_site(bundle: Path, known: dict[str, str]) -> list[str]:
    """Puts the site into the bundle, if it is built, and returns the names of its files."""
    site = ROOT / "site" / "_build" / "html"
    names = [f"site/{name}" for name in every_file(site)] if (site / "index.html").exists() else []
    for name in names:
        put((site / name.removeprefix("site/")).read_bytes(), bundle, name, known)
    if names:
        built = time.strftime("%Y-%m-%d %H:%M", time.localtime((site / "index.html").stat().st_mtime))
        print(f"with the site, as it was built at {built}")
    else:
        print("without the site: `make site` builds it")
    return names


def tracked_files(root: Path) -> list[str]:
    """The files of the course, as git knows them."""
    if not shutil.which("git"):
        raise BundleError("git tells which files belong to the course, and it is not installed here: install git")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*words):
        return subprocess.run(["git", *words], cwd=root, capture_output=True, env=environment)

    top = git("rev-parse", "--show-toplevel")
    if top.returncode and b"not a git repository" not in top.stderr:
        raise BundleError(f"git does not read {root}: {top.stderr.decode(errors='replace').splitlines()[0]}")
    listed = git("ls-files", "-z").stdout.decode(errors="surrogateescape").split("\0")
    paths = [path for path in listed if path and (root / path).is_file() and not is_link(root / path)]
    if top.returncode or Path(top.stdout.decode().strip()).resolve() != root.resolve() or not paths:
        raise BundleError(
            f"{root} is no git clone of its own (is it from a ZIP?), so nothing tells which files are the course: "
            "clone the project with git, and make the bundle there"
        )
    return paths


# ------------------------------------------------------------------ models and data sets


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


def look_up(profile: Profile) -> list[Repository]:
    """Asks the Hub which files the profile's models and data sets have, and chooses."""
    found, trees = {}, {}
    for task in profile.tables.values():
        for key, kind, revision in (
            ("dataset", "dataset", task.revision),
            ("checkpoint", "model", task.checkpoint_revision),
        ):
            name = getattr(task, key)
            if Path(name).is_absolute():
                continue
            if (kind, name, revision) not in trees:
                trees[kind, name, revision] = list_files(name, kind, revision)
            tree = trees[kind, name, revision]
            chosen = wanted_files(kind, task, {path: file.size for path, file in tree.items()})
            if not any(path.endswith((".safetensors", ".bin", ".parquet")) for path in chosen):
                raise BundleError(
                    f"{name} has no {'Parquet files' if kind == 'dataset' else 'weights'}: choose another"
                )
            one = found.setdefault((key, name), Repository(key, name, kind, revision, {}))
            one.files.update({path: tree[path] for path in chosen})
    return list(found.values())


def list_files(name: str, kind: str, revision: str | None) -> dict[str, HubFile]:
    """The files of a repository with the sizes and digests that the Hub states."""
    from huggingface_hub import HfApi

    try:
        tree = list(HfApi().list_repo_tree(name, recursive=True, revision=revision, repo_type=kind))
        files = [entry for entry in tree if hasattr(entry, "size")]
        stated = [HubFile(one.path, one.size, one.lfs.sha256 if one.lfs else "", one.blob_id) for one in files]
    except Exception as error:
        raise BundleError(explain(error, name)) from error
    for file in stated:
        if reason := outside(f"hub/{file.path}"):
            raise BundleError(f"{name} has a file {file.path!r}, which {reason}: do not use it")
    return {file.path: file for file in stated}


def download(repositories: list[Repository], bundle: Path) -> list[str]:
    """Fetches what is not there yet, and compares it with what the Hub states; returns the names below the bundle."""
    from huggingface_hub import hf_hub_download

    jobs = [(one, file, bundle / "hub" / one.folder / file.path) for one in repositories for file in one.files.values()]
    total = sum(file.size for _, file, _ in jobs)
    print(f"{len(repositories)} models and data sets, {len(jobs)} files, {total / 1e6:,.0f} MB", flush=True)
    missing = [job for job in jobs if not job[1].fits(job[2])]
    needed, free = sum(file.size for _, file, _ in missing), shutil.disk_usage(bundle).free
    if needed > free:
        raise BundleError(
            f"{bundle}: {needed / 1e6:,.0f} MB are to be fetched, and {free / 1e6:,.0f} MB are free there"
        )
    for repository, file, path in missing:
        if path.exists():
            print(f"{path.relative_to(bundle).as_posix()} is damaged: fetched again", flush=True)
        print(f"{repository.name}: {file.path}, {file.size / 1e6:,.1f} MB", flush=True)
        try:
            hf_hub_download(
                repository.name,
                file.path,
                repo_type=repository.kind,
                revision=repository.revision,
                local_dir=bundle / "hub" / repository.folder,
                force_download=path.exists(),
            )
        except Exception as error:
            raise BundleError(explain(error, repository.name)) from error
        if not file.fits(path):
            problem = damage(path) or "has another size or digest than the Hub states"
            raise BundleError(
                f"{repository.name}: what came for {file.path} {problem}; something between here and the Hub changes "
                "files (a login page, a proxy, a mirror): use another network, and run this again"
            )
    return [path.relative_to(bundle).as_posix() for _, _, path in jobs]


def local_profile(profile: Profile, folders: dict[tuple[str, str], str]) -> str:
    """The profile as TOML, every id a path beside it."""
    lines = ['inherits = "reduced"', f"description = {toml(profile.description + ', from the bundle')}"]
    lines += [f"use_cpu = {toml(profile.wants_cpu)}", "offline = true"]
    for name, task in profile.tables.items():
        values = {key: value for key, value in dataclasses.asdict(task).items() if value is not None}
        for key in PLACES & values.keys():
            place = Path(values[key])
            if (key, values[key]) in folders:
                values[key] = f"./{folders[key, values[key]]}"
            elif place.is_relative_to(ROOT):
                values[key] = place.relative_to(ROOT).as_posix()
        lines += ["", f"[{name}]"]
        lines += [f"{k} = {toml(v)}" for k, v in values.items() if k not in ("revision", "checkpoint_revision")]
    return "\n".join(lines) + "\n"


def toml(value: str | bool | int | float) -> str:
    """A value as TOML writes it: like JSON, but for letters beyond 16 bits, which JSON splits in two."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ------------------------------------------------------------------ wheels


def gather_wheels(bundle: Path, known: dict[str, str], wheels: str) -> list[str]:
    """Adds the packages for this system to those that the bundle has; returns the names of all below the bundle."""
    fresh = []
    if wheels == "here":
        folder = Path(tempfile.mkdtemp(prefix=".wheels.", dir=bundle))
        try:
            # `wheel`, not `download`: a package that comes as source (seqeval) cannot be built without a network
            pip = [sys.executable, "-m", "pip", "wheel", "-c", "constraints.txt", "--group", "full-finetuning"]
            subprocess.run([*pip, "pip", "setuptools", "-w", str(folder.resolve())], cwd=ROOT, check=True)
            (bundle / "wheels").mkdir(exist_ok=True)
            for path in sorted(folder.iterdir()):
                os.replace(path, bundle / "wheels" / path.name)
                fresh.append(f"wheels/{path.name}")
        finally:
            shutil.rmtree(folder)
    earlier = sorted(name for name in known if name.startswith("wheels/") and name not in fresh)
    for name in earlier:
        if problem := wrong(bundle, name, known[name]):
            raise BundleError(f"{bundle}: {problem}; delete it, and run this again on a laptop of that system")
    for name in every_file(bundle / "wheels"):
        if f"wheels/{name}" not in fresh + earlier:
            raise BundleError(f"{bundle}: wheels/{name} was not put there by this program: move it away")
    return [*fresh, *earlier]
