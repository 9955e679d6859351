"""The models and settings whose memory is measured: small shapes, since what makes memory does not depend on the size.

Each case is (config, batch size, sequence length, settings), the settings under the names of `helpers.memory`. A step
of any takes well under a second.
"""

EAGER, PADDED = {"attn_implementation": "eager"}, {"padded": True}
AUTOCAST, PURE_BF16 = {"precision": "bf16"}, {"precision": "pure-bf16"}
CHECKPOINTING = {"activation_checkpointing": True}
CLASSIFICATION, MASKED = {"task": "sequence-classification"}, {"task": "masked-lm"}
LORA, QLORA = {"method": "lora"}, {"method": "qlora"}

GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_embd": 192, "n_head": 6, "vocab_size": 4096, "n_positions": 512}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
BERT = {"model_type": "bert", "num_hidden_layers": 3, "hidden_size": 192, "intermediate_size": 768}
BERT |= {"num_attention_heads": 6, "vocab_size": 4096}
ROBERTA = BERT | {"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1}
DISTILBERT = {"model_type": "distilbert", "n_layers": 3, "dim": 192, "hidden_dim": 768, "n_heads": 6}
DISTILBERT |= {"vocab_size": 4096}
LLAMA = {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 192, "intermediate_size": 512}
LLAMA |= {"num_attention_heads": 6, "num_key_value_heads": 6, "vocab_size": 4096, "max_position_embeddings": 512}
QWEN2 = LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True}
MISTRAL = LLAMA | {"model_type": "mistral", "num_key_value_heads": 2}

CONFIGURATIONS = {
    "gpt2, eager": (GPT2, 4, 128, EAGER),
    "gpt2, sdpa": (GPT2, 4, 128, {}),
    "gpt2, sdpa, no dropout": (GPT2 | NO_DROPOUT, 4, 128, {}),
    "gpt2, sdpa, padded": (GPT2 | NO_DROPOUT, 4, 128, PADDED),
    "gpt2, eager, autocast": (GPT2, 4, 128, EAGER | AUTOCAST),
    "gpt2, sdpa, autocast": (GPT2 | NO_DROPOUT, 4, 128, AUTOCAST),
    "gpt2, eager, bf16": (GPT2, 4, 128, EAGER | PURE_BF16),
    "gpt2, sdpa, bf16": (GPT2 | NO_DROPOUT, 4, 128, PURE_BF16),
    "gpt2, checkpointing": (GPT2, 4, 128, CHECKPOINTING),
    "gpt2, checkpointing, autocast": (GPT2, 4, 128, CHECKPOINTING | AUTOCAST),
    "gpt2, classification": (GPT2, 4, 128, CLASSIFICATION),
    "gpt2, long": (GPT2, 1, 512, EAGER),
    "gpt2, large vocabulary": (GPT2 | {"vocab_size": 20000}, 2, 128, {}),
    "gpt2, foreach": (GPT2, 1, 32, {"optim": "adamw_torch_foreach"}),
    "gpt2, for-loop": (GPT2, 1, 32, {"optim": "adamw_torch_forloop"}),
    "gpt2, fused": (GPT2, 1, 32, {}),
    "gpt2, 8-bit AdamW": (GPT2, 1, 32, {"optim": "adamw_8bit"}),
    "gpt2, bf16, 8-bit AdamW": (GPT2, 1, 32, PURE_BF16 | {"optim": "adamw_8bit"}),
    "gpt2, Adafactor": (GPT2, 1, 32, {"optim": "adafactor"}),
    "gpt2, SGD": (GPT2, 1, 32, {"optim": "sgd"}),
    "gpt2, Muon": (GPT2, 1, 32, {"optim": "muon"}),
    "gpt2, SGD, large batch": (GPT2, 4, 128, {"optim": "sgd"}),
    "bert, eager": (BERT, 8, 96, EAGER),
    "bert, sdpa": (BERT, 8, 96, {}),
    "bert, padded": (BERT, 8, 96, PADDED),
    "bert, autocast": (BERT, 8, 96, AUTOCAST),
    "bert, bf16": (BERT, 8, 96, PURE_BF16),
    "bert, checkpointing": (BERT, 8, 96, CHECKPOINTING),
    "bert, masked": (BERT, 8, 96, MASKED),
    "roberta, sdpa": (ROBERTA, 8, 96, {}),
    "distilbert, eager": (DISTILBERT, 8, 96, EAGER),
    "distilbert, sdpa": (DISTILBERT, 8, 96, {}),
    "distilbert, autocast": (DISTILBERT, 8, 96, AUTOCAST),
    "distilbert, masked": (DISTILBERT, 8, 96, MASKED),
    "llama, eager": (LLAMA, 4, 128, EAGER),
    "llama, sdpa": (LLAMA, 4, 128, {}),
    "llama, autocast": (LLAMA, 4, 128, AUTOCAST),
    "llama, bf16": (LLAMA, 4, 128, PURE_BF16),
    "llama, checkpointing": (LLAMA, 4, 128, CHECKPOINTING),
    "llama, classification": (LLAMA, 4, 128, CLASSIFICATION),
    "qwen2, eager": (QWEN2, 4, 128, EAGER),
    "qwen2, sdpa": (QWEN2, 4, 128, {}),
    "qwen2, sdpa, padded": (QWEN2, 4, 128, PADDED),
    "qwen2, bf16": (QWEN2, 4, 128, PURE_BF16),
    "mistral, sdpa": (MISTRAL, 4, 128, {}),
    # a tied table's two gradients; one key/value head; masks beside checkpointing; loops that hold two temporaries
    "gpt2, autocast, small batch": (GPT2, 1, 32, AUTOCAST),
    "gpt2, classification, padded": (GPT2 | NO_DROPOUT, 4, 128, CLASSIFICATION | PADDED),
    "gpt2, eager, padded, autocast, checkpointing": (GPT2, 4, 128, EAGER | PADDED | AUTOCAST | CHECKPOINTING),
    "bert, padded, bf16, checkpointing": (BERT, 8, 96, PADDED | PURE_BF16 | CHECKPOINTING),
    "llama, classification, autocast, eager": (LLAMA, 4, 128, CLASSIFICATION | AUTOCAST | EAGER),
    "llama, one key/value head, padded": (LLAMA | {"num_key_value_heads": 1}, 4, 128, PADDED),
    "mistral, for-loop": (MISTRAL, 1, 32, {"optim": "adamw_torch_forloop"}),
    "qwen2, bf16, Adafactor": (QWEN2, 1, 32, PURE_BF16 | {"optim": "adafactor"}),
}

PUBLISHED = {
    "gpt2 124 M, sdpa": ("gpt2", 1, 128, {}),
    "bert-base, autocast": ("bert-base-uncased", 4, 64, AUTOCAST),
}

ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL_VOCABULARY = {"vocab_size": 512}
ADAPTERS = {
    "gpt2, LoRA": (GPT2, 4, 128, LORA),
    "gpt2, LoRA, rank 64, MLP too": (GPT2, 4, 128, LORA | {"lora_rank": 64, "lora_target_modules": ("c_attn", "c_fc")}),
    "gpt2, LoRA, classification": (GPT2, 4, 128, LORA | CLASSIFICATION),
    "gpt2, LoRA, classification, all linears": (
        GPT2,
        4,
        128,
        LORA | CLASSIFICATION | {"lora_target_modules": ("c_attn", "c_proj", "c_fc")},
    ),
    "gpt2, LoRA, checkpointing": (GPT2, 4, 128, LORA | CHECKPOINTING),
    "bert, LoRA": (BERT, 8, 96, LORA),
    "bert, LoRA, bf16, checkpointing": (BERT, 8, 96, LORA | PURE_BF16 | CHECKPOINTING),
    "distilbert, LoRA, masked": (DISTILBERT, 8, 96, LORA | MASKED),
    "distilbert, LoRA, autocast": (DISTILBERT, 8, 96, LORA | AUTOCAST),
    "llama, LoRA": (LLAMA, 4, 128, LORA),
    "llama, LoRA, all linears": (LLAMA, 4, 128, LORA | {"lora_rank": 16, "lora_target_modules": ALL_LINEARS}),
    "llama, LoRA, autocast": (LLAMA, 4, 128, LORA | AUTOCAST),
    "qwen2, LoRA, bf16": (QWEN2, 4, 128, LORA | PURE_BF16),
    "llama, QLoRA": (LLAMA, 4, 128, QLORA | PURE_BF16),
    "llama, QLoRA, small vocabulary": (LLAMA | SMALL_VOCABULARY, 4, 128, QLORA | PURE_BF16),
    "qwen2, QLoRA, rank 32": (QWEN2 | SMALL_VOCABULARY, 4, 128, QLORA | PURE_BF16 | {"lora_rank": 32}),
    "llama, QLoRA, checkpointing": (LLAMA | SMALL_VOCABULARY, 8, 256, QLORA | PURE_BF16 | CHECKPOINTING),
}

# Enough blocks that one of them is a small part of the whole, as in a real model.
SHARDED = {
    "gpt2, small batch": (GPT2 | {"n_layer": 12}, 1, 32, {}),
    "gpt2, large batch": (GPT2 | {"n_layer": 12}, 4, 128, {}),
    "llama, small batch": (LLAMA | {"num_hidden_layers": 12}, 1, 32, {}),
    "llama, checkpointing": (LLAMA | {"num_hidden_layers": 12}, 4, 128, CHECKPOINTING),
}
