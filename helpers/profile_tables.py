"""The tables of a profile: what a lesson's settings are called, and of which kind each is.

A table for a new lesson: a class here if none of these fits, a line in TABLES, and its values in profiles.toml.
"""

from dataclasses import dataclass, fields
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def show_value(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, str) and Path(value).is_absolute():
        path = Path(value)
        return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else f".../{path.name}"
    if isinstance(value, str) and len(value) == 40 and value.isalnum():  # a revision
        return value[:12]
    return str(value)


def html_table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every task loads: a data set and a checkpoint, each a Hub id (with its revision) or an absolute path."""

    dataset: str
    config: str | None = None
    revision: str | None = None
    checkpoint: str
    checkpoint_revision: str | None = None

    def _rows(self) -> list[tuple[str, str]]:
        return [(field.name, show_value(getattr(self, field.name))) for field in fields(self)]

    def __repr__(self) -> str:
        return "\n".join(f"{key:<28} {value}" for key, value in self._rows())

    def _repr_html_(self) -> str:
        return html_table(["", "value"], [list(row) for row in self._rows()])


@dataclass(frozen=True, kw_only=True, repr=False)
class Classification(Task):
    """Fine-tuning a classifier. Names as in TrainingArguments and the example scripts of transformers.

    `max_train_samples` and `max_eval_samples` are rows of training and validation, `max_test_samples` of the test
    split; `max_length` counts tokens; `warmup_steps` below 1 is a share of all steps.
    """

    max_train_samples: int
    max_eval_samples: int
    max_test_samples: int
    max_length: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    num_train_epochs: float
    learning_rate: float
    weight_decay: float
    warmup_steps: float
    logging_steps: int
    bf16: bool
    seed: int


@dataclass(frozen=True, kw_only=True, repr=False)
class PairClassification(Classification):
    """MRPC, SQuAD: `metric` is what `evaluate.load` takes. A metric is a program, so only ours in data/metrics run."""

    metric: str


@dataclass(frozen=True, kw_only=True, repr=False)
class QuestionAnswering(PairClassification):
    """SQuAD: rows are questions. A long context is read in windows of `max_length` tokens, the question included.

    `doc_stride` tokens are in two neighbouring windows; `max_answer_length` counts tokens of an answer.
    """

    doc_stride: int
    max_answer_length: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Instructions(Classification):
    """Conversations; `max_new_tokens` is how many tokens an answer may have when the model is tried."""

    max_new_tokens: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Pretraining(Task):
    """A language model from scratch: `checkpoint` gives the tokenizer and the shape, `block_size` counts tokens.

    `config_overrides` changes the shape, as in "n_layer=4,n_embd=256".
    """

    config_overrides: str = ""
    block_size: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    max_steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: float
    bf16: bool
    seed: int


@dataclass(frozen=True, kw_only=True, repr=False)
class DomainAdaptation(Task):
    """A language model trained further on a field, and a classifier of that field.

    `max_train_tokens` and `max_eval_tokens` count tokens of the field, `block_size` those of a block. Of the labelled
    rows, which need not exist, `max_labelled_samples` train a classifier and `max_test_samples` test it; it reads
    `max_length` tokens of each and trains `classifier_epochs` times on them, with `classifier_learning_rate`.
    """

    block_size: int
    max_train_tokens: int
    max_eval_tokens: int
    per_device_train_batch_size: int
    num_train_epochs: float
    learning_rate: float
    weight_decay: float
    warmup_steps: float
    max_labelled_samples: int
    max_test_samples: int
    max_length: int
    classifier_epochs: float
    classifier_learning_rate: float
    bf16: bool
    seed: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Preferences(Classification):
    """Pairs of answers: batches and samples count pairs, `max_length` the tokens of a request and an answer.

    `num_generations` answers are sampled for each request in the `grpo_max_steps` steps with a reward.
    """

    max_new_tokens: int
    beta: float
    num_generations: int
    grpo_max_steps: int


TABLES = {
    "concepts": Classification,
    "imdb": Classification,
    "openwebtext": Pretraining,
    "mrpc": PairClassification,
    "documents": Classification,
    "conll2003": Classification,
    "lora": Classification,
    "domain": DomainAdaptation,
    "squad": QuestionAnswering,
    "instructions": Instructions,
    "preferences": Preferences,
}
