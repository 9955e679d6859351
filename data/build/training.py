"""What the programs that train our checkpoints share: a tokenizer, a loop with AdamW, and how a checkpoint is saved."""

import time
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import get_cosine_schedule_with_warmup


def byte_level_bpe(texts: list[str], vocab_size: int, special: list[str], *, space_before: bool = False) -> Tokenizer:
    """Trains byte-level BPE. With `space_before`, a word at the start of a text is the same token as within it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space_before)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def fit(model, batches: Iterable[dict], steps: int, learning_rate: float) -> None:
    """Trains in place, in fp32 with AdamW and a cosine, on so many batches, each a dict of tensors with labels."""
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    scheduler = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    total, start = 0.0, time.perf_counter()
    for step, batch in enumerate(batches, 1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % 100 == 0:
            left = (time.perf_counter() - start) * (steps / step - 1) / 60
            print(f"  {step / steps:4.0%}  loss {total / 100:.3f}  {left:.1f} minutes left", flush=True)
            total = 0.0


def save(model, tokenizer, output: Path) -> None:
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    # Weights are written readable by the owner alone.
    (output / "model.safetensors").chmod(0o644)
