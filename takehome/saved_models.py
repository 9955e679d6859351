"""Loads a model that was fine-tuned, with its tokenizer and its task, to measure it or to ask it."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.allocator import keep_freed_memory
from helpers.hub import check_hub
from helpers.hub_errors import explain
from takehome.accelerator import device_kind
from takehome.checkpoints import damage, read_marker
from takehome.errors import InputError, one_line
from takehome.models import SAFE, load_model
from takehome.reading import Reading
from takehome.tasks import TASKS, Task, make_task, task_of_model
from takehome.tokenizer import longest_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Classifier:
    """A model with its tokenizer, on its device; `max_length` is the number of tokens to read of a text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    task: str

    @property
    def names(self) -> list[str]:
        """Names of the classes by id; a model that was saved without names has LABEL_0 …, which stand for 0 …"""
        config = self.model.config
        if self.task == "questions":
            return []
        names = [config.id2label[n] for n in range(config.num_labels)]
        return [str(n) for n in range(len(names))] if names == [f"LABEL_{n}" for n in range(len(names))] else names

    def make_task(self) -> Task:
        """What is asked of the model, with its thresholds if it has some."""
        config, reading = self.model.config, None
        thresholds = getattr(config, "thresholds", None)
        if self.task == "questions":
            how = getattr(config, "question_answering", None) or {}  # of a model that another program trained
            thresholds = [how.get("no_answer_threshold", 1.0)]
            stride = min(how.get("doc_stride", self.max_length // 4), self.max_length // 2)
            reading = Reading(self.max_length, stride, how.get("max_answer_length", 30))
        return make_task(self.task, self.names, thresholds=thresholds, reading=reading)


def check_model(place: str) -> None:
    """Says what is missing from a directory, and whether something was changed since the model was written.

    Raises:
        InputError: no such directory, or no classifier in it.
    """
    path = Path(place)
    if path.is_dir():
        if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
            raise InputError(f"{place}: holds an adapter only; merge it into its model with peft's merge_and_unload")
        if not (path / "config.json").exists():
            raise InputError(f"{place}: holds no config.json; give the directory that save_pretrained wrote")
        if read_marker(path) and (change := damage(path)):
            print(one_line(f"{place} is not as it was written: {change}", 10_000), flush=True)
    elif path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", place) or path.parent.is_dir():
        raise InputError(f"{place}: no such directory; give one that a training program wrote")
    else:
        check_hub()  # before the libraries are imported: they would wait long for a Hub that is not there


def load_classifier(place: str, max_length: int | None) -> Classifier:
    """A classifier with a trained head, in float32, on a GPU if there is one.

    Raises:
        InputError: it cannot be loaded, has no trained head, or takes fewer tokens.
    """
    check_model(place)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **SAFE)
        config = transformers.AutoConfig.from_pretrained(place, **SAFE)
        task = task_of_model(config, training_data(place).get("task"))
        loaded = load_model(getattr(transformers, TASKS[task].model), place, new_head=True)
    except InputError:
        raise
    except Exception as error:  # each part raises its own
        raise InputError(explain(error, place)) from error
    model = loaded.model
    if loaded.new:
        raise InputError(f"{place}: has no trained classification head ({model.config.model_type}); fine-tune it first")
    if tokenizer.pad_token_id is None:  # GPT-2 and the like
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    longest = longest_text(model.config, tokenizer)
    if max_length is not None and longest is not None and max_length > longest:
        raise InputError(f"--max-length {max_length}: this model takes {longest} tokens at most")
    if task == "questions" and (max_length or longest) < (least := TASKS[task].shortest):
        raise InputError(f"--max-length {max_length or longest}: a question and a text need {least} tokens at least")
    keep_freed_memory()
    kept = getattr(getattr(tokenizer, "backend_tokenizer", None), "truncation", None) or {"max_length": 512}
    trained = training_data(place).get("max_length", kept["max_length"])
    if task == "questions":
        trained = (getattr(model.config, "question_answering", None) or {}).get("max_length", min(384, trained))
    return Classifier(model.eval().to(device_kind()), tokenizer, max_length or min(longest or trained, trained), task)


def training_data(place: str) -> dict[str, Any]:
    """What fine_tune.py noted: the columns and the tokens that were read; empty if it was another program."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        saved = json.loads((Path(place) / "metrics.json").read_text("utf-8"))
        return saved["settings"] | saved.get("data", {})
    return {}
