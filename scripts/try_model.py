"""Opens a page on this machine to try a fine-tuned model by hand: a text in, its labels, entities or answer out.

    python scripts/try_model.py outputs/mine

The page is for this machine alone: it listens on 127.0.0.1, and nothing is sent anywhere. It needs Gradio:
pip install gradio
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.commandline import Parser, number, run_program
from takehome.entity_files import WORD
from takehome.errors import InputError, one_line
from takehome.reading import answer_questions
from takehome.saved_models import Classifier, load_classifier, training_data
from takehome.tasks.classes import softmax
from takehome.tasks.entities import entities, repaired
from takehome.tasks.labels import odds

if TYPE_CHECKING:
    import gradio

NAME = Path(__file__).name


@dataclass(frozen=True)
class Options:
    """The command line."""

    model: str
    port: int
    open: bool


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """The command line.

    Raises:
        InputError: an option is unknown, missing or out of range.
    """
    parser = Parser(prog=NAME, description=__doc__)
    parser.add_argument("model", help="directory of a fine-tuned model")
    parser.add_argument("--port", type=number(int, 1024, 65535), default=7860)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return Options(**vars(parser.parse_args(arguments)))


def ask(classifier: Classifier, text: str, pair: str | None = None) -> Any:
    """What a model says of a text.

    Returns:
        Probabilities by label, where there may be several each with what the model decides; for a score the number as a
        text; for entities pieces of the text, each with its kind or None; for questions, of which `text` is one and
        `pair` the text about it, the answer with its probability.
    """
    import torch

    if classifier.task == "questions":
        return answer(classifier, text, pair or "")

    task, words = classifier.make_task(), [(found.start(), found.end()) for found in WORD.finditer(text)]
    if not words:
        return {"tokens": [(text, None)], "regression": ""}.get(classifier.task, {})
    shown = " ".join(text[start:end] for start, end in words) if classifier.task == "tokens" else text
    batch = {"text": [shown]} | ({"pair": [pair]} if pair is not None else {})
    encoded = task.encode(classifier.tokenizer, batch, classifier.max_length)
    first = encoded.pop("first", None)
    rows = classifier.tokenizer.pad(encoded, return_tensors="pt").to(classifier.model.device)
    with torch.inference_mode():
        outputs = classifier.model(**rows).logits.float().cpu().numpy()
    if first:
        return mark(text, words, [classifier.names[n] for n in outputs[0].argmax(-1)[np.array(first[0])]])
    if classifier.task == "regression":
        return f"{outputs.ravel()[0]:.4g}"
    if classifier.task == "multi-label":
        decided = zip(classifier.names, odds(outputs)[0], task.decide(outputs)[0], strict=True)
        return {f"{one_line(name, 60)}: {'yes' if yes else 'no'}": float(p) for name, p, yes in decided}
    return {one_line(name, 60): float(p) for name, p in zip(classifier.names, softmax(outputs)[0], strict=True)}


def answer(classifier: Classifier, question: str, context: str) -> dict[str, float]:
    """The answer that a text gives to a question, with its probability."""
    if not question.strip() or not context.strip():
        return {}
    task, batch = classifier.make_task(), {"question": [question], "context": [context]}
    found = answer_questions(classifier.model, classifier.tokenizer, batch, task.reading, 8)
    text = task.final(found)[0]
    return {text: float(found["probability"][0])} if text else {"no answer": float(found["none"][0])}


def mark(text: str, words: list[tuple[int, int]], tags: list[str]) -> list[tuple[str, str | None]]:
    """Pieces of a text, each with the kind of entity that it is, or None."""
    pieces, end = [], 0
    for first, behind, kind in sorted(entities(repaired(tags))):
        start, stop = words[first][0], words[behind - 1][1]
        pieces += [(text[end:start], None), (text[start:stop], kind)]
        end = stop
    return [piece for piece in [*pieces, (text[end:], None)] if piece[0]]


def page(classifier: Classifier, name: str, pair: bool) -> gradio.Interface:
    """The page, not open yet."""
    import gradio

    names = ["Question", "Text"] if classifier.task == "questions" else ["Text", "Second text"][: 1 + pair]
    texts = [gradio.Textbox(label=name, lines=1 if name == "Question" else 4) for name in names]
    answers = {"tokens": gradio.HighlightedText, "regression": gradio.Textbox}
    answer = answers.get(classifier.task, gradio.Label)(label="Answer")
    return gradio.Interface(
        lambda *given: ask(classifier, *given),
        texts,
        answer,
        title=name,
        description=f"{classifier.task}; at most {classifier.max_length} tokens of a text are read",
        flagging_mode="never",
        api_name="answer",
    )


def show(options: Options) -> None:
    """Loads the model, and serves the page until Ctrl-C."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if not importlib.util.find_spec("gradio"):
        raise InputError("the page needs Gradio: pip install gradio==6.31.0")
    classifier = load_classifier(options.model, None)
    pair = training_data(options.model).get("pair_column") is not None
    made = page(classifier, Path(options.model).name, pair)
    try:
        served = dict(server_name="127.0.0.1", server_port=options.port, share=False)
        made.launch(**served, inbrowser=options.open, prevent_thread_lock=True)
    except OSError as error:
        raise InputError(f"--port {options.port} is taken: name another") from error
    print(f"http://127.0.0.1:{options.port} shows the model; Ctrl-C ends it", flush=True)
    made.block_thread()


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status; what the user has to change is told in one line."""
    return run_program(NAME, lambda: show(parse_arguments(arguments)), lambda: None, lambda: "the page is closed")


if __name__ == "__main__":
    sys.exit(main())
