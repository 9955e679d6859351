"""Lesson 12: what its base model is, other models and conversations by a profile alone, and its effect over seeds."""

import json
import re
from pathlib import Path

import matrix
import nbformat
import pytest
from small_models import write_llama

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "12_instructions.ipynb"
CODE = [cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"]
LLAMA = ROOT / "data" / "models" / "llama"
MARKS = ("<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PROFILE = """inherits = "reduced"

[instructions]
dataset = "./talks"
checkpoint = "./llama"
max_train_samples = 48
max_eval_samples = 10
max_test_samples = 10
max_length = 96
max_new_tokens = 8
per_device_train_batch_size = 4
num_train_epochs = 1
"""


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(LLAMA)


def test_the_base_has_marks_for_turns_and_no_template(tokenizer):
    assert tokenizer.chat_template is None
    assert all(len(tokenizer.tokenize(mark)) == 1 for mark in MARKS)
    assert tokenizer.pad_token not in (tokenizer.eos_token, *MARKS)


def test_a_word_is_one_token_wherever_it_stands(tokenizer, build_program):
    for words in build_program("worksheets").lexicon().values():
        for word in words:
            (alone,) = tokenizer(word)["input_ids"]
            assert tokenizer(f"<|user|>Say {word}.<|end|><|assistant|>{word}<|end|>")["input_ids"].count(alone) == 2


def test_every_checkpoint_is_loaded_in_fp32():
    loading = re.compile(r"AutoModel\w*\.from_pretrained\((?:[^()]|\([^()]*\))*\)")
    calls = [call for source in CODE for call in loading.findall(source)]
    assert calls and all("dtype=torch.float32" in call for call in calls)


def test_trl_is_asked_for_no_half_precision_on_a_cpu_and_sends_nothing():
    code = "\n\n".join(CODE)
    assert code.index("HF_HUB_DISABLE_TELEMETRY") < code.index("from trl import")
    assert '"bf16": precision == "bf16"' in code and '"activation_checkpointing": False' in code


@pytest.mark.parametrize(
    ("turns", "is_usable"),
    [
        ([("user", "a"), ("assistant", "b")], True),
        ([("system", "s"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")], True),
        ([("user", "a"), ("assistant", " \n")], False),
        ([("user", "a"), ("assistant", None)], False),
        ([("user", "a"), ("assistant", [{"type": "image"}])], False),
        ([("gpt", "hello"), ("human", "a"), ("gpt", "b")], False),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], False),
        ([("user", "a"), ("tool", "3"), ("assistant", "b")], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("keys", [("messages", "role", "content"), ("conversations", "from", "value")])
def test_which_conversations_are_usable(turns, is_usable, keys):
    space = {}
    exec(next(source for source in CODE if "def usable" in source), space)
    column, role, content = keys
    row = {column: [{role: who, content: said} for who, said in turns]}
    assert space["usable"]({"messages": space["as_messages"](row)}) == is_usable


def stranger(folder: Path, form: str) -> None:
    """A tiny Llama with GPT-2's tokenizer and no template, and conversations as they come, some of no use."""
    write_llama(folder / "llama")
    rows = [
        [("system", "Be short."), ("user", f"What is {n} & 1?"), ("assistant", f"It is <{n + 1}>.\n\nReally.")]
        + [("user", "Sure?"), ("assistant", "Yes. " * (1 + n % 40))] * (n % 3)
        for n in range(90)
    ]
    rows[3] = rows[3][:2]  # ends with a question
    rows[4] = [("user", "Hello?"), ("assistant", "")]
    rows[5] = [("assistant", "Hello!"), *rows[5][1:]]
    rows[6] = [("user", "Tell me all. " * 300), ("assistant", "No.")]
    rows[7] = [("user", "Tell me all."), ("assistant", "Well, " * 900)]
    rows[8] = [("user", "The weather?"), ("tool", "3"), ("assistant", "3 degrees.")]
    if form == "ShareGPT":
        names = {"user": "human", "assistant": "gpt", "tool": "observation"}
        rows = [{"conversations": [{"from": names.get(who, who), "value": said} for who, said in row]} for row in rows]
    else:
        rows = [{"prompt": "", "messages": [{"content": said, "role": who} for who, said in row]} for row in rows]
    (folder / "talks").mkdir()
    lines = [json.dumps(row) for row in rows]
    (folder / "talks" / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["messages", "ShareGPT"])
def test_it_runs_with_a_llama_without_a_template_and_conversations_without_rules(tmp_path, form):
    stranger(tmp_path, form)
    assert matrix.run_lesson("12", PROFILE, tmp_path) == {}


class Trained:
    """The reduced profile's training in a few plain lines, beside those of the lesson."""

    def __init__(self, tokenizer, seed: int, pretrained: bool = True, masked_end: bool = False):
        import torch
        from datasets import load_dataset
        from transformers import AutoModelForCausalLM, LlamaForCausalLM, get_linear_schedule_with_warmup, set_seed

        from helpers.profiles import load_profile

        settings = load_profile("reduced").instructions
        self.tokenizer, self.rows = tokenizer, load_dataset(settings.dataset)
        self.end = tokenizer.convert_tokens_to_ids("<|end|>")
        set_seed(seed)
        self.model = AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
        if not pretrained:
            self.model = LlamaForCausalLM(self.model.config)
        rows = [self.encode(row["messages"], masked_end) for row in self.rows["train"]]
        size = settings.per_device_train_batch_size
        steps = int(len(rows) // size * settings.num_train_epochs)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
        schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
        for step in range(steps):
            if step % (len(rows) // size) == 0:
                order = torch.randperm(len(rows)).tolist()
            batch = [rows[order.pop()] for _ in range(size)]
            pad = torch.nn.utils.rnn.pad_sequence
            ids, labels = (pad([row[i] for row in batch], True, fill) for i, fill in ((0, 1), (1, -100)))
            self.model(input_ids=ids, labels=labels).loss.backward()  # padding on the right is seen by no label
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.model.eval()

    def encode(self, messages, masked_end):
        import torch

        ids, labels = [], []
        for turn in messages:
            said = self.tokenizer(f"<|{turn['role']}|>{turn['content']}<|end|>")["input_ids"]
            ids += said
            labels += [-100, *said[1:]] if turn["role"] == "assistant" else [-100] * len(said)
        labels = [-100 if masked_end and label == self.end else label for label in labels]
        return torch.tensor(ids), torch.tensor(labels)

    def answers(self, split):
        asked = [row["messages"][:-1] for row in self.rows[split]]
        how = {"chat_template": TEMPLATE, "tokenize": False, "add_generation_prompt": True}
        prompts = self.tokenizer.apply_chat_template(asked, **how)
        batch = self.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
        how = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": self.end, "pad_token_id": 1}
        for ids in self.model.generate(**batch, **how)[:, batch["input_ids"].shape[1] :].tolist():
            stops = self.end in ids
            yield self.tokenizer.decode(ids[: ids.index(self.end)] if stops else ids).strip(), stops

    def score(self, split):
        def follows(row, answer):
            if row["rule"] == "exact":
                return answer == row["answer"]
            return bool(re.fullmatch(rf"[A-Z][^.!?\n]*\b{row['word']}\b[^.!?\n]*\.", answer))

        said = list(self.answers(split))
        right = [follows(row, text) for row, (text, _) in zip(self.rows[split], said, strict=True)]
        return sum(right) / len(right), sum(stops for _, stops in said) / len(said)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_effect_over_seeds(tokenizer, seed):
    """Lazy answers get under 15 %: see test_data_instructions.py."""
    instructed = Trained(tokenizer, seed)
    (test, stops), (new_kinds, _) = instructed.score("test"), instructed.score("new_kinds")
    (scratch, _), (_, masked_stops) = (
        Trained(tokenizer, seed, **how).score("test") for how in ({"pretrained": False}, {"masked_end": True})
    )
    print(f"seed {seed}: test {test:.1%}, stops {stops:.1%}, new kinds {new_kinds:.1%}")
    print(f"not pretrained {scratch:.1%}; end masked: stops {masked_stops:.1%}")
    assert test > 0.7 and stops > 0.95
    assert test > new_kinds + 0.2
    assert test > scratch + 0.3
    assert masked_stops < 0.05
