"""How the models of each model_type are built, as far as memory is concerned: one entry of a table for each.

A block is a branch with attention and a branch with an MLP, each added to the residual stream. What differs between
families is where the norms stand and what they keep, which linear layers are fused, and what attention adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Family:
    """The models of one model_type.

    Attributes:
        role: "decoder" (each token sees only those before it), "encoder" or "encoder-decoder".
        norm: "layer"; "rms" (normalised in the precision of its input, as Llama's); "rms in fp32" (as Gemma's).
        norms: where they stand: "before" each branch, "after" it, "both", or "stream" (after the sum, as BERT's).
        projections: the linear layers before attention; a single one makes queries, keys and values at once.
        output: the linear layer after attention.
        inner: the linear layers into the MLP; with `gated` gate and up, a single one makes both.
        outer: the linear layer out of the MLP.
        gated: the MLP multiplies two projections, one of them activated.
        rotary: positions turn queries and keys, which are new tensors then.
        position_bias: attention adds a learned bias for the distance of each pair (T5's).
        inner_dropout: dropout within the MLP, too.
        partial_rotary: only a part of each head may be turned, so its parts are put together again.
        query_key_norm: queries and keys are normalised: "heads" (each head for itself), "all" of them, or "".
        disentangled: attention adds scores of content to position and of position to content (DeBERTa's).
        parallel: both branches read the same stream (unless the config says otherwise).
        positions: learned positions are added to the embeddings.
        token_types: token types are added, of this many kinds where the config says nothing.
        biases: for "attention", "output" and "mlp": True, False, or the key of a config that says so.
        norm_bias: norms have a bias, or the key of a config that says so.
        widens_logits: the loss of masked-lm computes in fp32, as that of causal models does.
        body_pools: the dense layer before the classifier is not part of what PEFT takes for the head.
        full_attention_every: where some layers attend to a window only: each n-th attends to everything, 1 all, 0 none.
        first_is_full: whether the first of these n is the one, else the last.
        defaults: what the config means where it says nothing.
        lora_targets: what PEFT adapts when nothing else is said.
    """

    role: str
    projections: tuple[str, ...]
    output: str
    inner: tuple[str, ...]
    outer: str
    lora_targets: tuple[str, ...]
    norm: str = "layer"
    norms: str = "before"
    gated: bool = False
    rotary: bool = False
    position_bias: bool = False
    inner_dropout: bool = False
    partial_rotary: bool = False
    query_key_norm: str = ""
    disentangled: bool = False
    parallel: bool = False
    positions: bool = False
    token_types: int = 0
    biases: Mapping[str, bool | str] = field(default_factory=lambda: {"attention": True, "output": True, "mlp": True})
    norm_bias: bool | str = True
    widens_logits: bool = False
    body_pools: bool = False
    full_attention_every: int = 1
    first_is_full: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)

    @property
    def rms(self) -> bool:
        return self.norm != "layer"


_GPT2 = Family(
    role="decoder",
    projections=("c_attn",),
    output="attn.c_proj",
    inner=("c_fc",),
    outer="mlp.c_proj",
    positions=True,
    defaults={"dropout": 0.1, "tie_word_embeddings": True, "activation_function": "gelu_new"},
    lora_targets=("c_attn",),
)
_NEOX = replace(
    _GPT2,
    projections=("query_key_value",),
    output="attention.dense",
    inner=("dense_h_to_4h",),
    outer="dense_4h_to_h",
    positions=False,
    rotary=True,
    partial_rotary=True,
    parallel=True,
    biases={"attention": "attention_bias", "output": "attention_bias", "mlp": True},
    defaults={"dropout": 0.0, "attention_bias": True, "tie_word_embeddings": False},
    lora_targets=("query_key_value",),
)
_BERT = Family(
    role="encoder",
    norms="stream",
    projections=("query", "key", "value"),
    output="attention.output.dense",
    inner=("intermediate.dense",),
    outer="output.dense",
    positions=True,
    token_types=2,
    defaults={"dropout": 0.1, "tie_word_embeddings": True},
    lora_targets=("query", "value"),
)
_DISTILBERT = replace(
    _BERT,
    projections=("q_lin", "k_lin", "v_lin"),
    output="out_lin",
    inner=("lin1",),
    outer="lin2",
    token_types=0,
    lora_targets=("q_lin", "v_lin"),  # PEFT has none
)
_DEBERTA = replace(
    _BERT,
    disentangled=True,
    projections=("query_proj", "key_proj", "value_proj"),
    token_types=0,
    body_pools=True,
    lora_targets=("query_proj", "value_proj"),
)
_MODERNBERT = Family(
    role="encoder",
    projections=("attn.Wqkv",),
    output="attn.Wo",
    inner=("mlp.Wi",),
    outer="mlp.Wo",
    gated=True,
    rotary=True,
    biases={"attention": "attention_bias", "output": "attention_bias", "mlp": "mlp_bias"},
    norm_bias="norm_bias",
    widens_logits=True,
    body_pools=True,
    full_attention_every=3,
    first_is_full=True,
    defaults={"dropout": 0.0, "tie_word_embeddings": True, "local_attention": 128},
    lora_targets=("attn.Wqkv",),  # PEFT has none
)
_LLAMA = Family(
    role="decoder",
    norm="rms",
    projections=("q_proj", "k_proj", "v_proj"),
    output="o_proj",
    inner=("gate_proj", "up_proj"),
    outer="down_proj",
    gated=True,
    rotary=True,
    biases={"attention": "attention_bias", "output": "attention_bias", "mlp": "mlp_bias"},
    norm_bias=False,
    defaults={"dropout": 0.0, "tie_word_embeddings": False},
    lora_targets=("q_proj", "v_proj"),
)
_NO_BIAS = replace(_LLAMA, biases={"attention": False, "output": False, "mlp": False})
_NO_MLP_BIAS = replace(_LLAMA, biases=_LLAMA.biases | {"mlp": False})
_TIED = {"dropout": 0.0, "tie_word_embeddings": True}
_GEMMA = replace(_NO_MLP_BIAS, norm="rms in fp32", norms="both")

_T5 = Family(
    role="encoder-decoder",
    norm="rms",
    projections=("SelfAttention.q", "SelfAttention.k", "SelfAttention.v"),
    output="SelfAttention.o",
    inner=("wi",),
    outer="wo",
    position_bias=True,
    inner_dropout=True,
    biases={"attention": False, "output": False, "mlp": False},
    norm_bias=False,
    defaults={"dropout": 0.1, "tie_word_embeddings": True, "dense_act_fn": "relu"},
    lora_targets=("q", "v"),
)
GATED_T5 = replace(_T5, gated=True, inner=("wi_0", "wi_1"))

FAMILIES = {
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "bert": replace(_BERT, body_pools=True),
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": replace(_BERT, defaults=_BERT.defaults | {"embedding_size": 128}),
    "deberta-v2": _DEBERTA,
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
    "llama": _LLAMA,
    "mistral": replace(_NO_BIAS, full_attention_every=0),
    "qwen2": replace(_NO_BIAS, biases={"attention": True, "output": False, "mlp": False}),
    "qwen3": replace(_NO_MLP_BIAS, query_key_norm="heads", defaults=_LLAMA.defaults | {"head_dim": 128}),
    "smollm3": replace(_LLAMA, defaults=_TIED),
    "phi3": replace(
        _NO_BIAS,
        full_attention_every=0,
        partial_rotary=True,
        projections=("qkv_proj",),
        inner=("gate_up_proj",),
        lora_targets=("qkv_proj",),
    ),
    "olmo2": replace(_NO_MLP_BIAS, norm="rms in fp32", norms="after", query_key_norm="all"),
    "t5": _T5,
    "gemma2": replace(
        _GEMMA,
        full_attention_every=2,
        defaults=_TIED
        | {"head_dim": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3_text": replace(
        _GEMMA,
        query_key_norm="heads",
        full_attention_every=6,
        defaults=_TIED | {"head_dim": 256, "sliding_window": 4096},
    ),
}
