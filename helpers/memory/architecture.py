"""A model as far as memory is concerned: the numbers of its config, its linear layers and its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECODERS = ("gpt2", "llama", "mistral", "qwen2")
GATED = ("llama", "mistral", "qwen2")  # RMSNorm, rotary positions, a gated MLP
ENCODERS = ("bert", "roberta", "distilbert")


@dataclass(frozen=True)
class Linear:
    """The shape of a linear layer."""

    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        """Numbers in its matrix."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Numbers in its matrix and its bias."""
        return self.weights + self.outputs * self.bias

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.inputs, self.outputs), (self.outputs,)] if self.bias else [(self.inputs, self.outputs)]


@dataclass(frozen=True)
class Architecture:
    """The numbers of a config that decide how much memory training takes."""

    name: str
    model_type: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    tie_word_embeddings: bool
    attention_dropout: float
    hidden_dropout: float
    embedding_dropout: float
    attention_bias: bool
    mlp_bias: bool
    unfused_gelu: bool
    num_labels: int

    @property
    def is_decoder(self) -> bool:
        """Whether it generates: each token sees only those before it."""
        return self.model_type in DECODERS

    @property
    def gated(self) -> bool:
        """Whether its blocks have Llama's shape: RMSNorm, rotary positions, a gated MLP."""
        return self.model_type in GATED

    @property
    def query_width(self) -> int:
        """Features of all heads' queries."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """Features of all heads' keys, and of their values."""
        return self.num_key_value_heads * self.head_dim

    def block_linears(self) -> dict[str, Linear]:
        """Each linear layer of one block, by its module's name."""
        d, f = self.hidden_size, self.intermediate_size
        if self.model_type == "gpt2":
            return {
                "c_attn": Linear(d, 3 * d, True),
                "attn.c_proj": Linear(d, d, True),
                "c_fc": Linear(d, f, True),
                "mlp.c_proj": Linear(f, d, True),
            }
        if self.gated:
            q, kv, bias = self.query_width, self.key_value_width, self.attention_bias
            return {
                "q_proj": Linear(d, q, bias),
                "k_proj": Linear(d, kv, bias),
                "v_proj": Linear(d, kv, bias),
                "o_proj": Linear(q, d, bias and self.model_type == "llama"),
                "gate_proj": Linear(d, f, self.mlp_bias),
                "up_proj": Linear(d, f, self.mlp_bias),
                "down_proj": Linear(f, d, self.mlp_bias),
            }
        if self.model_type == "distilbert":
            names = ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")
        else:
            names = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
        shapes = [Linear(d, d, True)] * 4 + [Linear(d, f, True), Linear(f, d, True)]
        return dict(zip(names, shapes, strict=True))

    def parameter_shapes(self, task: str) -> dict[str, list[tuple[int, ...]]]:
        """Shapes of the parameters of the embeddings, of one block, of the final norm and of the head, in order."""
        norm = [(self.hidden_size,)] * (1 if self.gated else 2)
        block = [shape for linear in self.block_linears().values() for shape in linear.shapes]
        return {
            "embeddings": self._embedding_shapes(norm),
            "block": block + 2 * norm,
            "norm": norm if self.is_decoder else [],
            "head": self._head_shapes(task, norm),
        }

    def _embedding_shapes(self, norm: list) -> list[tuple[int, ...]]:
        shapes = [(self.vocab_size, self.hidden_size)]
        if not self.gated:
            shapes += [(self.max_position_embeddings, self.hidden_size)]
        if self.type_vocab_size:
            shapes += [(self.type_vocab_size, self.hidden_size)]
        return shapes if self.is_decoder else shapes + norm

    def _head_shapes(self, task: str, norm: list) -> list[tuple[int, ...]]:
        d, v = self.hidden_size, self.vocab_size
        untied = [] if self.tie_word_embeddings else [(v, d)]
        if task == "causal-lm":
            return untied
        if task == "masked-lm":  # a dense layer, a norm and a bias per word before the decoder
            return [(v,), (d, d), (d,), *norm, *untied]
        if self.is_decoder:
            return [(self.num_labels, d)]
        return [(d, d), (d,), (self.num_labels, d), (self.num_labels,)]  # a pooler or dense layer, then the classifier

    def parameter_groups(self, task: str) -> dict[str, int]:
        """Number of parameters of the embeddings, of one block, of the final norm and of the head."""
        return {part: sum(map(math.prod, shapes)) for part, shapes in self.parameter_shapes(task).items()}

    def parameters(self, task: str = "causal-lm") -> int:
        """Number of parameters of the model with the head of `task`."""
        groups = self.parameter_groups(task)
        return sum(groups.values()) + (self.num_hidden_layers - 1) * groups["block"]

    def matmul_parameters(self, task: str = "causal-lm") -> int:
        """Weights that multiply every token, which is what `helpers.flops` counts: a table that is looked up is not."""
        head = self.head_weights(task)
        return self.num_hidden_layers * sum(linear.weights for linear in self.block_linears().values()) + head

    def head_weights(self, task: str) -> int:
        """Weights of the head that multiply every token; a classifier sees one token of each text."""
        d = self.hidden_size
        return {"causal-lm": self.vocab_size * d, "masked-lm": (d + self.vocab_size) * d}.get(task, 0)
