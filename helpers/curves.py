"""Loss curves: draw them, and say what they show.

    from helpers.curves import diagnose, plot
    plot(trainer.state.log_history, metric="accuracy")
    diagnose(trainer.state.log_history)

A history is what a `Trainer` keeps in `trainer.state.log_history`, or any list of dicts with the same keys: `loss` for
training, `eval_loss` for validation (both may stand in one dict), `step` or `epoch` or both, and `eval_<metric>`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

# Okabe and Ito's colours, told apart with every common colour blindness; marker and line style say the same again.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]

MOST_STEPS = 50  # a metric is called coarse if one example is worth two points or more
HIGHEST_START = 15  # nats: a cross-entropy starts near ln(classes) or ln(vocabulary), and ln(262,144) is 12.5
SUMMARY = "total_flos"  # of Trainer's keys, only in the entry that ends a run (train_runtime may stand in every entry)

ACTIONS = {
    "healthy": "Keep these settings, and measure once on the test split.",
    "overfitting": "Fewer epochs (load_best_model_at_end, early stopping), more data, weight decay or dropout.",
    "underfitting": "Train longer, raise the learning rate, or take a larger model.",
    "stuck": "Check labels and inputs, then learning rates ten times higher and lower; does warm-up ever end?",
    "diverging": "Lower the learning rate (try a tenth), add warm-up, clip gradients (max_grad_norm=1.0).",
    "steppy": "Judge by the validation loss, or give eval_dataset more examples: one of n moves the metric by 1/n.",
    "no training loss": "Set logging_steps to a tenth of the steps or less, so that the training loss is logged.",
    "no validation loss": 'Validate as you train: eval_strategy="epoch", with a validation split as eval_dataset.',
}


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What a history shows.

    Attributes:
        pattern: "healthy", "steppy" (healthy losses, a coarse metric), "overfitting", "underfitting" (a stuck run too),
            "diverging" or "too few points".
        evidence: the figures that show it, in a sentence; losses in nats.
        action: what to do about it.
    """

    pattern: str
    evidence: str
    action: str

    def __repr__(self) -> str:
        return f"Pattern:  {self.pattern}\nEvidence: {self.evidence}\nAction:   {self.action}"


def diagnose(history, metric=None) -> Diagnosis:
    """Name the pattern of a run: healthy, overfitting, underfitting (or stuck), diverging, or too few points to say.

    The losses must be cross-entropies in nats, as those of every Hugging Face classifier and language model are.
    They alone decide: accuracy moves in steps, since an example counts only when it crosses the decision border. If a
    metric is named and the losses are healthy, the metric is asked whether its steps are coarse.

    The thresholds are rules of thumb, chosen on recorded runs and checked on others:

    - diverging: NaN or infinity; a loss over 15; a training loss that ends 10 % above its start, or jumps or climbs
      back and stays there.
    - underfitting: the training loss fell by less than 10 % (5 % if it starts above 2.4, where a pretrained language
      model begins; 25 % above 7, where a new one does, because knowing how frequent each word is saves about as much);
      or, since the first evaluation, both losses stand still, or at ln(classes), which is what guessing costs.
    - overfitting: the validation loss ends above its best, and above the training loss, by 5 % of the mean of that best
      and the first training loss (3 % if it rose twice in a row, 1.5 % if more often); or it stood still while the
      training loss fell far below it.
    - steppy: every value of the metric, and there are three different ones, is a multiple of 1/n with n at most 50.

    The losses alone cannot tell a language model that was trained well before, and so gains little, from one that
    underfits: read that verdict with care where the loss starts low.

    Args:
        history: `trainer.state.log_history`, or a list of dicts with its keys. The order of the entries does not
            matter; of two entries for one step (a resumed run) the later counts. An evaluation after the end of
            training, as `trainer.evaluate()` logs it, is not part of the curve.
        metric: a share of examples, such as "accuracy" for the key `eval_accuracy`.

    Raises:
        TypeError: the history is no list of dicts, or a value is no number; the message names the entry.
        ValueError: an entry lacks the step or epoch that others have, or no entry has a key that is known; or the
            history lacks the metric.
    """
    axis = _axis({"history": history})
    scores = _scores("the history", history, metric, axis) if metric else []
    train, validation = (_points(history, key, axis) for key in ("loss", "eval_loss"))
    for name, points in (("training", train), ("validation", validation)):
        for x, value in points:
            if not math.isfinite(value):
                text = f"The {name} loss is {value} at {axis} {x:.4g}."
                return Diagnosis("diverging", text, ACTIONS["diverging"])
    norms = [value for _, value in _points(history, "grad_norm", axis)[-3:]]
    if norms and not any(map(math.isfinite, norms)):  # Trainer's logging_nan_inf_filter hides such a loss
        text = f"The gradient norm is {norms[-1]} at the end, so the weights are lost."
        return Diagnosis("diverging", text, ACTIONS["diverging"])
    if len(train) < 2:
        text = f"{_count(len(train), 'training loss')} and {_count(len(validation), 'validation loss')} make no curve."
        return Diagnosis("too few points", text, ACTIONS["no training loss"])
    return (
        _diverging(train, validation, axis)
        or _underfitting(train, validation)
        or _overfitting(train, validation, axis)
        or _steppy(scores, validation, metric)
        or _healthy(train, validation)
    )


def _diverging(train, validation, axis) -> Diagnosis | None:
    losses = [loss for _, loss in train]
    start, end, noise = _start(losses), _end(losses), _noise(losses)
    before = validation[0][1] if validation and validation[0][0] < train[0][0] else losses[0]
    reached = min([before, *(loss for _, loss in validation[:1])])  # by the first evaluation
    peak_x, peak = max(train + validation, key=lambda point: point[1])
    smooth = [median(losses[i : i + 3]) for i in range(len(losses) - 2)] or losses  # one wild batch is no jump
    jump = max(smooth + [loss for _, loss in validation])
    window = max(3, len(losses) // 10)
    best = min([fmean(losses[i : i + window]) for i in range(len(losses) - window + 1)], default=end)
    error = 4 * noise / math.sqrt(max(1, len(losses) // 10))  # of the mean of a tenth of the points, at the most

    if peak > HIGHEST_START and end > min(0.5, before / 2):
        text = f"The loss was {peak:.3g} at {axis} {peak_x:.4g}; a cross-entropy starts near ln(classes), below 13."
    elif end > 1.1 * start + error or end > 1.1 * before + 4 * noise:
        text = f"The training loss began at {min(start, before):.3g} and ends at {end:.3g}."
    elif end > 0.9 * reached and jump > 1.15 * max(before, end) + 3 * noise:
        text = f"The loss began at {before:.3g}, jumped to {jump:.3g}, and in training ends at {end:.3g}."
    elif end - best > 0.5 * (before - best) + error and end > 1.1 * best + error:
        text = f"The training loss had fallen from {before:.3g} to {best:.3g}, then climbed back to {end:.3g}."
    else:
        return None
    return Diagnosis("diverging", text, ACTIONS["diverging"])


def _underfitting(train, validation) -> Diagnosis | None:
    losses = [loss for _, loss in train]
    start, end = _start(losses), _end(losses)
    fall = 1 - end / start if start > 0 else 0.0
    enough = 0.10 if start < 2.4 else 0.05 if start < 7 else 0.25
    values = [loss for _, loss in validation]
    if fall < enough:
        text = f"The training loss went from {start:.3g} to {end:.3g}"
        text += f", {100 * fall:.0f} % less" if fall >= 0.005 else ""
        text += f"; the validation loss ends at {values[-1]:.3g}." if values else "."
        return Diagnosis("underfitting", text, ACTIONS["stuck" if fall < 0.02 else "underfitting"])
    if len(values) < 2:
        return None
    # A bad start, or a jump within the first report, can look like a fall although nothing was learnt after it.
    error = 2 * _noise(losses) / math.sqrt(max(1, len(losses) // 10))
    half = fmean(losses[len(losses) // 2 : -(len(losses) // 4) or None])
    for classes in range(2, 6):
        guess = math.log(classes)
        far = max(abs(end - guess), abs(half - guess))  # the training loss in the last half of the run
        if far < 0.02 * guess + error and min(values) > 0.98 * guess and values[-1] < 1.01 * guess:
            text = f"Both losses end near {guess:.3g} = ln({classes}), what guessing among {classes} classes costs."
            return Diagnosis("underfitting", text, ACTIONS["stuck"])
    if min(values) > 0.99 * values[0] and end + error > 0.95 * values[0] and fall < 0.25 + error / start:
        text = f"Since the first evaluation both losses stand near {values[-1]:.3g}."
        return Diagnosis("underfitting", text, ACTIONS["stuck"])
    return None


def _overfitting(train, validation, axis) -> Diagnosis | None:
    losses = [loss for _, loss in train]
    start, end = _start(losses), _end(losses)
    if len(validation) < 2 or end > 0.95 * validation[-1][1]:
        return None
    at, (best_x, best) = min(enumerate(validation), key=lambda item: item[1][1])
    after = [loss for _, loss in validation[at + 1 :]]
    if at == 0 and best > start:  # it never fell below the start
        best_x, best, after = 0, start, [best, *after]
    values = [loss for _, loss in validation]
    rises = 0
    while rises < len(values) - 1 and values[-rises - 1] > values[-rises - 2]:
        rises += 1
    tolerance = 0.05 if rises < 2 else 0.03 if rises == 2 else 0.015
    if after and fmean(after[-2:]) - best > tolerance * (best + max(start, best)) / 2:
        text = f"The validation loss rose from {best:.3g} ({axis} {best_x:.3g}) to {values[-1]:.3g}"
    elif end < 0.2 * values[-1] and values[-1] > 0.97 * values[0]:  # learnt by heart since the first evaluation
        text = f"The validation loss went from {values[0]:.3g} to {values[-1]:.3g} only"
    else:
        return None
    text += f", while the training loss fell to {end:.3g}."
    return Diagnosis("overfitting", text, ACTIONS["overfitting"])


def _steppy(scores, validation, metric) -> Diagnosis | None:
    values = sorted({score for _, score in scores})
    if len(values) < 3:
        return None
    for n in range(2, MOST_STEPS + 1):
        if all(abs(n * value - round(n * value)) < 1e-6 * n for value in values):
            break
    else:
        return None
    still = sum(a == b for (_, a), (_, b) in pairwise(scores))
    text = f"{metric.removeprefix('eval_').capitalize()} moves in steps of 1/{n}"
    text += f", and stood still {still} of {len(scores) - 1} times"
    text += f" while the validation loss went from {validation[0][1]:.3g} to {validation[-1][1]:.3g}."
    return Diagnosis("steppy", text, ACTIONS["steppy"])


def _healthy(train, validation) -> Diagnosis:
    losses = [loss for _, loss in train]
    text = f"The training loss fell from {_start(losses):.3g} to {_end(losses):.3g}"
    if len(validation) < 2:
        text += f"; {_count(len(validation), 'validation loss')} cannot show whether it overfits."
        return Diagnosis("too few points", text, ACTIONS["no validation loss"])
    first, last = validation[0][1], validation[-1][1]
    text += f", the validation loss {'went ' if last > first else ''}from {first:.3g} to {last:.3g}."
    return Diagnosis("healthy", text, ACTIONS["healthy"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 'es'}"


def _start(losses: list[float]) -> float:
    """Mean of the first tenth."""
    return fmean(losses[: max(1, len(losses) // 10)])


def _end(losses: list[float]) -> float:
    """Mean of the last fifth."""
    return fmean(losses[-max(1, len(losses) // 5) :])


def _noise(losses: list[float]) -> float:
    """Standard deviation of a logged loss about its trend, from the steps between neighbours in the second half."""
    half = losses[len(losses) // 2 :]
    steps = [abs(b - a) for a, b in pairwise(half)]
    return 1.4826 * median(steps) / math.sqrt(2) if steps else 0.0  # 1.4826: from median to sigma, if normal


def _number(history, index, key) -> float:
    """The value as a float, NumPy's and PyTorch's scalars too."""
    value = history[index][key]
    if not isinstance(value, (str, bytes, bool)):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise TypeError(f"entry {index} of the history has {key} = {value!r}; it must be a number")


def _axis(runs) -> str:
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


def _points(history, key, axis) -> list[tuple[float, float]]:
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


def _scores(name, history, metric, axis) -> list[tuple[float, float]]:
    """The points of a metric in the validation entries."""
    key = "eval_" + metric.removeprefix("eval_")
    points = _points(history, key, axis)
    if not points:
        others = {k.removeprefix("eval_"): None for entry in history for k in entry if k.startswith("eval_")}
        raise ValueError(f"{name} has no {key}; its metrics are: {', '.join(others) or 'none'}")
    return points


def plot(history, metric=None, ax=None):
    """Draw the training and validation loss of one run or several, and a metric in a second panel.

    Every logged value is drawn as it is; nothing is smoothed. The x axis counts epochs if a run has more than one,
    otherwise steps. The loss axis is logarithmic, and says so, if a loss is above 15 and above ten times the median.

    Args:
        history: `trainer.state.log_history`, or a list of dicts with its keys, or several such as `{"name": history}`.
        metric: the metric of the second panel, such as "accuracy" for the key `eval_accuracy`.
        ax: the matplotlib Axes to draw in; a pair of them if a metric is given.

    Returns:
        The matplotlib Figure. A notebook shows it once, whether or not the call is the last line of its cell.

    Raises:
        TypeError: as for `diagnose`.
        ValueError: as for `diagnose`, or a run has nothing to draw, or lacks the metric, or the axes are too few.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    runs = history if isinstance(history, Mapping) else {"history": history}
    if not runs:
        raise ValueError("there is no run to draw: the dict of histories is empty")
    axis = _axis(runs)
    losses = {name: [_points(run, key, axis) for key in ("loss", "eval_loss")] for name, run in runs.items()}
    for name, curves in losses.items():
        if not any(curves):
            raise ValueError(f"{name} has no loss to draw; train first, with logging_steps below the number of steps")
    scores = {}
    if metric:
        scores = {name: _scores(name, run, metric, axis) for name, run in runs.items()}

    panels = 2 if metric else 1
    if ax is None:
        _, ax = plt.subplots(1, panels, figsize=(9.5 if metric else 7, 3.6), layout="constrained")
    axes = list(ax) if hasattr(ax, "__iter__") else [ax]
    if len(axes) != panels:
        raise ValueError(f"ax must be {'a pair of axes: loss and metric' if metric else 'one axes'}, not {len(axes)}")

    for number, (name, (train, validation)) in enumerate(losses.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        other, prefix = (colour, f"{name}, ") if len(runs) > 1 else (COLOURS[1], "")
        style = {"linestyle": "--", "marker": marker if len(train) <= 20 else "", "markersize": 3, "linewidth": 1.2}
        axes[0].plot(*_columns(train), color=colour, label=_label(prefix + "training", train, axis), **style)
        style = {"color": other, "marker": marker, "markersize": 5, "linewidth": 2}
        axes[0].plot(*_columns(validation), label=_label(prefix + "validation", validation, axis), **style)
        if metric:
            axes[1].plot(*_columns(scores[name]), label=name, **style)

    for panel in axes:
        panel.set_xlabel(axis.capitalize())
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    values = [y for pair in losses.values() for points in pair for _, y in points if math.isfinite(y)]
    axes[0].set_ylabel("Loss")
    if values and max(values) > max(HIGHEST_START, 10 * median(values)):
        axes[0].set_yscale("log")
        axes[0].set_ylabel("Loss (log scale)")
    axes[0].legend(frameon=False)
    if metric:
        axes[1].set_xlim(axes[0].get_xlim())
        axes[1].set_ylabel(f"Validation {metric.removeprefix('eval_')}")
        if len(runs) > 1:
            axes[1].legend(frameon=False)

    figure = axes[0].get_figure(root=True)

    def show_once():
        """IPython calls this before it draws the figure; pyplot must not draw it again at the end of the cell."""
        plt.close(figure)
        raise NotImplementedError  # so IPython goes on to draw it

    figure._ipython_display_ = show_once
    return figure


def _columns(points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label(name, points, axis) -> str | None:
    """The legend's text, which also tells from where a line is missing because its values are no numbers."""
    lost = [f" ({y} at {axis} {x:.4g})" for x, y in points if not math.isfinite(y)][:1]
    return name + "".join(lost) if points else None
