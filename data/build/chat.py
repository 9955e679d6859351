"""Trains data/models/chat, the model that lesson 13 begins with: a tiny Llama that follows one sort of instruction.

    python data/build/chat.py                  a minute on one core
    python data/build/chat.py --output DIR     somewhere else

It is trained as lesson 12 trains, on conversations with the loss on the answers only, and on nothing else: it knows
about a hundred words. Its answers are like those of data/preferences, better and worse ones alike: about one in four
is good. None of its requests is in the test split there.
"""

import argparse
from pathlib import Path

import torch
from grammar import Grammar, Random
from preferences import conversation, requests_of
from tables import DATA
from training import byte_level_bpe, fit, save
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    set_seed,
)

SEED = 71
CONVERSATIONS, BATCH_SIZE, LEARNING_RATE = 20_000, 32, 4e-3
VOCAB_SIZE, WIDTH, LAYERS, POSITIONS = 1024, 128, 3, 256
END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"
TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}
{%- else -%}
<|user|>{{ message['content'] }}{{ eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"""


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that no text is impossible; nearly every word of the requests is one token."""
    tokenizer = byte_level_bpe(texts, VOCAB_SIZE, [END, PAD, USER, ASSISTANT])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=POSITIONS,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, talks: list[list[dict]]) -> dict[str, torch.Tensor]:
    """One batch, with labels on the answers and their end only."""
    found = tokenizer.apply_chat_template(
        talks, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, padding=True, return_tensors="pt"
    )
    labels = found["input_ids"].masked_fill(torch.as_tensor(found["assistant_masks"]) == 0, -100)
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"], "labels": labels}


def train(output: Path) -> None:
    rng, grammar = Random(SEED), Grammar("requests")
    requests = requests_of(grammar)["train"]
    talks = [conversation(rng, grammar, rng.pick(requests)) for _ in range(CONVERSATIONS)]
    tokenizer = make_tokenizer([turn["content"] for talk in talks for turn in talk])
    set_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    steps = CONVERSATIONS // BATCH_SIZE
    starts = range(0, steps * BATCH_SIZE, BATCH_SIZE)
    fit(model, (encode(tokenizer, talks[at : at + BATCH_SIZE]) for at in starts), steps, LEARNING_RATE)
    save(model, tokenizer, output / "chat")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "models")
    train(parser.parse_args().output)
