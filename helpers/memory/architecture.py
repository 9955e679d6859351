"""A model as far as memory is concerned: the numbers of its config, its linear layers and its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from helpers.memory.families import Family

# Kinds of layers: attention sees everything, or a window; or the first layer, where it lacks a norm.
FULL, SLIDING, FIRST = "full", "sliding", "first"
ENCODER, DECODER = "encoder", "decoder"  # the two stacks of T5


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
    family: Family  # how the models of its type are built
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
    output_bias: bool
    mlp_bias: bool
    norm_bias: bool
    unfused_gelu: bool
    relu: bool
    num_labels: int
    embedding_size: int
    parallel: bool
    layer_kinds: tuple[str, ...]  # of each layer: FULL, SLIDING, FIRST, ENCODER, DECODER
    sliding_window: int  # tokens that a sliding layer sees; 0 without such layers
    learned_positions: int  # rows of the table of positions that is added to the embeddings
    relative_positions: int  # rows of the table that DeBERTa's attention reads, or of T5's biases
    attention_softcap: bool
    logits_softcap: bool

    @property
    def is_decoder(self) -> bool:
        """Whether it generates: each token sees only those before it."""
        return self.family.role == "decoder"

    @property
    def default_task(self) -> str:
        """What it is trained for when nothing else is said."""
        return {"decoder": "causal-lm", "encoder": "sequence-classification"}.get(self.family.role, "seq2seq-lm")

    @property
    def has_sdpa(self) -> bool:
        """Whether torch's fused attention can be used; it knows no cap on the scores, and no scores of positions."""
        return self.model_type != "gemma2" and not self.family.disentangled

    @property
    def gated(self) -> bool:
        """Whether its MLP multiplies two projections, as Llama's."""
        return self.family.gated

    @property
    def query_width(self) -> int:
        """Features of all heads' queries."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """Features of all heads' keys, and of their values."""
        return self.num_key_value_heads * self.head_dim

    def block_linears(self, kind: str = FULL) -> dict[str, Linear]:
        """Each linear layer of one block, by its module's name."""
        family, d, f = self.family, self.hidden_size, self.intermediate_size
        q, kv = self.query_width, self.key_value_width
        fused = len(family.projections) == 1
        projections = dict(zip(family.projections, [q + 2 * kv] if fused else [q, kv, kv], strict=True))
        inner = dict.fromkeys(family.inner, 2 * f if family.gated and len(family.inner) == 1 else f)
        return {
            **{name: Linear(d, width, self.attention_bias) for name, width in projections.items()},
            family.output: Linear(q, d, self.output_bias),
            **(self.cross_linears() if kind == DECODER else {}),
            **{name: Linear(d, width, self.mlp_bias) for name, width in inner.items()},
            family.outer: Linear(f, d, self.mlp_bias),
        }

    def cross_linears(self) -> dict[str, Linear]:
        """The linear layers with which a decoder attends to the encoder, by name: query, key, value, output."""
        names = [
            name.replace("SelfAttention", "EncDecAttention") for name in (*self.family.projections, self.family.output)
        ]
        sides = [(self.hidden_size, self.query_width)] * 3 + [(self.query_width, self.hidden_size)]
        return {name: Linear(*shape, False) for name, shape in zip(names, sides, strict=True)}

    def all_linears(self) -> dict[str, Linear]:
        """Each linear layer that some block has, by its module's name."""
        return {name: linear for kind in set(self.layer_kinds) for name, linear in self.block_linears(kind).items()}

    @property
    def embeds_narrowly(self) -> bool:
        """Whether the embeddings are narrower than the blocks, and projected."""
        return self.embedding_size != self.hidden_size

    def parameter_shapes(self, task: str) -> dict[str, list[tuple[int, ...]]]:
        """Shapes of the parameters of the embeddings, of one block, of the final norm and of the head, in order."""
        final_norm = self.family.norms != "stream"
        return {
            "embeddings": self._embedding_shapes(),
            "block": self._block_shapes(self.layer_kinds[-1]),
            "norm": self._norm(self.hidden_size) if final_norm else [],
            "head": self._head_shapes(task),
        }

    def _block_shapes(self, kind: str) -> list[tuple[int, ...]]:
        shapes = [shape for linear in self.block_linears(kind).values() for shape in linear.shapes]
        norms = 4 if self.family.norms == "both" else 2
        norms += {DECODER: 1, FIRST: -1}.get(kind, 0)
        return shapes + norms * self._norm(self.hidden_size) + self._query_key_norms()

    def _norm(self, width: int) -> list[tuple[int, ...]]:
        return [(width,)] * (2 if self.norm_bias else 1)

    def _query_key_norms(self) -> list[tuple[int, ...]]:
        if self.family.query_key_norm == "heads":
            return [(self.head_dim,), (self.head_dim,)]
        return [(self.query_width,), (self.key_value_width,)] if self.family.query_key_norm else []

    def _embedding_shapes(self) -> list[tuple[int, ...]]:
        shapes = [(self.vocab_size, self.embedding_size)]
        if self.learned_positions:
            shapes += [(self.learned_positions, self.embedding_size)]
        if self.type_vocab_size:
            shapes += [(self.type_vocab_size, self.embedding_size)]
        if self.family.role == "encoder":
            shapes += self._norm(self.embedding_size)
        if self.embeds_narrowly:
            shapes += [(self.embedding_size, self.hidden_size), (self.hidden_size,)]
        if self.family.disentangled:
            shapes += [(self.relative_positions, self.hidden_size), *self._norm(self.hidden_size)]
        if self.family.position_bias:  # of encoder and decoder, and the encoder's final norm
            shapes += 2 * [(self.relative_positions, self.num_attention_heads)] + self._norm(self.hidden_size)
        return shapes

    def _head_shapes(self, task: str) -> list[tuple[int, ...]]:
        d, v, narrow = self.hidden_size, self.vocab_size, self.embedding_size
        untied = [] if self.tie_word_embeddings else [(v, narrow)]
        classifier = [(self.num_labels, d), (self.num_labels,)]
        if task in ("causal-lm", "seq2seq-lm"):
            return untied
        if self.model_type == "modernbert":  # a dense layer without a bias and a norm come before everything
            dense = [(d, d), *self._norm(d)]
            return [*dense, (v,), *untied] if task == "masked-lm" else dense + classifier
        if task == "masked-lm":  # a dense layer, a norm and a bias per word before the decoder
            return [(v,), (d, narrow), (narrow,), *self._norm(narrow), *untied]
        if task in ("token-classification", "question-answering"):
            return classifier
        if self.is_decoder:
            return [(self.num_labels, d)]
        return [(d, d), (d,), *classifier]  # a pooler or dense layer, then the classifier

    def parameter_groups(self, task: str) -> dict[str, int]:
        """Number of parameters of the embeddings, of one block, of the final norm and of the head."""
        return {part: sum(map(math.prod, shapes)) for part, shapes in self.parameter_shapes(task).items()}

    def all_shapes(self, task: str) -> list[tuple[int, ...]]:
        """Shapes of all parameters, in order."""
        shapes = self.parameter_shapes(task)
        of_kind = {kind: self._block_shapes(kind) for kind in set(self.layer_kinds)}
        blocks = [shape for kind in self.layer_kinds for shape in of_kind[kind]]
        return shapes["embeddings"] + blocks + shapes["norm"] + shapes["head"]

    def parameters(self, task: str = "causal-lm") -> int:
        """Number of parameters of the model with the head of `task`."""
        return sum(map(math.prod, self.all_shapes(task)))

    def matmul_parameters(self, task: str = "causal-lm") -> int:
        """Weights that multiply every token, which is what `helpers.flops` counts: a table that is looked up is not."""
        ends = self.head_weights(task) + (self.embedding_size * self.hidden_size if self.embeds_narrowly else 0)
        of_kind = {kind: self.linear_weights(kind) for kind in set(self.layer_kinds)}
        return ends + sum(of_kind[kind] for kind in self.layer_kinds)

    def linear_weights(self, kind: str = FULL) -> int:
        """Weights of the linear layers of one block."""
        return sum(linear.weights for linear in self.block_linears(kind).values())

    def head_weights(self, task: str) -> int:
        """Weights of the head that multiply every token; a classifier of sequences sees one token of each text."""
        d, narrow, v = self.hidden_size, self.embedding_size, self.vocab_size
        if task in ("causal-lm", "seq2seq-lm"):
            return v * d
        if task == "masked-lm":
            return (d + v) * narrow
        dense = d * d if self.model_type == "modernbert" else 0
        return self.num_labels * d + dense if task in ("token-classification", "question-answering") else 0
