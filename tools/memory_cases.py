"""The models and settings whose memory is measured: small shapes, since what makes memory does not depend on the size.

Each case is (config, batch size, sequence length, settings), the settings under the names of `helpers.memory`. A step
of any takes well under a second.
"""

EAGER, PADDED = {"attn_implementation": "eager"}, {"padded": True}
AUTOCAST, PURE_BF16 = {"precision": "bf16"}, {"precision": "pure-bf16"}
CHECKPOINTING = {"activation_checkpointing": True}
CLASSIFICATION, MASKED = {"task": "sequence-classification"}, {"task": "masked-lm"}
QUESTIONS = {"task": "question-answering"}
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
    "bert, questions, padded": (BERT, 8, 96, QUESTIONS | PADDED),
    "distilbert, questions, autocast": (DISTILBERT, 8, 96, QUESTIONS | AUTOCAST),
    "gpt2, questions": (GPT2, 4, 128, QUESTIONS),
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

_SIZES = {"num_hidden_layers": 3, "hidden_size": 192, "num_attention_heads": 6, "vocab_size": 4096}
_ENCODER = _SIZES | {"intermediate_size": 768, "max_position_embeddings": 514}
_DECODER = _SIZES | {"intermediate_size": 512, "num_key_value_heads": 2, "max_position_embeddings": 512}
_T5 = {"d_model": 192, "d_kv": 32, "d_ff": 512, "num_layers": 3, "num_heads": 6, "vocab_size": 4096,
       "decoder_start_token_id": 0}  # fmt: skip
_SEQ2SEQ = {
    "d_model": 192,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 384,
    "decoder_ffn_dim": 384,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "vocab_size": 4096,
}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
_GEMMA = _DECODER | {"head_dim": 32, "query_pre_attn_scalar": 32}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
_GPT2_SIZES = {"n_embd": 192, "n_layer": 3, "n_head": 6, "vocab_size": 4096, "n_positions": 512}
_LINEAR = {
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention"] * 2 + ["full_attention"],
}
_SCALED = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
_PER_LAYER = {"hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 4096}

# One small model of each architecture that people fine-tune; the first have a closed form, the others are traced.
ARCHITECTURES = {
    "XLM-R": _ENCODER | {"model_type": "xlm-roberta", "type_vocab_size": 1},
    "ELECTRA": _ENCODER | {"model_type": "electra", "embedding_size": 96},
    "ModernBERT": _ENCODER | {"model_type": "modernbert", "intermediate_size": 288, "pad_token_id": 0,
                              "bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2, "eos_token_id": 2},
    "DeBERTa-v3": _ENCODER | _DEBERTA | {"model_type": "deberta-v2", "position_buckets": 256, "share_att_key": True,
                                         "norm_rel_ebd": "layer_norm", "position_biased_input": False},
    "Qwen3": _DECODER | {"model_type": "qwen3", "head_dim": 32},
    "Gemma 2": _GEMMA | {"model_type": "gemma2"},
    "Gemma 3": _GEMMA | {"model_type": "gemma3_text", "sliding_window": 64},
    "Phi-3": _DECODER | {"model_type": "phi3", "pad_token_id": 0},
    "SmolLM3": _DECODER | {"model_type": "smollm3", "pad_token_id": 0},
    "OLMo 2": _DECODER | {"model_type": "olmo2"},
    "GPT-NeoX": _DECODER | {"model_type": "gpt_neox", "intermediate_size": 768},
    "Mistral": _DECODER | {"model_type": "mistral", "sliding_window": 4096},
    "T5": _T5 | {"model_type": "t5"},
    "Flan-T5": _T5 | {"model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "DeBERTa": _ENCODER | _DEBERTA | {"model_type": "deberta", "max_relative_positions": -1},
    "ALBERT": _ENCODER | {"model_type": "albert", "embedding_size": 64},
    "BART": _SEQ2SEQ | {"model_type": "bart"},
    "Mixtral": _DECODER | {"model_type": "mixtral", "num_local_experts": 4},
    "Granite": _DECODER | {"model_type": "granite"},
    "Falcon": _SIZES | {"model_type": "falcon"},
    "OPT": _SIZES | {"model_type": "opt", "ffn_dim": 384, "word_embed_proj_dim": 192},
    "BLOOM": {"model_type": "bloom", "hidden_size": 192, "n_layer": 3, "n_head": 6, "vocab_size": 4096},
    "Mamba": {"model_type": "mamba", "hidden_size": 192, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 4096},
    # more of them, as they are on the Hub today: other positions and attention, experts, state spaces, convolutions
    "MPNet": _ENCODER | {"model_type": "mpnet"},
    "CamemBERT": _ENCODER | {"model_type": "camembert", "type_vocab_size": 1},
    "EuroBERT": _DECODER | {"model_type": "eurobert", "pad_token_id": 0},
    "NomicBERT": _ENCODER | {"model_type": "nomic_bert"},
    "XLNet": {"model_type": "xlnet", "d_model": 192, "n_layer": 3, "n_head": 6, "d_inner": 768, "vocab_size": 4096},
    "Longformer": _ENCODER | {"model_type": "longformer", "attention_window": 64},
    "BigBird": _ENCODER | {"model_type": "big_bird"},
    "Llama 3": _DECODER | {"model_type": "llama", "rope_parameters": _SCALED},
    "Gemma": _GEMMA | {"model_type": "gemma"},
    "Gemma 3n": _GEMMA | _PER_LAYER | {"model_type": "gemma3n_text", "intermediate_size": [512] * 3,
                                       "activation_sparsity_pattern": [0.0] * 3, "num_kv_shared_layers": 0,
                                       "laurel_rank": 8, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
    "Gemma 4": _GEMMA | _PER_LAYER | {"model_type": "gemma4_text", "global_head_dim": 32},
    "Phi-2": _SIZES | {"model_type": "phi", "intermediate_size": 768, "max_position_embeddings": 512},
    "Cohere 2": _DECODER | {"model_type": "cohere2"},
    "StableLM": _DECODER | {"model_type": "stablelm"},
    "StarCoder": _GPT2_SIZES | {"model_type": "gpt_bigcode"},
    "StarCoder 2": _DECODER | {"model_type": "starcoder2"},
    "GPT-J": _GPT2_SIZES | {"model_type": "gptj", "rotary_dim": 16},
    "Qwen2-MoE": _DECODER | _EXPERTS | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 256},
    "Qwen3-MoE": _DECODER | _EXPERTS | {"model_type": "qwen3_moe", "head_dim": 32},
    "Qwen3.5": _DECODER | _LINEAR | {"model_type": "qwen3_5_text", "head_dim": 32},
    "OLMo 3": _DECODER | {"model_type": "olmo3"},
    "GLM-4": _DECODER | {"model_type": "glm4", "head_dim": 32, "pad_token_id": 0},
    "Nemotron": _DECODER | {"model_type": "nemotron"},
    "GPT-OSS": _DECODER | {"model_type": "gpt_oss", "head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2},
    "ERNIE 4.5": _DECODER | {"model_type": "ernie4_5"},
    "LFM2": _DECODER | {"model_type": "lfm2", "layer_types": ["conv", "conv", "full_attention"]},
    "Falcon-H1": _DECODER | {"model_type": "falcon_h1", "mamba_d_ssm": 192, "mamba_n_heads": 6, "mamba_d_state": 16,
                             "mamba_d_head": 32, "mamba_chunk_size": 32},
    "MiniMax": _DECODER | {"model_type": "minimax", "num_local_experts": 4},
    "mT5": _T5 | {"model_type": "mt5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mBART": _SEQ2SEQ | {"model_type": "mbart"},
}  # fmt: skip

ARCHITECTURE_SHAPE = (4, 96)  # batch size and length
ARCHITECTURE_SETTINGS = {
    "fp32": {},
    "autocast": {"precision": "bf16"},
    "pure bf16": {"precision": "pure-bf16"},
    "padded": {"padded": True},
    "eager": {"attn_implementation": "eager"},
    "checkpointing": {"activation_checkpointing": True},
    "checkpointing, autocast": {"activation_checkpointing": True, "precision": "bf16"},
    "8-bit optimizer": {"optim": "adamw_8bit"},
}
