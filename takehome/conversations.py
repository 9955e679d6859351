"""Conversations from a file, their chat template, and labels for a loss on the answers.

talks = read_conversations(Path("talks.jsonl"))    # .rows: [[{"role": "user", "content": "…"}, …], …]
add_template(tokenizer)                            # unless it has one
encode(tokenizer, talks.rows[0], max_length=512)   # {"input_ids": […], "labels": [-100, …]}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from takehome.errors import InputError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")
OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant"}
TOOL_ROLES = ("tool", "function", "function_call", "function_response", "observation", "ipython")
TURNS = ("messages", "conversations", "conversation")  # columns of a list of turns
ASKED = ("prompt", "instruction", "question")
ANSWERED = ("completion", "output", "response", "answer")
MORE = ("input", "context")  # columns of the text that an instruction is about
SYSTEM = ("system", "system_prompt")
IGNORED = -100  # the label of a token that the loss leaves out
# How a turn begins and ends, for tokenizers that have these tokens and no template.
MARKS = (("<|{}|>", "<|end|>", {"<|user|>", "<|assistant|>", "<|end|>"}),
         ("<|im_start|>{}\n", "<|im_end|>", {"<|im_start|>", "<|im_end|>"}))  # fmt: skip


@dataclass(frozen=True)
class Conversations:
    """What a file holds.

    Attributes:
        rows: the conversations that can be learned from.
        places: of each row, where it stands: "talks.jsonl, line 3".
        columns: what they were made of, and how many of each: {"instruction, input, output": 20}.
        left_out: why others are not among the rows, and how many of each.
    """

    rows: list[Messages]
    places: list[str]
    columns: Counter[str]
    left_out: Counter[str]


def read_conversations(path: Path) -> Conversations:
    """The conversations of a file of JSON lines, or of one JSON list, each an object with `messages`.

    Other columns that are in use are turned into messages: `conversations` with `from` and `value` (ShareGPT), `prompt`
    with `completion`, `instruction` with `input` and `output` (Alpaca). A conversation with an empty turn, or that does
    not end with an answer, is left out and counted.

    Raises:
        InputError: the file cannot be read; or a conversation is no JSON object, has none of these columns, has a role
            or a content that is not known, or calls a tool; or fewer than two are left. The message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: name a file of JSON lines") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: save it as UTF-8") from error
    found = Conversations([], [], Counter(), Counter())
    for where, row in _rows(path, text):
        columns, turns = _turns(where, row)
        found.columns[columns] += 1
        messages = [_message(f"{where}, turn {number}", turn) for number, turn in enumerate(turns, 1)]
        if why := _useless(messages):
            found.left_out[why] += 1
            continue
        found.rows.append(messages)
        found.places.append(where)
    if len(found.rows) < 2:
        why = "".join(f"; {count} with {reason}" for reason, count in found.left_out.items())
        raise InputError(f"{path}: {len(found.rows)} conversations, and at least two are needed: one is held out{why}")
    return found


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Each object of a JSON list, or of JSON lines, and where it stands."""
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            rows = None  # JSON lines, of which the first one is a list
        if rows:
            yield from ((f"{path}, conversation {number}", row) for number, row in enumerate(rows, 1))
            return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a JSON text may hold U+2028
        if line.strip():
            try:
                yield f"{path}, line {number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                why = getattr(error, "msg", "too deep")
                raise InputError(f"{path}, line {number}: not JSON ({why}): one object a line") from error


def _turns(where: str, row: Any) -> tuple[str, list]:
    """The columns that a conversation is made of, and its turns as they are written."""
    row = row if isinstance(row, dict) else {}
    system = next((row[name] for name in SYSTEM if isinstance(row.get(name), str) and row[name].strip()), "")
    before = [{"role": "system", "content": system}] if system else []
    for name in TURNS:
        if isinstance(row.get(name), list) and row[name]:
            first = row[name][0] if isinstance(row[name][0], dict) else {}
            before = [] if "system" in (first.get("role"), first.get("from")) else before
            keys = "from, value" if "from" in first else "role, content"
            return name if name == "messages" else f"{name} ({keys})", before + row[name]
    asked, answered = (next((name for name in names if name in row), "") for names in (ASKED, ANSWERED))
    if asked and answered:
        more = next((name for name in MORE if isinstance(row.get(name), str)), "")
        request, answer = row[asked], row[answered]
        if isinstance(request, str) and more and row[more].strip():
            request = f"{request}\n\n{row[more]}"
        columns = ", ".join(filter(None, (asked, more, answered)))
        return columns, before + _as_turns("user", request) + _as_turns("assistant", answer)
    there = one_line(", ".join(row), 100) or "nothing"
    raise InputError(
        f'{where}: has no list "messages" or "conversations", nor "prompt" with "completion" or "instruction" with '
        f'"output"; it has {there}'
    )


def _as_turns(role: str, said: Any) -> list:
    return said if isinstance(said, list) else [{"role": role, "content": said}]


def _message(where: str, turn: Any) -> dict[str, str]:
    turn = turn if isinstance(turn, dict) else {}
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    role = OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    if role in TOOL_ROLES or turn.get("tool_calls") or turn.get("function_call"):
        raise InputError(f"{where}: calls a tool; this program trains on text alone: take such conversations out")
    if role not in ROLES:
        raise InputError(f"{where}: its role must be one of {', '.join(ROLES)}, and is {one_line(role, 40)}")
    if content is not None and not isinstance(content, str):
        raise InputError(f"{where}: its content must be a text; parts such as pictures are not for this program")
    return {"role": role, "content": content or ""}


def _useless(messages: Messages) -> str:
    """Why nothing can be learned from a conversation; empty if something can."""
    if any(not turn["content"].strip() for turn in messages):
        return "an empty turn"
    roles = [turn["role"] for turn in messages]
    if "user" not in roles or "assistant" in roles[: roles.index("user")]:
        return "no question before the first answer"
    return "" if roles[-1] == "assistant" else "no answer at the end"


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
        InputError: the template refuses the conversation, or writes what was said before differently when more is said.
    """
    from jinja2 import TemplateError

    done = ""
    for number, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        try:
            before = tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True)
            after = tokenizer.apply_chat_template(messages[: number + 1], tokenize=False)
        except TemplateError as cause:  # some want questions and answers in turn, some no system prompt
            raise InputError(f"the chat template of --checkpoint refuses it: {one_line(cause)}") from cause
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
