"""scripts/instruct.py: from a file of conversations to a model that answers, stops, and says how good it is."""

import json
import random
from pathlib import Path

import instruct
import pytest

from takehome.conversations import add_template, encode, end_of_turn, parts, read_conversations
from takehome.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
LLAMA, GPT2 = ROOT / "data/models/llama", ROOT / "data/models/gpt2"
TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Say cat."},
    {"role": "assistant", "content": "cat"},
    {"role": "user", "content": "Again."},
    {"role": "assistant", "content": "cat cat"},
]


def tokenizer_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def write(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    rng, rows = random.Random(0), []
    for _ in range(150):
        word = rng.choice(["cat", "dog", "river", "tree", "spoon"])
        turns = [{"role": "user", "content": f"Say {word}."}, {"role": "assistant", "content": word}]
        rows.append({"messages": turns, "another column": 1})
    return write(tmp_path_factory.mktemp("talks") / "talks.jsonl", rows)


@pytest.fixture(scope="module")
def done(talks, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "assistant"
    more = ["--learning-rate", "2e-3", "--num-train-epochs", "3", "--use-cpu"]
    command = ["--data", str(talks), "--output-dir", str(output), "--checkpoint", str(LLAMA), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert instruct.main(command) == 0
    return output


def test_it_writes_a_model_that_a_pipeline_asks(done):
    from transformers import pipeline

    chat = pipeline("text-generation", str(done), device="cpu")
    said = [
        chat([{"role": "user", "content": f"Say {word}."}], max_new_tokens=12, do_sample=False)[0]["generated_text"]
        for word in ("river", "dog")
    ]
    assert [turns[-1]["content"].strip() for turns in said] == ["river", "dog"]


def test_it_says_the_loss_on_answers_held_out(done):
    metrics = json.loads((done / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["loss_after"] < 0.5 < metrics["loss_before"]
    assert metrics["steps"] == 51  # 135 conversations in batches of 8, three times


def test_an_output_that_is_there_is_not_written_over(done, talks, capsys):
    before = sorted(path.name for path in done.iterdir())
    assert instruct.main(["--data", str(talks), "--output-dir", str(done), "--checkpoint", str(LLAMA)]) == 2
    assert "name another" in capsys.readouterr().err
    assert sorted(path.name for path in done.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "line 2: not JSON"),
        ("[]", 'line 2: has no list "messages"'),
        ('{"text": "a"}', 'line 2: has no list "messages"'),
        ('{"messages": [{"role": "human", "content": "a"}]}', "line 2, turn 1: its role"),
        ('{"messages": [{"role": "user", "content": " "}]}', "line 2, turn 1: its content"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "line 2: must hold a turn of the user and end"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, line, said):
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps({"messages": TALK}) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"talks\.jsonl") as caught:
        read_conversations(path)
    assert said in str(caught.value)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="name a file of JSON lines"):
        read_conversations(tmp_path / "nothing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"messages": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_conversations(tmp_path / "latin.jsonl")
    with pytest.raises(InputError, match="at least two"):
        read_conversations(write(tmp_path / "one.jsonl", [{"messages": TALK}]))


def test_a_line_break_of_unicode_is_no_end_of_a_line(tmp_path):
    turns = [{"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c"}]
    rows = read_conversations(write(tmp_path / "two.jsonl", [{"messages": turns}] * 2))
    assert rows == [turns, turns]


@pytest.mark.parametrize("folder", [LLAMA, GPT2])
def test_the_loss_is_on_the_answers_and_their_end(folder):
    tokenizer = tokenizer_of(folder)
    assert add_template(tokenizer) and not add_template(tokenizer)
    end = end_of_turn(tokenizer)
    row = encode(tokenizer, TALK, 1000)
    assert len(row["input_ids"]) == len(row["labels"])
    learned = [token for token in row["labels"] if token != -100]
    assert learned.count(end) == 2 and learned[-1] == end
    words = tokenizer.decode([token for token in learned if token != end]).split()
    assert "".join(words) == "catcatcat"
    text = "".join(text for text, _ in parts(tokenizer, TALK))
    assert text == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert encode(tokenizer, TALK, 5) == {name: values[:5] for name, values in row.items()}


def test_the_template_marks_the_same_tokens():
    tokenizer = tokenizer_of(LLAMA)
    add_template(tokenizer)
    marked = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    labels = encode(tokenizer, TALK, 1000)["labels"]
    assert [bool(mark) for mark in marked["assistant_masks"]] == [label != -100 for label in labels]


def test_a_template_that_rewrites_earlier_turns_is_refused():
    tokenizer = tokenizer_of(LLAMA)
    tokenizer.chat_template = "{{ messages | length }}{% for turn in messages %}{{ turn.content }}<|end|>{% endfor %}"
    with pytest.raises(InputError, match="rewrites earlier turns"):
        encode(tokenizer, TALK, 1000)


def test_a_template_without_an_end_is_refused():
    tokenizer = tokenizer_of(LLAMA)
    tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    with pytest.raises(InputError, match="no token behind an answer"):
        end_of_turn(tokenizer)
