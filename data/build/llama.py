"""Pretrains data/models/llama, the base model that lesson 12 instructs: rotary positions, no chat template.

    python data/build/llama.py                  eight minutes on one core
    python data/build/llama.py --output DIR     somewhere else

It reads every eighth article of data/openwebtext once, and pages of a school workbook (worksheets.py) among them, so
that it can copy, count and pick words. It has read no instruction. Its tokenizer has the tokens that a turn needs,
`<|user|>`, `<|assistant|>` and `<|end|>`, which occur nowhere in the corpus, and a token for padding of its own.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from grammar import Random
from pretrain import POSITIONS, SEED, blocks, corpus, prose
from tables import DATA
from training import byte_level_bpe, fit, save
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    default_data_collator,
    set_seed,
)
from worksheets import pages

VOCAB_SIZE = 2048
WIDTH, LAYERS, HEADS = 128, 4, 4
END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
TURNS = ("<|user|>", "<|assistant|>", "<|end|>")
PAGES, HELD_OUT_PAGES = 9000, 200
ARTICLES_KEPT = 8  # every eighth one: eight minutes are not enough for all
LENGTH = 64  # of a row, in tokens: short rows, and so many steps
BATCH_SIZE, LEARNING_RATE = 16, 3e-3
EMBEDDING = 0.68  # length of an embedding, without the direction that all share


def llama_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which a word at the start of a turn is the same token as within it."""
    tokenizer = byte_level_bpe(texts, VOCAB_SIZE, [END_OF_TEXT, PAD, *TURNS], space_before=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=PAD,
        additional_special_tokens=list(TURNS),
        clean_up_tokenization_spaces=False,
    )


def pretrain_llama(texts: list[str], output: Path) -> None:
    tokenizer = llama_tokenizer(texts)
    set_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=352,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    start_by_copying(model)
    rows = Random(SEED).shuffled(blocks(tokenizer, texts, LENGTH))
    steps = len(rows) // BATCH_SIZE
    starts = range(0, steps * BATCH_SIZE, BATCH_SIZE)
    fit(model, (default_data_collator(rows[at : at + BATCH_SIZE]) for at in starts), steps, LEARNING_RATE)
    tokenizer.model_max_length = POSITIONS
    save(model, tokenizer, output)


def start_by_copying(model: LlamaForCausalLM) -> None:
    """Initialises attention so that a word which was read can be copied, and the word that followed it.

    Each head looks at tokens like its own and passes them on (Trockman and Kolter 2023, "Mimetic initialization of
    self-attention layers"). Two layers are set further: a head of the first looks at the token before, and two heads of
    the second look for a token whose predecessor is like their own. Large models find this pair by themselves (Olsson
    et al. 2022, "In-context learning and induction heads"). One of this size does not, within minutes.
    """
    size, embeddings = WIDTH // HEADS, model.model.embed_tokens.weight
    orthogonal = lambda: torch.nn.init.orthogonal_(torch.empty(WIDTH, WIDTH))  # noqa: E731
    with torch.no_grad():
        for layer in model.model.layers:
            alike, passed, part = 0.5 * orthogonal(), 0.5 * orthogonal(), layer.self_attn
            for projection, value in zip((part.q_proj, part.k_proj, part.v_proj, part.o_proj),
                                         (alike, alike, passed, passed.T), strict=True):  # fmt: skip
                projection.weight.copy_(value)
        first, second = (model.model.layers[number].self_attn for number in (0, 1))
        directions = orthogonal()
        shared, read, written = directions[0], directions[1 : 1 + size], orthogonal()[:, :size]
        # All embeddings share a direction, so that a head can look at a place, whatever token is there.
        own = embeddings - (embeddings @ shared)[:, None] * shared
        embeddings.copy_(EMBEDDING * (torch.nn.functional.normalize(own) + shared))
        angles = 10000.0 ** (-torch.arange(size // 2) / (size // 2))  # of the rotary positions, for one place
        before = torch.cat([angles.cos(), -angles.sin()])
        here = torch.cat([torch.ones(size // 2), torch.zeros(size // 2)])
        first.q_proj.weight[:size] = 0.7 * before[:, None] * shared
        first.k_proj.weight[:size] = 0.7 * here[:, None] * shared
        first.v_proj.weight[:size], first.o_proj.weight[:, :size] = 0.4 * read, 0.4 * written
        slow = torch.cat([torch.arange(size // 4, size // 2), torch.arange(3 * size // 4, size)])  # hardly rotated
        for head in (0, 1):
            place, half = slice(head * size, (head + 1) * size), slice(head * size // 2, (head + 1) * size // 2)
            second.q_proj.weight[place] *= 0.1
            second.k_proj.weight[place] *= 0.1
            second.q_proj.weight[head * size + slow] = 2.6 * read[half]
            second.k_proj.weight[head * size + slow] = 2.6 * written.T[half]


@torch.no_grad()
def mean_loss(folder: Path, texts: list[str]) -> float:
    """The loss in nats a token over rows of the texts, at most 60."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    rows = blocks(tokenizer, texts, LENGTH)[:60]
    return sum(model(**default_data_collator([row])).loss.item() for row in rows) / len(rows)


def evaluate(folder: Path) -> dict[str, float]:
    """The losses on articles and on pages that were not read."""
    _, held_out = corpus()
    written = pages(PAGES + HELD_OUT_PAGES)[PAGES:]
    return {
        "loss": round(mean_loss(folder, prose(held_out)), 4),
        "worksheet_loss": round(mean_loss(folder, written), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "models")
    arguments = parser.parse_args()
    start, folder = time.perf_counter(), arguments.output / "llama"
    articles, _ = corpus()
    texts = prose(articles)[::ARTICLES_KEPT] + pages(PAGES)
    pretrain_llama(Random(SEED).shuffled(texts), folder)
    report_file = arguments.output / "evaluation.json"
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.exists() else {}
    report["llama"] = evaluate(folder)
    report_file.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"llama: {report['llama']} after {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
