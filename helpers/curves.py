"""Loss curves: every logged value, drawn as it is.

    from helpers.curves import diagnose, plot
    plot(trainer.state.log_history, metric="accuracy")
    diagnose(trainer.state.log_history)

A history is a list of dicts: helpers/history.py says which keys count. What the curves show, helpers/diagnosis.py says.
"""

import math
from collections.abc import Mapping
from statistics import median

from helpers.diagnosis import Diagnosis, diagnose
from helpers.history import HIGHEST_START, axis_of, points_of, scores_of
from helpers.palette import COLOURS

__all__ = ["COLOURS", "Diagnosis", "diagnose", "plot"]  # diagnose is another file's: lessons call it beside plot

MARKERS = ["o", "s", "^", "D", "v", "P", "X"]  # marker and line style say the same as the colour


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

    runs = history if isinstance(history, Mapping) else {"history": history}
    if not runs:
        raise ValueError("there is no run to draw: the dict of histories is empty")
    axis = axis_of(runs)
    losses = {name: [points_of(run, key, axis) for key in ("loss", "eval_loss")] for name, run in runs.items()}
    for name, curves in losses.items():
        if not any(curves):
            raise ValueError(f"{name} has no loss to draw; train first, with logging_steps below the number of steps")
    scores = {name: scores_of(name, run, metric, axis) for name, run in runs.items()} if metric else {}

    panels = 2 if metric else 1
    if ax is None:
        _, ax = plt.subplots(1, panels, figsize=(9.5 if metric else 7, 3.6), layout="constrained")
    axes = list(ax) if hasattr(ax, "__iter__") else [ax]
    if len(axes) != panels:
        raise ValueError(f"ax must be {'a pair of axes: loss and metric' if metric else 'one axes'}, not {len(axes)}")
    _draw(axes, losses, scores, axis)
    _label_axes(axes, losses, metric, axis)
    return _shown_once(axes[0].get_figure(root=True))


def _draw(axes, losses, scores, axis) -> None:
    """Draws each run: its losses in the first panel, its scores in the second."""
    for number, (name, (train, validation)) in enumerate(losses.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        other, prefix = (colour, f"{name}, ") if len(losses) > 1 else (COLOURS[1], "")
        style = {"linestyle": "--", "marker": marker if len(train) <= 20 else "", "markersize": 3, "linewidth": 1.2}
        axes[0].plot(*_columns(train), color=colour, label=_label(prefix + "training", train, axis), **style)
        style = {"color": other, "marker": marker, "markersize": 5, "linewidth": 2}
        axes[0].plot(*_columns(validation), label=_label(prefix + "validation", validation, axis), **style)
        if scores:
            axes[1].plot(*_columns(scores[name]), label=name, **style)


def _label_axes(axes, losses, metric, axis) -> None:
    from matplotlib.ticker import MaxNLocator

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
        if len(losses) > 1:
            axes[1].legend(frameon=False)


def _shown_once(figure):
    """The figure, which a notebook draws once, whether or not it is the last line of its cell."""
    import matplotlib.pyplot as plt

    def close_and_go_on():
        """IPython calls this before it draws the figure; pyplot must not draw it again at the end of the cell."""
        plt.close(figure)
        raise NotImplementedError  # so IPython goes on to draw it

    figure._ipython_display_ = close_and_go_on
    return figure


def _columns(points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label(name, points, axis) -> str | None:
    """The legend's text, which also tells from where a line is missing because its values are no numbers."""
    lost = [f" ({y} at {axis} {x:.4g})" for x, y in points if not math.isfinite(y)][:1]
    return name + "".join(lost) if points else None
