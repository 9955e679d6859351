"""A GPT-2 to train from random weights: its shape, a fast forward pass that is the loss, and its optimizers."""

import math

import torch
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from takehome.errors import InputError
from takehome.models import SAFE
from takehome.recipe import Recipe, Shape


def load_tokenizer(shape: Shape) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shape.model, revision=shape.model_revision, **SAFE)


def build_config(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> GPT2Config:
    """The configuration of a new model.

    Raises:
        InputError: it is no GPT-2, or its numbers do not go together.
    """
    config = AutoConfig.from_pretrained(shape.model, revision=shape.model_revision, **SAFE)
    if not isinstance(config, GPT2Config):
        raise InputError(f"--model {shape.model} is a {config.model_type}, not a GPT-2")
    for name, value in shape.overrides.items():
        setattr(config, name, value)
    if config.n_embd % config.n_head:
        raise InputError(
            f"--config-overrides: n_embd {config.n_embd} is no multiple of n_head {config.n_head}: take one that is"
        )
    config.vocab_size, config.bos_token_id, config.eos_token_id = len(tokenizer), *2 * [tokenizer.eos_token_id]
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = shape.dropout
    if config.activation_function == "gelu_new":
        config.activation_function = "gelu"  # gelu_new is within 0.0005 of it, and slow on a CPU
    if shape.sequence_length > config.n_positions:
        raise InputError(
            f"--sequence-length {shape.sequence_length}: the model has {config.n_positions} positions; take at most "
            f"that, or --config-overrides n_positions={shape.sequence_length}"
        )
    return config


def causal_attention(module, query, key, value, mask, dropout: float = 0.0, **others):
    """Among [rows, heads, length, head size]; bf16 on a CPU step by step: torch's kernel takes twice as long."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        shape, length = query.shape, query.shape[2]
        query, key, value = (part.reshape(-1, length, shape[3]) for part in (query, key, value))
        future = query.new_full((1, length, length), -math.inf).triu_(1)
        scores = torch.baddbmm(future, query, key.transpose(1, 2), alpha=shape[3] ** -0.5)
        mixed = (F.dropout(scores.softmax(-1), dropout) @ value).view(shape)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
    return mixed.transpose(1, 2), None


AttentionInterface.register("causal", causal_attention)


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of a linear head, in nats a token, made in parts together with its gradients.

    The logits are the largest tensor of a step, and autograd would keep them for a backward that makes two more.
    torch 2.13 has this as F.linear_cross_entropy: in bf16 on a CPU it takes twice as long, and its loss is 0.1 off.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels):  # [tokens, width], [vocabulary, width], [tokens]
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        total, gradients = 0.0, ctx.needs_input_grad[0]
        to_hidden = torch.empty_like(hidden) if gradients else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if gradients else None
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            for start in range(0, len(labels), 1024):
                part = slice(start, start + 1024)
                rows, label = hidden[part].to(dtype), labels[part, None]
                shares = torch.softmax(rows @ matrix.t(), 1, dtype=torch.float32)
                total = total - shares.gather(1, label).clamp_min(1e-38).log().sum()  # of 0 it would be infinite
                if gradients:  # the shares, less 1 where the label is
                    slopes = shares.scatter_add_(1, label, shares.new_full(label.shape, -1.0)).to(dtype)
                    to_hidden[part] = slopes @ matrix
                    to_weight += slopes.t() @ rows
        ctx.save_for_backward(to_hidden, to_weight)
        return total / len(labels)

    @staticmethod
    def backward(ctx, slope):
        to_hidden, to_weight = ctx.saved_tensors
        slope = slope / len(to_hidden)
        return to_hidden * slope, to_weight * slope, None


class GPT2ForPretraining(GPT2LMHeadModel):
    """A GPT-2 whose forward pass is the training loss of blocks [rows, length + 1]."""

    def forward(self, input_ids):
        hidden = self.transformer(input_ids[:, :-1], use_cache=False).last_hidden_state
        return HeadLoss.apply(hidden.flatten(0, 1), self.lm_head.weight, input_ids[:, 1:].flatten())


def build_model(config: GPT2Config) -> GPT2ForPretraining:
    """A GPT-2 with random weights."""
    model = GPT2ForPretraining(config)
    model.set_attn_implementation("causal")
    return model


def build_optimizers(recipe: Recipe, model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the blocks; weight decay for matrices only."""
    named = list(model.named_parameters())
    muon = [p for name, p in named if recipe.optim == "muon" and p.ndim == 2 and ".h." in name]
    rest = [p for _, p in named if all(p is not other for other in muon)]
    groups = [
        dict(params=[p for p in rest if p.ndim >= 2], weight_decay=recipe.weight_decay),
        dict(params=[p for p in rest if p.ndim < 2], weight_decay=0.0),
    ]
    optimizers = [torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)]
    if muon:
        optimizers.append(torch.optim.Muon(muon_groups(muon, recipe.muon_learning_rate, recipe.weight_decay)))
    return optimizers


def muon_groups(matrices: list[torch.nn.Parameter], learning_rate: float, weight_decay: float) -> list[dict]:
    """Matrices of transformers' Conv1D, [inputs, outputs], with the rates that Muon would give nn.Linear's.

    Muon's rate grows with the root of outputs / inputs where that is above 1, and takes the first dimension for the
    outputs, as nn.Linear stores them. Here it is the inputs: a factor for each matrix turns that around. What decays is
    rate times weight decay, so that is divided by it.
    """
    factors = [math.sqrt(matrix.shape[1] / matrix.shape[0]) for matrix in matrices]
    return [
        dict(params=[matrix], lr=learning_rate * factor, weight_decay=weight_decay / factor)
        for matrix, factor in zip(matrices, factors, strict=True)
    ]


def training_step(accelerator, model, optimizers: list, batches, max_grad_norm: float):
    """One step of the optimizers on batches [accumulation, rows, length + 1]; returns this process's mean loss."""
    total = 0.0
    for batch in batches:
        with accelerator.accumulate(model):
            loss = model(batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        total = total + loss.detach() / len(batches)
    return total


def validation_loss(accelerator, model, blocks, rows: int) -> float:
    """Returns the mean loss in nats a token over blocks [blocks, length + 1], each process taking its share."""
    total = torch.zeros((), device=accelerator.device)
    model.eval()
    for i in range(0, len(blocks), rows * accelerator.num_processes):
        mine = blocks[i + rows * accelerator.process_index :][:rows]
        with torch.no_grad():
            # A process without blocks joins in all the same: where weights are sharded, the others need it.
            total += model((mine if len(mine) else blocks[:1]).to(accelerator.device)) * len(mine)
    model.train()
    return accelerator.reduce(total, "sum").item() / len(blocks)
