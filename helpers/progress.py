"""A line that shows how far a training is: it writes over itself, appears after three seconds, and goes at the end.

trainer = Trainer(..., callbacks=[ProgressLine()])
for batch in progress(loader, total=len(loader)):
    ...
"""

import sys
from collections.abc import Iterable

from tqdm import tqdm

DELAY = 3  # seconds: what is shorter needs no line


def progress(steps: Iterable | None = None, total: int | None = None, done: int = 0) -> tqdm:
    """Yields what `steps` yields and shows how much of it is done, the time left, and what `set_postfix_str` was told.

    Args:
        steps: what to count, such as a DataLoader; without it, call `update` and `close`.
        total: how many there will be; by default the length of `steps`.
        done: how many were done before, by a run that goes on.
    """
    look = "{desc}{n_fmt} of {total_fmt} steps, {remaining} left{postfix}"
    return tqdm(
        steps, total=total, initial=done, file=sys.stdout, delay=DELAY, leave=False, mininterval=0.5, bar_format=look
    )


def ProgressLine():  # a class to those who call it; it is made here, where transformers is needed
    """A callback that shows the steps of a `Trainer`, the time that is left, and the last loss that was logged."""
    from transformers import TrainerCallback

    class ProgressLine(TrainerCallback):
        def __init__(self):
            self.line: tqdm | None = None

        def on_train_begin(self, args, state, control, **kwargs):
            self.on_train_end(args, state, control)  # a training that was interrupted left its line
            if state.is_world_process_zero:
                self.line = progress(total=state.max_steps, done=state.global_step)

        def on_step_end(self, args, state, control, **kwargs):
            if self.line is not None:
                self.line.update(state.global_step - self.line.n)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if self.line is not None and "loss" in (logs or {}):
                self.line.set_postfix_str(f"loss {float(logs['loss']):.3f}", refresh=False)

        def on_train_end(self, args, state, control, **kwargs):
            if self.line is not None:
                self.line.close()
                self.line = None

    return ProgressLine()
