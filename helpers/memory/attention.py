"""Attention between its projections: what each way to compute it keeps. Sizes are bytes per token."""

from __future__ import annotations

from helpers.memory.operations import FP32, Operation, Run


def attend(run: Run) -> list[Operation]:
    """Attention between the projections before and after it."""
    if run.a.family.disentangled:
        return _disentangled_attention(run)
    return _fused_attention(run) if run.attention == "fused" else _stepwise_attention(run)


def _fused_attention(run: Run) -> list[Operation]:
    a, e, q, kv = run.a, run.activation_bytes, run.a.query_width, run.a.key_value_width
    repeated = run.masked and 1 < a.num_key_value_heads < a.num_attention_heads  # with a mask, grouped heads are
    # Turned queries and keys are new tensors; values are then the rest of a fused projection's output, which stays.
    turned = a.family.rotary and len(a.family.projections) == 1
    values = q + 2 * kv if turned else kv
    keeps = {
        # Put together, they lie differently in memory, so the output layer needs a copy of what attention gives
        "attention output, reordered": e * q if turned and a.family.partial_rotary else 0,
        "q, k, v": e * (3 * q if repeated else q + kv + values),
        "attention output": e * q,
        "log-sum-exp": FP32 * a.num_attention_heads,
        "additive mask": _bias(run, e) if a.family.position_bias else e * run.length * run.masked,
    }
    return [Operation("attention", keeps, e * 2 * (q + kv) + run.residual)]


def _bias(run: Run, width: int) -> float:
    """T5's biases of positions: one for each head and pair, which padding makes different for each text."""
    biases = width * run.a.num_attention_heads * run.length
    return biases if run.masked else biases / run.settings.per_device_train_batch_size


def _stepwise_attention(run: Run) -> list[Operation]:
    """Scores, softmax, dropout and weighted sum, each with its own tensors: eager, or torch's unfused attention."""
    a, e, q = run.a, run.activation_bytes, run.a.query_width
    math = run.attention == "math"
    m = FP32 if math else e  # torch's unfused attention computes in fp32 on the CPU
    scores = a.num_attention_heads * run.length  # numbers
    # softmax runs in fp32 in Llama's code, under CUDA's autocast, and where an fp32 mask was added to the scores
    added = run.masked or a.family.position_bias
    in_fp32 = a.family.rotary or (run.autocast and (run.on_gpu or a.is_decoder or added))
    p = FP32 if in_fp32 else m  # bytes of a probability
    weighted = {"v": m * q}
    if a.attention_dropout:
        weighted["dropped probabilities"] = scores * m
    elif p != m:
        weighted["rounded probabilities"] = scores * m
    passing = m * q  # the output; torch's own attention has q, k, v once more, q and k unscaled, an additive mask,
    if math:  # and where it widens them also the originals and its probabilities, rounded
        passing += m * 5 * q + e * run.length * run.masked + (e * (4 * q + scores) if m != e else 0)
    steps = [
        Operation(
            "scores",
            {"q, k": m * 2 * q, "capped scores": m * scores * a.attention_softcap},
            p * scores + m * 3 * q + run.residual,
        ),
        Operation("softmax", {"probabilities": scores * p}, 2 * p * scores + m * q + run.residual),
        Operation("weighted sum", weighted, max(m, p) * scores + m * 2 * q + run.residual, passing),
    ]
    if a.attention_dropout:
        dropped = m if a.is_decoder else p  # decoders round the probabilities first
        mask = {"probabilities dropped": scores * (1 if run.on_gpu else dropped)}
        steps.insert(2, Operation("dropout", mask, 2 * p * scores + m * q + run.residual))
    return steps


def _disentangled_attention(run: Run) -> list[Operation]:
    """DeBERTa's: to the scores of content it adds those of content to position and of position to content.

    Both are products with each row of a table of relative positions, of which each pair of tokens picks one.
    """
    a, e, q, length = run.a, run.activation_bytes, run.a.query_width, run.length
    rows, scores = a.relative_positions, a.num_attention_heads * length  # numbers
    row_scores = a.num_attention_heads * rows * e
    per_token = 1 / run.tokens  # of what a layer has once
    table = rows * a.hidden_size
    projected_for_each_text = rows * q * e / length
    p = FP32 if run.autocast and run.on_gpu else e  # bytes of a probability
    picked = 8 * length * length * per_token  # a row's number for each pair
    stream = run.residual
    own_copies = 2 if run.autocast else 1  # the projections of queries and of keys read the table
    weighted = {"v": e * q}
    if a.attention_dropout:
        weighted["dropped probabilities"] = scores * e
    elif p != e:
        weighted["rounded probabilities"] = scores * e
    steps = [
        Operation("scores", {"q": e * q, "scaled k": e * q}, e * scores + 3 * e * q + stream),
        Operation(
            "table of positions",
            {
                "dropped positions": table * (1 if run.on_gpu else run.residual_bytes) * per_token,
                "positions": own_copies * table * e * per_token,
            },
            e * 4 * q + stream,
        ),
    ]
    for name, other in (("content to position", "q"), ("position to content", "k")):
        keeps = {
            other: e * q,
            f"projected {name}": projected_for_each_text,
            f"picked {name}": picked,
            f"all scores {name}": row_scores,  # picking keeps what it picks from
        }
        steps.append(Operation(name, keeps, 2 * e * scores + row_scores + 3 * e * q + stream))
    steps += [
        Operation("hidden pairs", {"mask of this layer": length}, 2 * p * scores + e * q + stream, 2 * e * scores),
        Operation("softmax", {"probabilities": scores * p}, 2 * p * scores + e * q + stream, e * scores),
        Operation("weighted sum", weighted, max(e, p) * scores + e * 2 * q + stream, e * q),
    ]
    if a.attention_dropout:
        mask = {"probabilities dropped": scores * (1 if run.on_gpu else p)}
        steps.insert(-1, Operation("dropout", mask, 2 * p * scores + e * q + stream))
    return steps
