"""What every task answers; the defaults are those of a text, or a pair of texts, with one answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.values import hash64

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from takehome.reading import Reading
    from takehome.tasks.scores import Scale
    from takehome.tokenizer import LoadedTokenizer


def column(dataset: Dataset, name: str) -> np.ndarray:
    """A column of numbers [rows, ...]; nothing else is read."""
    return np.asarray(dataset.select_columns(name).with_format("numpy")[:][name])


class Task:
    """A task, with the names of its labels.

    Attributes:
        name: for --task.
        model: the Auto class of the model with its head.
        pipeline: the task of `transformers.pipeline`, and of the model index.
        memory: the task of helpers.memory.
        best: the metric of the validation rows that chooses the checkpoint; greater is better.
        shown: the headline metrics and how they are called.
        kinds: for each of `shown`, what the model index calls it.
        chooses: whether thresholds are chosen on validation rows, after training.
        shortest, longest: tokens of a row at most are between these, unless the user says so.
        beside: columns that `encode` makes for what comes after the model; training needs none of them.
    """

    name = ""
    model = "AutoModelForSequenceClassification"
    pipeline = "text-classification"
    memory = "sequence-classification"
    adapters = "SEQ_CLS"  # PEFT's name
    best = ""
    shown: dict[str, str] = {}  # noqa: RUF012
    kinds: dict[str, str] = {}  # noqa: RUF012
    chooses = False
    shortest, longest = 8, 10**9
    beside: tuple[str, ...] = ()

    def __init__(
        self,
        labels: list[str],
        scale: Scale | None = None,
        thresholds: list[float] | None = None,
        reading: Reading | None = None,
    ):
        self.labels, self.scale, self.thresholds, self.reading = labels, scale, thresholds, reading

    # --- the data

    def strata(self, dataset: Dataset) -> np.ndarray:
        """A number for each row; rows with the same number are shared out evenly among the parts [rows]."""
        raise NotImplementedError

    def answers(self, dataset: Dataset, rows: np.ndarray | None = None) -> Any:
        """The answers of some rows, or of all, as `measure` takes them."""
        return column(dataset if rows is None else dataset.select(rows), "label")

    def digest(self, dataset: Dataset) -> bytes:
        """The same for the same answers."""
        return self.answers(dataset).tobytes()

    def counted(self) -> list[str]:
        """The names of what `counts` counts."""
        return self.labels

    def counts(self, answers: Any) -> list[int]:
        """Rows of each label."""
        raise NotImplementedError

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, batch: dict[str, list], length: int, truncation: bool = True
    ) -> dict[str, list]:
        """Tokens of a batch of rows, and their answers as "labels" if it has any."""
        # A token has four or five characters: what is behind twenty for each need not be read.
        texts = [[text[: 20 * length] for text in batch[name]] for name in ("text", "pair") if name in batch]
        tokens = dict(tokenizer(*texts, truncation=truncation, max_length=length if truncation else None))
        for name in ("attention_mask", *(["token_type_ids"] if len(texts) < 2 else [])):
            tokens.pop(name, None)
        return tokens | ({"labels": batch["label"]} if "label" in batch else {})

    def check(self, loaded: LoadedTokenizer, max_length: int | None) -> None:
        """Raises InputError if a tokenizer, or the length that the user gave, cannot serve."""

    def plan(self, sample: list[dict[str, list]], length: int) -> None:
        """Decides from encoded batches how rows of at most `length` tokens are read."""

    def remark_windows(self, train: Dataset, answers: Any) -> list[str]:
        """What is worth knowing of the encoded training rows, whose answers these are."""
        return []

    def tell_length(self, share: float) -> str:
        """What happens to the share of the texts that are too long, in words that follow "--max-length 64"."""
        return f"cuts {share:.1%}"

    def read(self, length: int, share: float) -> str:
        """How much of a text is read, for a card."""
        return f"It reads the first {length:,} tokens of a text; {share:.1%} of the texts are longer."

    def describe(self, counts: list[int]) -> tuple[str, str]:
        """A line about the answers, with its topic; `counts` of all rows."""
        raise NotImplementedError

    # --- the model

    def head(self) -> dict[str, Any]:
        """What from_pretrained is told of the head."""
        names = {"id2label": dict(enumerate(self.labels)), "label2id": {name: n for n, name in enumerate(self.labels)}}
        return {"num_labels": len(self.labels), **names}

    def look_at(self, model: PreTrainedModel) -> None:
        """Learns what it must know of the model before it is trained."""

    def begin(self, train: Dataset) -> np.ndarray | None:
        """The biases of a new head [labels] that say how frequent each label is in the encoded training rows; None: as
        the library draws them."""
        return None

    def finish(self, model: PreTrainedModel) -> None:
        """Writes into a trained model what its outputs mean, before it is saved."""

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable:
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def loss(self, weights: np.ndarray | None) -> Callable[..., torch.Tensor]:
        """The loss of a step; `weights` are those of the classes, if there are."""
        raise NotImplementedError

    def reduce(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """What is kept of a batch that is evaluated."""
        return logits[0] if isinstance(logits, tuple) else logits

    # --- how good it is

    def look_at_windows(self, dataset: Dataset) -> None:
        """Learns which encoded rows are evaluated next."""

    def truth(self, labels: Any) -> Any:
        """The answers of the rows that are evaluated, as `measure` takes them; `labels` as Trainer gives them back."""
        return labels

    def outputs(self, predictions: Any) -> Any:
        """What the model's raw outputs say, as `measure` takes it."""
        return predictions

    def validate(self, predicted: EvalPrediction) -> dict[str, float]:
        """What is looked at while training."""
        raise NotImplementedError

    def choose_thresholds(self, answers: Any, outputs: Any) -> None:
        """Decides on validation rows what turns probabilities into answers."""

    def measure(self, answers: Any, outputs: Any) -> Any:
        """All metrics of labelled rows."""
        raise NotImplementedError

    def headline(self, scores: Any) -> dict[str, float]:
        """The metrics that stand beside those of the baselines, by their names in `shown`."""
        return {name: getattr(scores, name) for name in self.shown}

    def baselines(self, train: Dataset, validation: Dataset, test: Dataset) -> dict[str, dict[str, float]]:
        """What simpler ways score on the test rows: {name: headline}."""
        raise NotImplementedError

    # --- rows to look at

    def worst(self, answers: Any, outputs: Any) -> np.ndarray:
        """How far the model is from the answer of each row; the larger, the worse [rows]."""
        raise NotImplementedError

    def is_wrong(self, answers: Any, outputs: Any) -> np.ndarray:
        """Whether a row counts as a mistake [rows]."""
        raise NotImplementedError

    def show_answers(self, answers: Any) -> list[str]:
        """The answers as a table shows them [rows]."""
        raise NotImplementedError

    def show_outputs(self, outputs: Any, texts: list[str]) -> dict[str, list]:
        """The columns of a table of predictions for these texts: {name: [rows]}, the first "predicted"."""
        raise NotImplementedError

    # --- what is told of it

    def purpose(self) -> str:
        """What the model does, in a sentence."""
        raise NotImplementedError

    def usage(self, pair: bool) -> str:
        """Python that uses the model."""
        text = '{"text": "A text.", "text_pair": "Another."}' if pair else '"A text."'
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("{self.pipeline}", "path/to/this/directory")\n'
            f"classify({text}, truncation=True)"
        )

    def table(self, scores: Any, train: list[int]) -> list[list[str]]:
        """The rows of a table of all labels, its header first; `train` rows of each."""
        return []

    def picture(self, scores: Any) -> tuple[str, str, Figure] | None:
        """A picture of the test rows: its file, what it shows, and the figure."""
        return None

    def limits(self, scores: Any) -> list[str]:
        """What a user should not expect."""
        return []

    def report(self, scores: Any) -> str:
        """The metrics for a terminal."""
        raise NotImplementedError


def sequences(values: list) -> np.ndarray:
    """An array of lists, also where all have one length [rows]."""
    found = np.empty(len(values), object)
    for n, own in enumerate(values):
        found[n] = own
    return found


def sequence_digest(values: list) -> bytes:
    """For answers of different lengths."""
    return b"".join(hash64(repr(value)).to_bytes(8, "little") for value in values)
