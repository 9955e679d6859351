"""An answer to a question, marked in a text; or none."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.answers import best, best_threshold, exact, f1, normalise
from takehome.errors import InputError
from takehome.reading import Reading, answers_of, best_spans, best_windows, cut, mask, room_for_question
from takehome.tasks.entities import draw_mistakes
from takehome.tasks.task import Task, column, sequence_digest, sequences
from takehome.wording import counted

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from takehome.tokenizer import LoadedTokenizer

KINDS = ("missed", "invented", "other ends", "another place")
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[。！？])")
NAME_OR_NUMBER = re.compile(r"[A-Z][\w'-]*(?: [A-Z][\w'-]*)+|\d+(?: [A-Z]\w+)?")
USAGE = """import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

place = "path/to/this/directory"
tokenizer = AutoTokenizer.from_pretrained(place)
model = AutoModelForQuestionAnswering.from_pretrained(place).eval()
question, text = "A question?", "A text that answers it."

rows = tokenizer(question, text, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets, parts = rows.pop("offset_mapping")[0].tolist(), rows.sequence_ids()
with torch.no_grad():
    found = model(**rows)
start, end = found.start_logits[0], found.end_logits[0]
inside = [n for n, part in enumerate(parts) if part == 1]
how = model.config.question_answering
pairs = [(a, b) for a in inside for b in inside if a <= b < a + how["max_answer_length"]]
first, last = max(pairs, key=lambda pair: start[pair[0]] + end[pair[1]])
none = torch.sigmoid(start[0] + end[0] - start[first] - end[last])
answer = text[offsets[first][0] : offsets[last][1]].strip()
print(answer if none <= how["no_answer_threshold"] else "no answer")"""


@dataclass(frozen=True)
class KindScores:
    """Of the questions that have an answer, or of those that have none; `n` is how many there are."""

    exact: float
    f1: float
    n: int


@dataclass(frozen=True)
class QuestionScores:
    """Exact match and F1 of the words, as SQuAD counts them; from 0 to 1."""

    n: int
    exact: float
    f1: float
    threshold: float  # a no-answer probability above it is no answer
    per_kind: dict[str, KindScores]
    mistakes: dict[str, int]  # by what is wrong


class Questions(Task):
    name = "questions"
    model = "AutoModelForQuestionAnswering"
    pipeline = "question-answering"  # of the model index: transformers 5 has no such pipeline
    memory = "question-answering"
    adapters = "QUESTION_ANS"
    best = "f1"
    shown = {"f1": "F1", "exact": "exact match"}  # noqa: RUF012
    kinds = {"f1": "f1", "exact": "exact_match"}  # noqa: RUF012
    chooses = True
    shortest, longest = 32, 384
    beside = ("piece", "offsets", "accepted")

    def counted(self) -> list[str]:
        return ["with an answer"]

    def strata(self, dataset: Dataset) -> np.ndarray:
        return np.array([len(own) > 0 for own in self.answers(dataset)], int)

    def answers(self, dataset: Dataset, rows: np.ndarray | None = None) -> np.ndarray:
        """The accepted answers of each question, as texts; none if there is no answer."""
        return sequences((dataset if rows is None else dataset.select(rows)).select_columns("answers")[:]["answers"])

    def digest(self, dataset: Dataset) -> bytes:
        names = ["question", "answers", "start"]
        return sequence_digest(list(zip(*dataset.select_columns(names)[:].values(), strict=True)))

    def counts(self, answers: np.ndarray) -> list[int]:
        """Questions with an answer, and without."""
        having = sum(len(own) > 0 for own in answers)
        return [having, len(answers) - having]

    def describe(self, counts: list[int]) -> tuple[str, str]:
        none = f"{counts[1]:,} have none" if counts[1] else "all have one: the model will always answer"
        return "answers", f"{counts[0]:,} questions have an answer in their text, {none}"

    # --- windows

    def check(self, loaded: LoadedTokenizer, max_length: int | None) -> None:
        if max_length and max_length < self.shortest:
            raise InputError(
                f"--max-length {max_length}: a question and a text need {self.shortest} tokens at least: take more"
            )
        if not loaded.tokenizer.is_fast:
            raise InputError(f"--checkpoint {loaded.checkpoint}: its tokenizer tells no places of tokens: take another")

    def plan(self, sample: list[dict[str, list]], length: int) -> None:
        tokens = [b - a + 1 for batch in sample for a, b, *_ in batch["labels"] if a > 0]
        usual = float(np.percentile(tokens, 99)) if tokens else 1
        longest = min(length // 2, max(8, math.ceil(1.5 * usual)))
        self.reading = Reading(length, min(length // 2, max(length // 4, longest)), longest)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, batch: dict[str, list], length: int, truncation: bool = True
    ) -> dict[str, list]:
        """The windows of a batch of questions: see takehome/reading.py."""
        return cut(tokenizer, batch, length, self.reading.doc_stride if self.reading else length // 4)

    def remark_windows(self, train: Dataset, answers: np.ndarray) -> list[str]:
        owner, labels = column(train, "owner"), column(train, "labels")
        lost = sum(len(own) > 0 for own in answers) - len(np.unique(owner[labels[:, 0] > 0]))
        room = room_for_question(self.reading.max_length, self.reading.doc_stride)
        cut_short = len(np.unique(owner[labels[:, 2] > room]))  # where the text begins behind it
        said = [f"{counted(lost, 'training answer')} whole in no window: taken for none."] if lost else []
        return said + [f"{counted(cut_short, 'training question')} cut after {room} tokens."] * (cut_short > 0)

    def tell_length(self, share: float) -> str:
        return f"reads {share:.1%} in several windows"

    def read(self, length: int, share: float) -> str:
        return (
            f"It reads a text in windows of {length:,} tokens, the question included; {share:.1%} of the texts need "
            "more than one."
        )

    def look_at_windows(self, dataset: Dataset) -> None:
        self.windows = dataset

    def truth(self, labels: Any) -> np.ndarray:
        _, first = np.unique(column(self.windows, "owner"), return_index=True)
        return sequences(self.windows.select(first).select_columns("accepted")[:]["accepted"])

    def outputs(self, predictions: np.ndarray) -> np.ndarray:
        chosen, none = best_windows(predictions, column(self.windows, "owner"))
        read = self.windows.select(chosen).select_columns(["piece", "offsets"])[:]
        return answers_of(predictions[chosen], none, read["piece"], read["offsets"])

    # --- the model

    def head(self) -> dict[str, Any]:
        return {}

    def finish(self, model: PreTrainedModel) -> None:
        how = self.reading
        model.config.question_answering = {
            "no_answer_threshold": self.threshold,
            "max_length": how.max_length,
            "doc_stride": how.doc_stride,
            "max_answer_length": how.max_answer_length,
        }

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable:
        tokenizer.padding_side = "right"  # or the places of tokens would move
        return super().collator(tokenizer)

    def loss(self, weights: np.ndarray | None) -> Callable[..., torch.Tensor]:
        """Cross-entropy of the start and of the end, their mean; the question and the padding have no part in it."""
        import torch

        def loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
            allowed = mask(labels, outputs.start_logits.shape[1])
            allowed[:, 0] = True
            total = sum(
                torch.nn.functional.cross_entropy(
                    logits.float().masked_fill(~allowed, -torch.inf), labels[:, n], reduction="sum"
                )
                for n, logits in enumerate((outputs.start_logits, outputs.end_logits))
            )
            # Trainer counts the numbers in the labels
            windows = len(labels) if num_items_in_batch is None else num_items_in_batch / labels.shape[1]
            return total / (2 * windows)

        return loss

    def reduce(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """Five numbers a window: the logits of all tokens of a large set would not fit into memory."""
        return best_spans(logits[0], logits[1], labels, self.reading.max_answer_length)

    # --- how good it is

    @property
    def threshold(self) -> float:
        return self.thresholds[0] if self.thresholds else 1.0

    def final(self, outputs: np.ndarray) -> list[str]:
        pairs = zip(outputs["text"], outputs["none"], strict=True)
        return ["" if none > self.threshold else text for text, none in pairs]

    def choose_thresholds(self, answers: np.ndarray, outputs: np.ndarray) -> None:
        """The best F1 on these rows; without rows that have no answer there is nothing to choose."""
        having = [len(own) > 0 for own in answers]
        self.thresholds = [1.0]
        if not all(having):
            scores = [best(f1, text, own) for text, own in zip(outputs["text"], answers, strict=True)]
            rows = list(zip(outputs["text"], outputs["none"].tolist(), having, strict=True))
            last = best_threshold(scores, rows)[1]  # that is still answered
            above = min((none for _, none, _ in rows if none > last), default=1.0)
            self.thresholds = [(last + above) / 2]  # as far from both as it can be

    def validate(self, predicted: EvalPrediction) -> dict[str, float]:
        answers, outputs = self.truth(predicted.label_ids), self.outputs(predicted.predictions)
        self.choose_thresholds(answers, outputs)
        return self.headline(self.measure(answers, outputs))

    def measure(self, answers: np.ndarray, outputs: np.ndarray) -> QuestionScores:
        return self.score(answers, self.final(outputs))

    def score(self, answers: np.ndarray, texts: list[str]) -> QuestionScores:
        """All metrics of final answers, an empty one for none."""
        pairs = list(zip(texts, answers, strict=True))
        scores = np.array([(best(exact, *pair), best(f1, *pair)) for pair in pairs]).reshape(-1, 2)
        having = np.array([len(own) > 0 for own in answers], bool)
        each = {}
        for name, rows in (("with an answer", having), ("without an answer", ~having)):
            means = scores[rows].mean(0) if rows.any() else (0.0, 0.0)
            each[name] = KindScores(float(means[0]), float(means[1]), int(rows.sum()))
        mistakes = Counter(mistake_of(*pair) for pair in pairs)
        return QuestionScores(
            n=len(pairs),
            exact=float(scores[:, 0].mean()),
            f1=float(scores[:, 1].mean()),
            threshold=self.threshold,
            per_kind=each,
            mistakes={kind: mistakes[kind] for kind in KINDS},
        )

    def baselines(self, train: Dataset, validation: Dataset, test: Dataset) -> dict[str, dict[str, float]]:
        asked = self.answers(test)
        closest = [closest_sentence(row["question"], row["context"]) for row in test]
        named = [found[0] if (found := NAME_OR_NUMBER.search(part)) else part for part in closest]
        lazy = {
            "no answer": [""] * len(asked),
            "the sentence with most words of the question": closest,
            "the first name or number in that sentence": named,
        }
        return {name: self.headline(self.score(asked, texts)) for name, texts in lazy.items()}

    # --- rows to look at

    def worst(self, answers: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """What is wrong with the words, the surer the worse."""
        texts = self.final(outputs)
        sure = [row["probability"] if text else row["none"] for text, row in zip(texts, outputs, strict=True)]
        wrong = [1 - best(f1, text, own) for text, own in zip(texts, answers, strict=True)]
        return np.array(wrong) * np.array(sure)

    def is_wrong(self, answers: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        pairs = zip(self.final(outputs), answers, strict=True)
        return np.array([mistake_of(text, own) is not None for text, own in pairs], bool)

    def show_answers(self, answers: np.ndarray) -> list[str]:
        return [" / ".join(own) for own in answers]

    def show_outputs(self, outputs: np.ndarray, texts: list[str]) -> dict[str, list]:
        return {
            "predicted": self.final(outputs),
            "probability": [f"{value:.4f}" for value in outputs["probability"]],
            "no_answer_probability": [f"{value:.4f}" for value in outputs["none"]],
        }

    # --- what is told of it

    def purpose(self) -> str:
        none = ", or says that there is none" if self.threshold < 1 else ""
        return f"Marks the answer to a question in a text{none}."

    def usage(self, pair: bool) -> str:
        return USAGE

    def table(self, scores: QuestionScores, train: list[int]) -> list[list[str]]:
        rows = [["questions", "F1", "exact match", "in test", "in training"]]
        for (name, row), seen in zip(scores.per_kind.items(), train, strict=True):
            values = [f"{row.f1:.3f}", f"{row.exact:.3f}"] if row.n else ["", ""]
            rows.append([name, *values, f"{row.n:,}", f"{seen:,}"])
        return rows

    def picture(self, scores: QuestionScores) -> tuple[str, str, Figure]:
        title = f"{scores.n:,} questions, F1 {scores.f1:.3f}"
        figure = draw_mistakes(scores.mistakes, "questions", title)
        return "mistakes.png", "Mistakes on the test rows, by kind", figure

    def limits(self, scores: QuestionScores) -> list[str]:
        mistakes = ", ".join(f"{count:,} {kind}" for kind, count in scores.mistakes.items())
        lines = [f"Its mistakes on the test rows: {mistakes}."]
        if self.threshold >= 1:
            return [*lines, "It always answers, also where the text holds no answer."]
        return [*lines, f"It gives no answer where the no-answer probability is above {scores.threshold:.4g}."]

    def report(self, scores: QuestionScores) -> str:
        lines = [f"{'questions':<32} {'F1':>9} {'exact':>9} {'number':>9}"]
        for name, row in scores.per_kind.items():
            lines += [f"{name:<32} {row.f1:>9.3f} {row.exact:>9.3f} {row.n:>9,}"] * (row.n > 0)
        head = "   ".join(f"{shown} {getattr(scores, name):.4f}" for name, shown in self.shown.items())
        mistakes = ", ".join(f"{count:,} {kind}" for kind, count in scores.mistakes.items())
        return "\n".join([*lines, "", f"questions {scores.n:,}   {head}", f"mistakes: {mistakes}"])


def mistake_of(text: str, answers: list[str]) -> str | None:
    """What is wrong with a final answer, in a word or two of KINDS; None if nothing is."""
    if best(exact, text, answers):
        return None
    if not text or not answers:
        return "missed" if answers else "invented"
    said = set(normalise(text).split())
    return "other ends" if any(said & set(normalise(answer).split()) for answer in answers) else "another place"


def closest_sentence(question: str, context: str) -> str:
    """The sentence of a text that has most words in common with a question."""
    asked = set(re.findall(r"\w+", question.lower()))
    parts = [part.strip() for part in SENTENCE.split(context) if part and part.strip()] or [context.strip()]
    return max(parts, key=lambda part: len(set(re.findall(r"\w+", part.lower())) & asked))
