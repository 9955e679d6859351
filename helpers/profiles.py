"""Profiles: the names and sizes that differ between a laptop without a network, a laptop and a GPU.

    from helpers.profiles import load_profile
    profile = load_profile()            # "reduced", or what FINETUNING_PROFILE names
    profile.imdb.max_train_samples

The values stand in profiles.toml beside this file. A profile of your own is a TOML file that names the profile it
inherits from and only what differs:

    inherits = "reduced"

    [imdb]
    max_train_samples = 200
"""

import difflib
import json
import math
import os
import sys
import tomllib
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import get_args, get_type_hints

from helpers.allocator import keep_freed_memory
from helpers.hub import cache_folder, cached, check_hub, set_offline
from helpers.machine import device_kind, use_one_gpu
from helpers.profile_tables import ROOT, TABLES, Pretraining, Task, html_table, show_value

BUILT_IN = Path(__file__).with_suffix(".toml")
TYPE_NAMES = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
PLACES = ("dataset", "checkpoint", "metric")  # each a Hub id or a path
BELONGS_TO = {"dataset": ("config", "revision"), "checkpoint": ("checkpoint_revision",)}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
MAY_BE_ZERO = ("seed", "warmup_steps", "weight_decay")


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and what to write instead."""


TOP_LEVEL = {"inherits": str, "description": str, "offline": bool, "use_cpu": bool}


@dataclass(frozen=True, repr=False)
class Profile:
    """A resolved profile: one attribute a table (`profile.imdb`), read-only, printed without machine paths."""

    name: str
    description: str
    offline: bool
    wants_cpu: bool  # what `use_cpu` says in the file
    tables: dict[str, Task]
    no_hub: str = ""  # why the Hub is not asked for anything; empty if it is

    @property
    def device(self) -> str:
        """What lessons and programs compute on: "cuda", "mps" or "cpu". Without `use_cpu`, a GPU if there is one."""
        return device_kind(self.wants_cpu)

    @property
    def use_cpu(self) -> bool:
        """For `TrainingArguments` and Accelerate, which stop at `False` where there is no GPU."""
        return self.device == "cpu"

    def __getattr__(self, name: str) -> Task:
        if name.startswith("_") or name == "tables":
            raise AttributeError(name)
        if name not in self.tables:
            raise AttributeError(_unknown("table", name, self.tables, f"profile {self.name}"))
        for key in PLACES:  # looked at on use: a lesson needs no data but its own
            place = getattr(self.tables[name], key, None)
            if place and Path(place).is_absolute() and not Path(place).exists():
                todo = "run `make data`" if place.startswith(str(ROOT / "data")) else "correct the path"
                raise ProfileError(f"profile {self.name}, [{name}] {key}: {place} does not exist; {todo}")
        if _has_program(self.tables[name].checkpoint):
            raise ProfileError(
                f"profile {self.name}, [{name}] checkpoint: {self.tables[name].checkpoint} wants to run program code "
                "of its own (auto_map in its config.json), and a profile runs none but the course's: choose another"
            )
        if self.no_hub and (missing := _not_cached(self.tables[name])):
            raise ProfileError(
                f"profile {self.name}, [{name}]: {self.no_hub}, and the cache in {cache_folder()} lacks "
                f'{"; ".join(missing)}. Without a network, load_profile("reduced") has all that it needs. Or bring '
                "what is missing: a classroom bundle, or the cache of a machine that ran this lesson (SETUP.md, "
                "Without a network). With HF_HUB_OFFLINE=0 in the environment the libraries try the Hub all the same."
            )
        return self.tables[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tables]

    def __repr__(self) -> str:
        parts = [f"profile {self.name}: {self.description}"]
        return "\n\n".join(parts + [f"[{name}]\n{table!r}" for name, table in self.tables.items()])

    def _repr_html_(self) -> str:
        shown = {name: dict(table._rows()) for name, table in self.tables.items()}
        keys = list(dict.fromkeys(key for table in shown.values() for key in table))
        rows = [[key, *(table.get(key, "") for table in shown.values())] for key in keys]
        caption = f"<p>Profile <b>{escape(self.name)}</b>: {escape(self.description)}</p>"
        return caption + html_table(["", *shown], rows)


def load_profile(name: str | os.PathLike | None = None) -> Profile:
    """Loads a profile by name, or from a TOML file of your own.

    Args:
        name: `"reduced"`, `"laptop"`, `"full"`, or the path of a `.toml` file. Without it the environment variable
            FINETUNING_PROFILE decides, and without that it is `"reduced"`. An argument wins over the variable.

    An offline profile sets HF_HUB_OFFLINE and its relatives, for this process and its children, unless they are set
    already. The libraries read them when imported, so load the profile before importing transformers or datasets;
    later it changes nothing for this process, but reduced profiles load local paths only.

    A profile that names Hub ids asks whether the Hub answers, for at most HUB_SECONDS, unless HF_HUB_OFFLINE is set
    already. Without an answer it sets the same variables, and what the cache holds can be used.

    On Linux it also makes steps on the CPU faster: see helpers/allocator.py. In a notebook it hides all GPUs but
    one: see `helpers.machine.use_one_gpu`.

    Raises:
        ProfileError: unknown profile, table or key, a wrong type or value, an unreadable file, a cycle of
            inheritance; on use of a table, a path that does not exist, or without the Hub an id that is not cached.
    """
    keep_freed_memory()
    if "ipykernel" in sys.modules:  # a notebook
        use_one_gpu()
    if Path.cwd().is_relative_to(ROOT) and not os.access(".", os.W_OK):
        warnings.warn(
            f"nothing can be saved in {Path.cwd()}, as lessons do: copy the course to another place", stacklevel=2
        )
    wanted = name or os.environ.get("FINETUNING_PROFILE") or "reduced"
    top, tables = {}, {table: {} for table in TABLES}
    for layer in reversed(_layers(wanted)):
        top |= {key: value for key, value in layer.items() if key not in TABLES}
        for table in TABLES.keys() & layer.keys():
            for key in BELONGS_TO.keys() & layer[table].keys():  # a revision never outlives its id
                tables[table] = {k: v for k, v in tables[table].items() if k not in BELONGS_TO[key]}
            tables[table] |= layer[table]
    shown = Path(wanted).stem if _is_file(wanted) else str(wanted)
    built = {table: TABLES[table](**values) for table, values in tables.items()}
    if top["offline"]:
        no_hub = "it says offline = true"
        set_offline(True)
    else:
        no_hub = check_hub() if any(_hub_ids(task) for task in built.values()) else ""
        set_offline(bool(no_hub))
    return Profile(shown, top["description"], top["offline"], top["use_cpu"], built, no_hub)


def _is_file(name: str | os.PathLike) -> bool:
    return not isinstance(name, str) or name.endswith(".toml") or "/" in name or os.sep in name


def _layers(wanted: str | os.PathLike) -> list[dict]:
    """The profile's own layer first, then each that it inherits from, checked, with paths made absolute."""
    layers, seen, folders = [], [], [Path.cwd(), ROOT]
    while wanted is not None:
        if _is_file(wanted):
            tried = [folder / Path(wanted).expanduser() for folder in folders]
            file = next((path for path in tried if path.exists()), tried[0]).resolve()
            source, where, layer = str(file), str(wanted), _read(file)
            if "inherits" not in layer:
                raise ProfileError(f'{where}: say at the top what it inherits from, for instance inherits = "reduced"')
        else:
            built_in, file = _read(BUILT_IN), BUILT_IN
            if wanted not in built_in:
                raise ProfileError(_unknown("profile", wanted, built_in, "profiles.toml") + ", or your own .toml file")
            source, where, layer = wanted, f"profile {wanted}", built_in[wanted]
        if source in seen:
            chain = " -> ".join(Path(step).name for step in [*seen, source])
            raise ProfileError(f"profiles inherit from each other in a circle: {chain}; change one `inherits`")
        seen.append(source)
        layers.append(_check(layer, where, file.parent))
        wanted, folders = layer.get("inherits"), [file.parent]
    return layers


def _read(file: Path) -> dict:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise ProfileError(f"cannot read the profile {file}: it is not a file")
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ProfileError(f"cannot read the profile {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ProfileError(f"{file}, line {line}: not UTF-8 text; save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{file} is not valid TOML: {error}") from error


def _check(layer: dict, where: str, folder: Path) -> dict:
    """Checks names, types and ranges of one layer; returns it with absolute paths."""
    checked = {}
    for name, value in layer.items():
        if name in TABLES:
            if not isinstance(value, dict):
                raise ProfileError(f"{where}: {name} is a table, write it as [{name}]")
            types = get_type_hints(TABLES[name])
            checked[name] = {key: _value(key, v, types, f"{where}, [{name}]", folder) for key, v in value.items()}
        else:
            checked[name] = _value(name, value, TOP_LEVEL | dict.fromkeys(TABLES), where, folder)
    return checked


def _value(key: str, value, types: dict, where: str, folder: Path):
    if key not in types:
        raise ProfileError(_unknown("key", key, types, where))
    expected = (get_args(types[key]) or (types[key],))[0]  # of `str | None`, str: in TOML, None is to leave it out
    accepted = (int, float) if expected is float else (expected,)
    if type(value) not in accepted:
        raise ProfileError(f"{where} {key}: expected {TYPE_NAMES[expected]}, got {value!r}")
    if expected in (int, float):
        limit = "0 or more" if key in MAY_BE_ZERO else "more than 0"
        if not math.isfinite(value) or value < 0 or (value == 0 and key not in MAY_BE_ZERO):
            raise ProfileError(f"{where} {key}: expected {limit}, got {value}")
    if key in PLACES:
        path = Path(value).expanduser()
        place = ""
        if value.startswith("data/"):
            place = str(ROOT / value)
        elif path.is_absolute() or value.startswith(("./", "../")):
            place = str((folder / path).resolve())
        if key == "metric":
            metrics = ROOT / "data" / "metrics"
            if not place or metrics not in Path(place).resolve().parents:
                raise ProfileError(
                    f"{where} metric: expected a folder in data/metrics, got {value!r}; a metric is a program, and a "
                    "profile runs none but those of the course"
                )
        if place:
            return place
        if value.count("/") != 1:
            hint = "expected a Hub id such as stanfordnlp/imdb, or a path that starts with data/, ./, ../ or /"
            raise ProfileError(f"{where} {key}: {hint}; got {value!r}")
    return value


def _unknown(kind: str, name: str, valid, where: str) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1)
    guess = f", did you mean {close[0]!r}?" if close else "."
    return f"{where}: unknown {kind} {name!r}{guess} There is: {', '.join(valid)}"


def _hub_ids(task: Task) -> list[str]:
    """What a task names on the Hub."""
    return [place for key in PLACES if (place := getattr(task, key, None)) and not Path(place).is_absolute()]


def _has_program(checkpoint: str) -> bool:
    """Whether a checkpoint in a folder names program code for the library to run, which would ask or do it."""
    try:
        config = json.loads((Path(checkpoint) / "config.json").read_bytes())
    except (OSError, ValueError):  # from_pretrained will say it
        return False
    return isinstance(config, dict) and "auto_map" in config


def _not_cached(task: Task) -> list[str]:
    """What a task names on the Hub and the cache does not hold, in words."""
    data = Path(os.environ.get("HF_DATASETS_CACHE") or cache_folder() / "datasets").expanduser()
    ids, missing = _hub_ids(task), []
    if task.dataset in ids:  # load_dataset offline reads only what it has prepared once
        plain = _letters(task.dataset)
        folders = [folder for folder in data.glob("*___*") if _letters(folder.name) == plain]
        prepared = f"{task.config or '*'}/*/{task.revision or '*'}/dataset_info.json"
        if not any(any(folder.glob(prepared)) for folder in folders):
            missing.append(f"data set {task.dataset}, config {task.config}, revision {show_value(task.revision)}")
    if task.checkpoint in ids:
        files = [cached(task.checkpoint, file, task.checkpoint_revision or "") for file in ("config.json", *WEIGHTS)]
        tokens = [cached(task.checkpoint, file, task.checkpoint_revision or "") for file in TOKENIZER]
        if not files[0] or not any(tokens) or not (isinstance(task, Pretraining) or any(files[1:])):
            missing.append(f"checkpoint {task.checkpoint}, revision {show_value(task.checkpoint_revision)}")
    return missing


def _letters(name: str) -> str:
    return name.replace("/", "").replace("_", "").lower()  # namespace/SomeName is cached as namespace___some_name
