"""Conversations from a file, their chat template, and labels for a loss on the answers.

rows = read_conversations(Path("talks.jsonl"))     # [[{"role": "user", "content": "…"}, …], …]
add_template(tokenizer)                            # unless it has one
encode(tokenizer, rows[0], max_length=512)         # {"input_ids": […], "labels": [-100, …]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from takehome.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")
IGNORED = -100  # the label of a token that the loss leaves out
# How a turn begins and ends, for tokenizers that have these tokens and no template.
MARKS = (("<|{}|>", "<|end|>", {"<|user|>", "<|assistant|>", "<|end|>"}),
         ("<|im_start|>{}\n", "<|im_end|>", {"<|im_start|>", "<|im_end|>"}))  # fmt: skip


def read_conversations(path: Path) -> list[Messages]:
    """The conversations of a file of JSON lines, each an object with `messages`.

    Raises:
        InputError: the file cannot be read; or a line is no JSON object, has no messages, or does not end with an
            answer. The message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: a JSON text may hold U+2028
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: name a file of JSON lines") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: save it as UTF-8") from error
    found = [_messages(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if len(found) < 2:
        raise InputError(f"{path}: {len(found)} conversations, and at least two are needed: one is held out")
    return found


def _messages(where: str, line: str) -> Messages:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({getattr(error, 'msg', 'too deep')}): one object a line") from error
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns:
        raise InputError(f'{where}: has no list "messages"')
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise InputError(f"{where}, turn {number}: its role must be one of {', '.join(ROLES)}")
        if not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise InputError(f"{where}, turn {number}: its content must be a text that is not empty")
    if turns[-1]["role"] != "assistant" or not any(turn["role"] == "user" for turn in turns):
        raise InputError(f"{where}: must hold a turn of the user and end with one of the assistant")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def add_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Gives a tokenizer without a chat template a plain one; returns whether it did."""
    if tokenizer.chat_template:
        return False
    known = set(tokenizer.get_vocab())
    begin, end = next(((b, e) for b, e, needed in MARKS if needed <= known), ("{}:\n", tokenizer.eos_token))
    if not end:
        raise InputError("--checkpoint: its tokenizer has no token for the end of a text, so no answer could end")
    adds_bos = tokenizer.bos_token_id in tokenizer("a")["input_ids"][:1]
    start = tokenizer.bos_token if adds_bos else ""
    turn = begin.format("{{ turn.role }}")
    answer = f"{{% generation %}}{{{{ turn.content }}}}{end}{{% endgeneration %}}"
    tokenizer.chat_template = (
        f"{start}{{% for turn in messages %}}{turn}{{% if turn.role == 'assistant' %}}{answer}"
        f"{{% else %}}{{{{ turn.content }}}}{end}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{begin.format('assistant')}{{% endif %}}"
    )
    return True


def parts(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Iterator[tuple[str, bool]]:
    """The text of a conversation in pieces, and for each whether the assistant writes it.

    Raises:
        InputError: the template writes what was said before differently when more is said.
    """
    done = ""
    for number, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(messages[: number + 1], tokenize=False)
        if not before.startswith(done) or not after.startswith(before):
            raise InputError("--checkpoint: its chat template rewrites earlier turns; answers cannot be told apart")
        yield before[len(done) :], False
        yield after[len(before) :], True
        done = after


def encode(tokenizer: PreTrainedTokenizerBase, messages: Messages, max_length: int) -> dict[str, list[int]]:
    """Token ids, and as labels those of the answers, cut at `max_length`."""
    ids, labels = [], []
    for text, answer in parts(tokenizer, messages):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        labels += tokens if answer else [IGNORED] * len(tokens)
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer in the tokenizer's template.

    Raises:
        InputError: there is none.
    """
    example = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row: dict[str, Any] = encode(tokenizer, example, 10**6)
    marks = [token for token in row["labels"] if token in tokenizer.added_tokens_decoder]
    if not marks:
        raise InputError("--checkpoint: its chat template has no token behind an answer, so no answer could end")
    return marks[-1]
