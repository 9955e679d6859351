"""A tag for each word: names, amounts, dates, and whatever else was marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.errors import one_line
from takehome.tasks.classes import listed_counts, weak_labels
from takehome.tasks.task import Task, sequence_digest, sequences
from takehome.wording import cell

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import EvalPrediction, PreTrainedTokenizerBase

IGNORED = -100  # the label of what is no first token of a word
KINDS = ("missed", "invented", "other borders", "other kind", "other borders and kind")


@dataclass(frozen=True)
class EntityScores:
    """Of one kind of entity; `n` is how many there are."""

    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class TagScores:
    """All metrics of whole entities: one counts only if its borders and its kind are right, as seqeval counts."""

    n: int  # sentences
    entities: int
    f1: float
    precision: float
    recall: float
    per_kind: dict[str, EntityScores]
    mistakes: dict[str, int]  # by what is wrong


class Entities(Task):
    name = "tokens"
    model = "AutoModelForTokenClassification"
    pipeline = "token-classification"
    memory = "token-classification"
    adapters = "TOKEN_CLS"
    best = "f1"
    shown = {"f1": "entity F1", "precision": "precision", "recall": "recall"}  # noqa: RUF012
    kinds = {"f1": "f1", "precision": "precision", "recall": "recall"}  # noqa: RUF012

    def counted(self) -> list[str]:
        """The kinds of entities."""
        return sorted({label[2:] for label in self.labels if label != "O"})

    def strata(self, dataset: Dataset) -> np.ndarray:
        """By the rarest kind of entity in each sentence."""
        found = [{self.labels[n][2:] for n in row if self.labels[n] != "O"} for row in self.answers(dataset)]
        rarity = {kind: n for n, (kind, _) in enumerate(Counter(k for own in found for k in own).most_common(), 1)}
        return np.array([max((rarity[kind] for kind in own), default=0) for own in found])

    def answers(self, dataset: Dataset, rows: np.ndarray | None = None) -> np.ndarray:
        return sequences((dataset if rows is None else dataset.select(rows)).select_columns("label")[:]["label"])

    def digest(self, dataset: Dataset) -> bytes:
        return sequence_digest(self.answers(dataset))

    def counts(self, answers: list[list[int]]) -> list[int]:
        found = Counter(self.labels[n][2:] for row in answers for n in row if self.labels[n].startswith("B-"))
        return [found[kind] for kind in self.counted()]

    def describe(self, counts: list[int]) -> tuple[str, str]:
        return "entities", listed_counts(self.counted(), counts)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, batch: dict[str, list], length: int, truncation: bool = True
    ) -> dict[str, list]:
        """The first token of each word has its tag; the others, and the special ones, are not counted."""
        words = [text.split(" ") for text in batch["text"]]
        encoded = tokenizer(
            words, is_split_into_words=True, truncation=truncation, max_length=length if truncation else None
        )
        places = [encoded.word_ids(row) for row in range(len(words))]
        first = [
            [p is not None and p != before for p, before in zip(own, [None, *own], strict=False)] for own in places
        ]
        found = {"input_ids": encoded["input_ids"], "first": first}
        if "label" in batch:
            rows = zip(places, first, batch["label"], strict=True)
            found["labels"] = [
                [tags[p] if is_first else IGNORED for p, is_first in zip(own, firsts, strict=True)]
                for own, firsts, tags in rows
            ]
            del found["first"]
        return found

    def begin(self, train: Dataset) -> np.ndarray:
        """Most words are no entity: a head that begins there need not learn that first."""
        found = Counter(tag for row in train["labels"] for tag in row if tag != IGNORED)
        counts = np.array([found[n] for n in range(len(self.labels))])
        return np.log((counts + 1) / (counts.sum() + len(counts)))

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable:
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED)

    def loss(self, weights: np.ndarray | None) -> Callable[..., torch.Tensor]:
        """Cross-entropy, the mean over the words of a step."""
        import torch

        def loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
            logits = outputs.logits.float().flatten(0, 1)
            total = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
            return total / (num_items_in_batch or (labels != IGNORED).sum().clamp(min=1))

        return loss

    def named(self, answers: Any, outputs: Any) -> tuple[list[list[str]], list[list[str]]]:
        """Tags by name, of the words that were read: the truth, and the model's."""
        truth, guesses = [], []
        for own, output in zip(answers, outputs, strict=True):
            own, output = np.asarray(own), np.asarray(output)
            if output.ndim == 2:
                output = output.argmax(-1)
            if len(own) == len(output) and (own == IGNORED).any():  # by token, as Trainer has them
                own, output = own[own != IGNORED], output[own != IGNORED]
            output = np.append(output, np.full(max(0, len(own) - len(output)), self.labels.index("O")))  # cut: O
            truth.append([self.labels[n] for n in own])
            guesses.append([self.labels[n] for n in output[: len(own)]])
        return truth, guesses

    def validate(self, predicted: EvalPrediction) -> dict[str, float]:
        scores = self.measure(predicted.label_ids, predicted.predictions)
        return {name: getattr(scores, name) for name in self.shown}

    def measure(self, answers: Any, outputs: Any) -> TagScores:
        from seqeval.metrics.v1 import precision_recall_fscore_support
        from seqeval.scheme import IOB2

        truth, guesses = self.named(answers, outputs)
        guesses = [repaired(tags) for tags in guesses]
        names, each = self.counted(), {}
        settings = dict(zero_division=0, scheme=IOB2)
        there = sorted({tag[2:] for row in (*truth, *guesses) for tag in row if tag != "O"})
        columns = precision_recall_fscore_support(truth, guesses, average=None, **settings) if there else ((),) * 4
        found = {
            name: EntityScores(float(p), float(r), float(f), int(n))
            for name, p, r, f, n in zip(there, *columns, strict=True)
        }
        each = {name: found.get(name, EntityScores(0.0, 0.0, 0.0, 0)) for name in names}
        total = precision_recall_fscore_support(truth, guesses, average="micro", **settings) if there else (0.0,) * 3
        precision, recall, f1 = (float(value) for value in total[:3])
        mistakes = Counter(kind for own, guess in zip(truth, guesses, strict=True) for kind in mistakes_of(own, guess))
        return TagScores(
            n=len(truth),
            entities=sum(row.n for row in each.values()),
            f1=f1,
            precision=precision,
            recall=recall,
            per_kind=each,
            mistakes={kind: mistakes[kind] for kind in KINDS},
        )

    def baselines(self, train: Dataset, validation: Dataset, test: Dataset) -> dict[str, dict[str, float]]:
        """No entity at all; and a list of the words of the training rows, each with its commonest tag."""
        asked = self.answers(test)
        nothing = [[self.labels.index("O")] * len(row) for row in asked]
        seen: dict[str, Counter] = {}
        for text, row in zip(train["text"], self.answers(train), strict=True):
            for word, tag in zip(text.split(" "), row, strict=True):
                seen.setdefault(word, Counter())[tag] += 1
        common = {word: tags.most_common(1)[0][0] for word, tags in seen.items()}
        words = [[common.get(word, self.labels.index("O")) for word in text.split(" ")] for text in test["text"]]
        return {
            "no entity": self.headline(self.measure(asked, nothing)),
            "a list of the training rows' words": self.headline(self.measure(asked, words)),
        }

    def worst(self, answers: Any, outputs: Any) -> np.ndarray:
        truth, guesses = self.named(answers, outputs)
        return np.array([len(mistakes_of(a, repaired(b))) for a, b in zip(truth, guesses, strict=True)], float)

    def is_wrong(self, answers: Any, outputs: Any) -> np.ndarray:
        return self.worst(answers, outputs) > 0

    def show_answers(self, answers: Any) -> list[str]:
        return [" ".join(self.labels[n] for n in row) for row in answers]

    def show_outputs(self, outputs: Any, texts: list[str]) -> dict[str, list]:
        shown = []
        for text, row in zip(texts, outputs, strict=True):
            words, found = text.split(" "), sorted(entities(repaired([self.labels[n] for n in row])))
            shown.append("; ".join(f"{' '.join(words[start:end])} ({kind})" for start, end, kind in found))
        return {"predicted": shown, "tags": self.show_answers(outputs)}

    def purpose(self) -> str:
        return f"Marks {len(self.counted())} kinds of entities in a text: {', '.join(map(cell, self.counted()))}."

    def usage(self, pair: bool) -> str:
        return (
            "from transformers import pipeline\n\n"
            'mark = pipeline("token-classification", "path/to/this/directory", aggregation_strategy="first")\n'
            'mark("A text.")'
        )

    def table(self, scores: TagScores, train: list[int]) -> list[list[str]]:
        rows = [["entity", "precision", "recall", "F1", "in test", "in training"]]
        for (name, row), seen in zip(scores.per_kind.items(), train, strict=True):
            values = (f"{value:.3f}" for value in (row.precision, row.recall, row.f1))
            rows.append([cell(name), *values, f"{row.n:,}", f"{seen:,}"])
        return rows

    def picture(self, scores: TagScores) -> tuple[str, str, Figure]:
        title = f"{scores.entities:,} entities in {scores.n:,} sentences, F1 {scores.f1:.3f}"
        return "mistakes.png", "Mistakes on the test rows, by kind", draw_mistakes(scores.mistakes, "entities", title)

    def limits(self, scores: TagScores) -> list[str]:
        mistakes = ", ".join(f"{count:,} {kind}" for kind, count in scores.mistakes.items())
        return [f"Its mistakes on the test rows: {mistakes}.", *weak_labels(scores.per_kind)]

    def report(self, scores: TagScores) -> str:
        lines = [f"{'entity':<32} {'precision':>9} {'recall':>9} {'F1':>9} {'number':>9}"]
        for name, row in scores.per_kind.items():
            lines.append(
                f"{one_line(name, 32):<32} {row.precision:>9.3f} {row.recall:>9.3f} {row.f1:>9.3f} {row.n:>9,}"
            )
        head = "   ".join(f"{shown} {getattr(scores, name):.4f}" for name, shown in self.shown.items())
        mistakes = ", ".join(f"{count:,} {kind}" for kind, count in scores.mistakes.items())
        return "\n".join([*lines, "", f"sentences {scores.n:,}   {head}", f"mistakes: {mistakes}"])


def repaired(tags: list[str]) -> list[str]:
    """A model's tags as BIO: an I that continues nothing opens an entity."""
    before = ["O", *tags[:-1]]
    return [
        f"B-{t[2:]}" if t[0] == "I" and (b == "O" or b[2:] != t[2:]) else t for t, b in zip(tags, before, strict=True)
    ]


def entities(tags: list[str]) -> set[tuple[int, int, str]]:
    """(first word, word behind the last, kind) of each entity."""
    starts = [n for n, tag in enumerate(tags) if tag[0] == "B"]
    found = set()
    for start in starts:
        end = start + 1
        while end < len(tags) and tags[end] == f"I-{tags[start][2:]}":
            end += 1
        found.add((start, end, tags[start][2:]))
    return found


def mistakes_of(truth: list[str], guesses: list[str]) -> list[str]:
    """What is wrong with each entity that is not as it should be, in a word or two of KINDS."""
    there, said = entities(truth), entities(guesses)
    found, used = [], set()
    for start, end, kind in sorted(there - said):
        near = [own for own in said - there if own[0] < end and own[1] > start and own not in used]
        if not near:
            found.append("missed")
            continue
        own = max(near, key=lambda own: (min(own[1], end) - max(own[0], start), own[2] == kind))
        used.add(own)
        same_place, same_kind = own[:2] == (start, end), own[2] == kind
        found.append("other kind" if same_place else "other borders" if same_kind else "other borders and kind")
    return found + ["invented"] * len(said - there - used)


def draw_mistakes(mistakes: dict[str, int], what: str, title: str) -> Figure:
    """A bar for each kind of mistake."""
    from matplotlib.figure import Figure

    from helpers.palette import COLOURS

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    names = list(mistakes)[::-1]
    axes.barh(names, [mistakes[name] for name in names], color=COLOURS[1])
    axes.set_xlabel(what)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
