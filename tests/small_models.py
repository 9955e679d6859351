"""A model so small that a run of a program takes a second; its tokenizer is that of a checkpoint of ours."""

import shutil
from pathlib import Path

from helpers.profiles import ROOT

SIZES = {
    "bert": {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
    "distilbert": {"n_layers": 1, "dim": 32, "hidden_dim": 64, "n_heads": 2},
}


def write_small_model(folder: Path, kind: str, **changes) -> Path:
    """Writes a checkpoint with the family and vocabulary of data/models/KIND, one layer and random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForPreTraining

    whole = ROOT / "data" / "models" / kind
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = AutoConfig.from_pretrained(whole, **SIZES[kind], **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForPreTraining.from_config(config).save_pretrained(folder)
    return folder


def write_llama(folder: Path) -> None:
    """Writes a tiny Llama in bf16 with random weights and the tokenizer of our GPT-2: a stranger's checkpoint."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/gpt2")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
