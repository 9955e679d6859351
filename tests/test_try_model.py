"""scripts/try_model.py: what the page says of a text, for every task, and that it serves this machine alone."""

import threading
import urllib.request

import pytest
import try_model

from helpers.profiles import ROOT
from takehome.saved_models import load_classifier
from takehome.tasks import make_task

PLACE = ROOT / "data/models/distilbert"
LABELS = {
    "classification": ["a", "b"],
    "multi-label": ["late", "rude"],
    "regression": [],
    "tokens": ["O", "B-PER", "I-PER"],
    "questions": [],
}


@pytest.fixture(scope="module", params=LABELS)
def classifier(request, tmp_path_factory):
    """A model of each task whose head was drawn at random."""
    import torch
    import transformers

    torch.manual_seed(0)
    task = make_task(request.param, LABELS[request.param])
    folder = tmp_path_factory.mktemp("model")
    kind = getattr(transformers, task.model)
    kind.from_pretrained(PLACE, dtype=torch.float32, **task.head()).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(PLACE).save_pretrained(folder)
    return load_classifier(str(folder), None)


def test_the_answer_of_each_task(classifier, monkeypatch):
    text = "Anna Berg lives in Oslo, and the bill is late."
    answer = try_model.ask(classifier, text)
    if classifier.task == "tokens":
        assert "".join(piece for piece, _ in answer) == text
        assert {kind for _, kind in answer} <= {None, "PER"}
        assert try_model.ask(classifier, " ") == [(" ", None)]
    elif classifier.task == "regression":
        float(answer)
        assert try_model.ask(classifier, "") == ""
    elif classifier.task == "questions":
        asked = try_model.ask(classifier, "Who lives in Oslo?", text)
        assert answer == try_model.ask(classifier, " ", text) == {}  # no text, or no question
        assert next(iter(asked)) in text and 0 < next(iter(asked.values())) < 1
    else:
        shown = [name.partition(":")[0] for name in answer]
        assert shown == LABELS[classifier.task] and all(0 < value < 1 for value in answer.values())
        assert (sum(answer.values()) == pytest.approx(1)) == (classifier.task == "classification")
        assert try_model.ask(classifier, "") == {}
    if classifier.task == "multi-label":
        late, rude = answer.values()
        monkeypatch.setattr(classifier.model.config, "thresholds", [late - 0.01, rude + 0.01], raising=False)
        assert list(try_model.ask(classifier, text)) == ["late: yes", "rude: no"]


def test_pieces_of_a_text():
    text, words = "Anna Berg, Oslo", [(0, 4), (5, 9), (9, 10), (11, 15)]
    tags = ["B-PER", "I-PER", "O", "I-LOC"]
    assert try_model.mark(text, words, tags) == [("Anna Berg", "PER"), (", ", None), ("Oslo", "LOC")]
    assert try_model.mark(text, words, ["O"] * 4) == [(text, None)]


def test_it_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(try_model.importlib.util, "find_spec", lambda name: None)
    assert try_model.main([str(tmp_path)]) == 2
    assert "the page needs Gradio: pip install gradio" in capsys.readouterr().err
    assert try_model.main([str(tmp_path), "--port=80"]) == 2
    assert "argument --port: 80 is out of range" in capsys.readouterr().err


def test_the_page_serves_this_machine_alone(classifier, tmp_path, monkeypatch):
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed: SETUP.md says how")
    import gradio_client  # comes with it

    asked, opened = {}, threading.Event()

    def launch(self, **settings):
        asked.update(settings)
        opened.set()

    monkeypatch.setattr(gradio.Interface, "launch", launch)
    monkeypatch.setattr(gradio.Interface, "block_thread", lambda self: None)
    monkeypatch.setattr(try_model, "load_classifier", lambda *_: classifier)
    try_model.show(try_model.Options(str(tmp_path), 7861, False))
    assert opened.is_set() and asked["server_name"] == "127.0.0.1" and asked["share"] is False
    monkeypatch.undo()
    given = ["The bill is late.", "It is paid."][: 2 if classifier.task == "classification" else 1]
    page = try_model.page(classifier, "mine", pair=len(given) > 1)
    _, address, _ = page.launch(server_name="127.0.0.1", share=False, prevent_thread_lock=True, quiet=True)
    try:
        assert b"mine" in urllib.request.urlopen(address, timeout=60).read()
        found = gradio_client.Client(address, verbose=False).predict(*given, api_name="/answer")
    finally:
        page.close()
    answer = try_model.ask(classifier, *given)
    if isinstance(answer, dict):
        found = {own["label"]: pytest.approx(own["confidence"], abs=1e-6) for own in found["confidences"]}
    elif isinstance(answer, list):
        found = [(own["token"], own["class_or_confidence"]) for own in found]
    assert found == answer
