"""What the losses of a run show, and what to do about it.

    from helpers.diagnosis import diagnose
    diagnose(trainer.state.log_history)

A history is a list of dicts: helpers/history.py says which keys count.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from helpers.history import HIGHEST_START, axis_of, points_of, scores_of

GAP = 0.2  # a training loss below this share of the validation loss is far below it
MOST_STEPS = 50  # a metric is called coarse if one example is worth two points or more

ACTIONS = {
    "healthy": "Keep these settings, and measure once on the test split.",
    "overfitting": "Fewer epochs (load_best_model_at_end, early stopping), more data, weight decay or dropout.",
    "underfitting": "Train longer, raise the learning rate, or take a larger model.",
    "stuck": "Check labels and inputs, then learning rates ten times higher and lower; does warm-up ever end?",
    "diverging": "Lower the learning rate (try a tenth), add warm-up, clip gradients (max_grad_norm=1.0).",
    "gap": "It has not turned, so keep the epochs. Try more data, dropout, weight decay; measure its calibration.",
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
      or, since the first evaluation, both losses stand still, or at ln(classes), which is what guessing costs;
      or the validation loss fell by less than 5 %, and as fast at the end as at the start (three points at least): the
      run has only begun, as with a learning rate that is far too low.
    - overfitting: the validation loss ends above its best, and above the training loss, by 5 % of the mean of that best
      and the first training loss (3 % if it rose twice in a row, 1.5 % if more often); or it stood still while the
      training loss fell far below it.
    - healthy: none of these. If the training loss is below a fifth of the validation loss, the evidence calls it a wide
      gap, and the action is another: the run has not turned, but it knows its own examples far better than new ones.
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
    axis = axis_of({"history": history})
    scores = scores_of("the history", history, metric, axis) if metric else []
    train, validation = (points_of(history, key, axis) for key in ("loss", "eval_loss"))
    for name, points in (("training", train), ("validation", validation)):
        for x, value in points:
            if not math.isfinite(value):
                text = f"The {name} loss is {value} at {axis} {x:.4g}."
                return Diagnosis("diverging", text, ACTIONS["diverging"])
    norms = [value for _, value in points_of(history, "grad_norm", axis)[-3:]]
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
    if _crawls(values) and fall < 0.15:  # a few noisy batches at the start, or dropout, can look like a larger fall
        text = f"The validation loss fell from {values[0]:.3g} to {values[-1]:.3g} only, as fast at the end as before."
        return Diagnosis("underfitting", text, ACTIONS["underfitting"])
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


def _crawls(values: list[float]) -> bool:
    """Whether a loss has hardly fallen and does not flatten either, as in a run that has only begun to learn."""
    falls = [before - after for before, after in pairwise(values)]
    third = max(1, len(falls) // 3)
    return (
        len(falls) >= 2
        and min(falls) > 0
        and values[-1] > 0.95 * values[0]
        and fmean(falls[-third:]) > 0.6 * fmean(falls[:third])
    )


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
    elif end < GAP * values[-1] and values[-1] > 0.97 * values[0]:  # learnt by heart since the first evaluation
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
    text += f", the validation loss {'went ' if last > first else ''}from {first:.3g} to {last:.3g}"
    if _end(losses) < GAP * last:
        return Diagnosis("healthy", f"{text}: a wide gap, but no turn.", ACTIONS["gap"])
    return Diagnosis("healthy", f"{text}.", ACTIONS["healthy"])


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
