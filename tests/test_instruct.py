"""scripts/instruct.py: from a file of conversations to a model that answers, stops, and says how good it is."""

import json
import random
import shutil
from pathlib import Path

import instruct
import pytest
from program_run import Run, slow_steps
from small_models import write_llama

from takehome.checkpoints import damage
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
        ('{"text": "a"}', 'nor "prompt" with "completion" or "instruction" with "output"; it has text'),
        ('{"messages": [{"role": "narrator", "content": "a"}]}', "turn 1: its role must be one of system, user,"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "turn 1: its content must be a text"),
        ('{"messages": [{"role": "assistant", "content": null, "tool_calls": [{}]}]}', "line 2, turn 1: calls a tool"),
        (
            '{"conversations": [{"from": "human", "value": "a"}, {"from": "observation", "value": "b"}]}',
            "turn 2: calls",
        ),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, line, said):
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps({"messages": TALK}) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"talks\.jsonl, line 2") as caught:
        read_conversations(path)
    assert said in str(caught.value)


ASKED = [{"role": "user", "content": "Which bird?"}, {"role": "assistant", "content": "An owl."}]


@pytest.mark.parametrize(
    ("row", "columns", "system"),
    [
        (
            {"conversations": [{"from": "human", "value": "Which bird?"}, {"from": "gpt", "value": "An owl."}]},
            "conversations (from, value)",
            "",
        ),
        ({"conversation": ASKED, "system": "Be short."}, "conversation (role, content)", "Be short."),
        ({"prompt": "Which bird?", "completion": "An owl."}, "prompt, completion", ""),
        ({"prompt": ASKED[:1], "completion": ASKED[1:]}, "prompt, completion", ""),
        ({"instruction": "Which bird?", "input": "", "output": "An owl."}, "instruction, input, output", ""),
        ({"instruction": "Which bird?", "context": "", "response": "An owl."}, "instruction, context, response", ""),
        ({"system_prompt": "Be short.", "question": "Which bird?", "response": "An owl."}, "question, response", "Be"),
    ],
)
def test_other_columns_are_turned_into_messages(tmp_path, row, columns, system):
    found = read_conversations(write(tmp_path / "talks.jsonl", [row, row]))
    messages = ([{"role": "system", "content": "Be short."}] if system else []) + ASKED
    assert found.rows == [messages, messages]
    assert found.columns == {columns: 2}


def test_an_instruction_stands_before_its_input(tmp_path):
    row = {"instruction": "Which word is a bird?", "input": "owl cat", "output": "owl"}
    (tmp_path / "alpaca.json").write_text(json.dumps([row, row]), encoding="utf-8")  # a list, as Alpaca's own file
    found = read_conversations(tmp_path / "alpaca.json")
    assert found.rows[0][0]["content"] == "Which word is a bird?\n\nowl cat"
    assert found.places[1].endswith("conversation 2")


def test_what_teaches_nothing_is_left_out_and_counted(tmp_path):
    empty = [ASKED[0], {"role": "assistant", "content": " "}]
    rows = [TALK, empty, [ASKED[1]], [ASKED[1], *ASKED], TALK[:-1], ASKED]
    found = read_conversations(write(tmp_path / "talks.jsonl", [{"messages": row} for row in rows]))
    assert found.rows == [TALK, ASKED]
    assert found.left_out == {"an empty turn": 1, "no question before the first answer": 2, "no answer at the end": 1}
    assert [place.rpartition(" ")[2] for place in found.places] == ["1", "6"]


def test_it_says_what_was_turned_cut_and_left_out(tmp_path, capsys):
    long = [ASKED[0], {"role": "assistant", "content": "owl " * 90}]
    late = [{"role": "user", "content": "owl " * 90}, ASKED[1]]
    rows = [{"messages": row} for row in (ASKED, ASKED, long, late, TALK[:2])]
    rows[1] = {"prompt": "Which bird?", "completion": "An owl."}
    path = write(tmp_path / "talks.jsonl", rows)
    options = instruct.parse_arguments(["--data", str(path), "--output-dir", str(tmp_path / "out"), "--max-length=32"])
    loaded = instruct.load_tokenizer(str(LLAMA))
    add_template(loaded.tokenizer)
    train, held_out = instruct.prepare(options, loaded)
    said = capsys.readouterr().out
    assert "columns: prompt, completion (1) turned into messages" in said
    assert "data: 4 conversations; left out: 1 with no answer at the end, 1 with no answer within the length" in said
    assert "cut: 1 are longer than 32 tokens; with their ends go" in said
    assert sorted(len(row["input_ids"]) for row in train + held_out)[-1] == 32
    assert len(train + held_out) == 3


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
    found = read_conversations(write(tmp_path / "two.jsonl", [{"messages": turns}] * 2))
    assert found.rows == [turns, turns]


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


def test_a_template_that_refuses_a_conversation_is_told():
    tokenizer = tokenizer_of(LLAMA)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match="refuses it: System role not supported"):
        encode(tokenizer, TALK, 1000)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """The command line for a tiny Llama without a template or a token to pad with, and ShareGPT's columns."""
    folder, rng, rows = tmp_path_factory.mktemp("stranger"), random.Random(1), []
    write_llama(folder / "llama")
    for number in range(40):
        turns = [("human", f"What about {number}?"), ("gpt", "Well. " * rng.randint(1, 30))] * rng.randint(1, 3)
        rows.append({"conversations": [{"from": who, "value": text} for who, text in turns]})
    data = write(folder / "talks.jsonl", rows)
    return ["--data", data, "--checkpoint", folder / "llama", "--use-cpu", "--max-length=64", "--num-train-epochs=3"]


def lose_the_disk():
    """In the program's process: the model cannot be written."""

    def save(*_):
        raise InputError("the disk is gone")

    instruct.save = save


@pytest.mark.slow  # tests/test_fine_tune_stops.py tries the same trainer
def test_killed_it_goes_on_to_the_same_model(stranger, tmp_path):
    whole = Run("instruct", tmp_path / "whole", *stranger).finish()
    assert "a turn ends with <|endoftext|>" in whole.text
    run = Run("instruct", tmp_path / "killed", *stranger, change=(slow_steps, 0.1))
    work = tmp_path / "killed.unfinished"
    run.wait(until=lambda: damage(work / "checkpoint-5") == "")
    assert run.kill() and not run.folder.exists()
    other = Run("instruct", run.folder, *stranger, "--learning-rate=1e-3")
    assert "learning_rate was 5e-05, is 0.001" in other.refusal()
    lost = Run("instruct", run.folder, *stranger, change=(lose_the_disk,))
    assert "the disk is gone" in lost.refusal() and "resuming: " in lost.text
    run = Run("instruct", run.folder, *stranger).finish()
    assert "its training was over" in run.text and not work.exists()
    for name in ("model.safetensors", "chat_template.jinja"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    metrics = [json.loads((folder / "metrics.json").read_bytes())["metrics"] for folder in (run.folder, whole.folder)]
    assert metrics[0] == metrics[1]
    shutil.rmtree(whole.folder)
