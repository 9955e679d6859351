"""What `Trainer` keeps of a run in `trainer.state.log_history`, read as points of curves.

A history may also be any list of dicts with the same keys: `loss` for training, `eval_loss` for validation (both may
stand in one dict), `step` or `epoch` or both, and `eval_<metric>`.
"""

import math
from collections.abc import Mapping

HIGHEST_START = 15  # nats: a cross-entropy starts near ln(classes) or ln(vocabulary), and ln(262,144) is 12.5
SUMMARY = "total_flos"  # of Trainer's keys, only in the entry that ends a run (train_runtime may stand in every entry)


def _number(history, index, key) -> float:
    """The value as a float, NumPy's and PyTorch's scalars too."""
    value = history[index][key]
    if not isinstance(value, (str, bytes, bool)):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise TypeError(f"entry {index} of the history has {key} = {value!r}; it must be a number")


def axis_of(runs) -> str:
    """Where the points of all runs stand: "epoch" if they have it and one lasts longer than one, "step", or "entry".

    Checks on the way that each history is a list of dicts with a loss.
    """
    holders = []  # (where, history, index) of each entry with a loss
    for name, history in runs.items():
        if isinstance(history, (str, Mapping)) or not hasattr(history, "__getitem__"):
            kind = type(history).__name__
            raise TypeError(f"{name} must be a list of dicts, such as trainer.state.log_history, not a {kind}")
        for index, entry in enumerate(history):
            if not isinstance(entry, Mapping):
                raise TypeError(f"entry {index} of {name} must be a dict with step and loss, not {entry!r}")
            if "loss" in entry or "eval_loss" in entry:
                holders.append((f"entry {index} of {name}", history, index))
        keys = dict.fromkeys(key for entry in history for key in entry)
        if keys and not keys.keys() & {"loss", "eval_loss", SUMMARY}:
            raise ValueError(f"no entry of {name} has a loss or eval_loss; the keys are {', '.join(map(str, keys))}")

    common = [key for key in ("epoch", "step") if all(key in history[index] for _, history, index in holders)]
    if common == ["epoch", "step"]:
        return "epoch" if max((_number(h, i, "epoch") for _, h, i in holders), default=0) > 1 else "step"
    for key in ("step", "epoch"):
        have = [where for where, history, index in holders if key in history[index]]
        lack = [where for where, history, index in holders if key not in history[index]]
        if have and lack and not common:
            raise ValueError(f"{lack[0]} has no {key}, but {have[0]} has; give one to every entry with a loss")
    return common[0] if common else "entry"


def points_of(history, key, axis) -> list[tuple[float, float]]:
    """The (x, value) pairs of a key in order of x; of two at the same x the later."""
    points, end = {}, -math.inf
    for index, entry in enumerate(history):
        if "loss" in entry:
            end = -math.inf  # training goes on
        x = index + 1.0 if axis == "entry" else _number(history, index, axis) if axis in entry else end
        if SUMMARY in entry:
            end = x
        elif key in entry and x > end:  # what comes after the summary was evaluated when training was over
            points[x] = _number(history, index, key)
    return sorted(points.items())


def scores_of(name, history, metric, axis) -> list[tuple[float, float]]:
    """The points of a metric in the validation entries."""
    key = "eval_" + metric.removeprefix("eval_")
    points = points_of(history, key, axis)
    if not points:
        others = {k.removeprefix("eval_"): None for entry in history for k in entry if k.startswith("eval_")}
        raise ValueError(f"{name} has no {key}; its metrics are: {', '.join(others) or 'none'}")
    return points
