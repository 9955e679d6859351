"""Transformers' Trainer for texts: rows of like length together, whole checkpoints, one bar, an end on a signal."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from takehome.accelerator import SharedStop
from takehome.checkpoints import claim, damage, remove_checkpoints, seal, write_file
from takehome.commandline import Stopped, StopSignals
from takehome.errors import InputError, one_line
from takehome.settings import Settings
from takehome.tasks import Task
from takehome.tasks.task import column
from takehome.unfinished import RECORD, STATE, best_of, has_ended

MAIN = os.environ.get("RANK", "0") == "0"  # the process that speaks


class LengthSampler:
    """Orders rows so that those of a step are of like length; the order depends on seed and epoch alone."""

    def __init__(self, lengths: np.ndarray, step_rows: int, seed: int):
        self.lengths, self.step_rows, self.seed, self.epoch = lengths, step_rows, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng, size = np.random.default_rng([self.seed, self.epoch]), self.step_rows
        rows = rng.permutation(len(self))
        window = np.arange(len(rows)) // (50 * size)  # sorted among so many steps: grouped, and still random
        rows = rows[np.lexsort([self.lengths[rows], window])]
        whole = len(rows) // size * size
        steps = rng.permutation(rows[:whole].reshape(-1, size))
        return map(int, np.concatenate([steps.ravel(), rng.permutation(rows[whole:])]))


class Progress(TrainerCallback):
    """Shows a bar, refuses a loss that is no number, and ends the run after the step in which a signal came."""

    def __init__(self, work: Path, sampler: LengthSampler, shown: dict[str, str]):
        self.work, self.sampler, self.shown = work, sampler, shown
        self.stop = StopSignals(self.write)
        self.bar, self.asked, self.shared_stop = None, 0, None

    def write(self, line: str) -> None:
        if MAIN:
            tqdm.write(line)

    def on_train_begin(self, arguments, state, control, **_):
        if state.best_global_step:  # where the folder was when that was written says nothing
            state.best_model_checkpoint = str(self.work / f"checkpoint-{state.best_global_step}")
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            disable=not MAIN,
            mininterval=1,
        )

    def on_epoch_begin(self, arguments, state, control, **_):
        self.sampler.epoch = int(state.epoch or 0)

    def on_step_end(self, arguments, state, control, **_):
        self.bar.update(state.global_step - self.bar.n)
        self.asked = self.shared_stop.after_step()
        control.should_save |= bool(self.asked)

    def on_save(self, arguments, state, control, **_):
        if self.asked:
            raise Stopped(self.asked)

    def on_log(self, arguments, state, control, logs, **_):
        if "loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
            if not math.isfinite(logs["loss"]):
                raise InputError(
                    f"the loss of step {state.global_step} is {logs['loss']}: lower --learning-rate "
                    f"(it is {arguments.learning_rate:g})"
                )

    def on_evaluate(self, arguments, state, control, metrics, **_):
        if state.global_step:
            shown = {called: metrics.get(f"eval_{name}") for name, called in self.shown.items()}
            said = "".join(f", {called} {value:.4f}" for called, value in shown.items() if value is not None)
            self.write(f"step {state.global_step:<7}validation loss {metrics['eval_loss']:.4f}{said}")


class WholeTrainer(Trainer):
    """Writes checkpoints that say whether they are whole, and goes on as if it had never stopped.

    Args:
        given: for Trainer.
        work: folder of the run, claimed.
        record: everything that the run depends on; it is in each checkpoint.
        sampler: the order of the rows.
        shown: metrics of an evaluation {name: what it is called}.
        callbacks: beside the bar.
        more: for Trainer.
    """

    def __init__(
        self, *given, work: Path, record: dict, sampler: LengthSampler, shown: dict[str, str], callbacks=(), **more
    ):
        self.work, self.record, self.sampler = work, record, sampler
        self.progress = Progress(work, self.sampler, shown)
        super().__init__(*given, callbacks=[self.progress, *callbacks], **more)
        self.progress.shared_stop = SharedStop(self.accelerator, self.progress.stop)
        self.remove_callback(PrinterCallback)  # there is one bar, ours

    def _get_train_sampler(self, dataset=None):
        return self.sampler  # transformers' own one draws another order after a resume

    def run(self, start: Path | None) -> None:
        """Trains, from a checkpoint on if there is one; the weights are then those that the run ends with.

        Raises:
            Stopped: a signal came; a checkpoint is there.
            InputError: the loss is no number, or the best checkpoint was damaged.
        """
        if start and has_ended(start):  # Trainer would forget that, and train on
            self.state = TrainerState.load_from_json(str(start / STATE))
            self._load_end(start)
            return
        try:
            with self.progress.stop:
                self.train(resume_from_checkpoint=str(start) if start else None)
        finally:
            if self.progress.bar is not None:
                self.progress.bar.close()

    def _load_end(self, start: Path) -> None:
        """Loads the weights of a run whose training was over at this checkpoint."""
        self._load_from_checkpoint(str(start))

    def _save_checkpoint(self, model, trial) -> None:
        """Claims the folder before it is written, and seals it after."""
        folder, main = self.work / f"checkpoint-{self.state.global_step}", self.is_world_process_zero()
        if main:
            claim(folder, "checkpoint")
            write_file(folder / RECORD, json.dumps(self.record))
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if main:
            seal(folder)
            remove_checkpoints(self.work, 2, self.progress.write, keep=best_of)
        self.accelerator.wait_for_everyone()


class TextTrainer(WholeTrainer):
    """Trains what a task needs, evaluates on the way, and keeps the best weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        splits: dict[str, Dataset],
        task: Task,
        weights: np.ndarray | None,
        settings: Settings,
        work: Path,
        report_to: str = "none",
    ):
        self.settings, self.test_rows = settings, splits["test"]
        patience = settings.early_stopping_patience
        super().__init__(
            model,
            training_arguments(settings, work, task.best, report_to),
            task.collator(tokenizer),
            splits["train"],
            splits["validation"],
            tokenizer,
            work=work,
            record=asdict(settings),
            sampler=LengthSampler(column(splits["train"], "length"), settings.batch_size, settings.seed),
            shown=task.shown,
            compute_loss_func=task.loss(weights),
            compute_metrics=task.validate,
            callbacks=[EarlyStoppingCallback(patience)] if patience else [],
            preprocess_logits_for_metrics=task.reduce,
        )
        self.task = task

    def _load_end(self, start: Path) -> None:
        self._load_best_model()

    def evaluate(self, eval_dataset: Dataset | None = None, *arguments, **more) -> dict[str, float]:
        self.task.look_at_windows(self.eval_dataset if eval_dataset is None else eval_dataset)
        return super().evaluate(eval_dataset, *arguments, **more)

    def guess(self, dataset: Dataset) -> tuple[Any, Any]:
        """The answers of rows, and the model's outputs for them, as the task measures both."""
        self.task.look_at_windows(dataset)
        self.compute_metrics = None  # they are computed elsewhere
        found = self.predict(dataset)
        return self.task.truth(found.label_ids), self.task.outputs(found.predictions)

    def _load_best_model(self) -> None:
        best = self.work / f"checkpoint-{self.state.best_global_step}"
        if wrong := damage(best):
            raise InputError(f"{best}, the best checkpoint, cannot be used: {wrong}")
        self.state.best_model_checkpoint = str(best)
        super()._load_best_model()


def training_arguments(settings: Settings, work: Path, best: str, report_to: str = "none") -> TrainingArguments:
    """What Trainer is told; `best` is the metric that chooses the checkpoint, `report_to` a tracker.

    Raises:
        InputError: the settings do not go together, or not with this machine.
    """
    try:
        return TrainingArguments(
            output_dir=str(work),
            seed=settings.seed,
            use_cpu=settings.device == "cpu",
            bf16=settings.bf16,
            fp16=settings.fp16,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            num_train_epochs=settings.num_train_epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            per_device_eval_batch_size=2 * settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            activation_checkpointing=settings.activation_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False} if settings.activation_checkpointing else None,
            label_names=["labels"],  # of whatever model
            eval_strategy="steps",
            eval_steps=settings.eval_steps,
            save_steps=settings.eval_steps,
            load_best_model_at_end=True,
            metric_for_best_model=best,
            logging_steps=max(1, settings.steps // 60),
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to=report_to,
            run_name=work.name.removesuffix(".unfinished"),
            restore_callback_states_from_checkpoint=True,
            accelerator_config={"use_configured_state": True},  # the processes have met already
        )
    except ValueError as cause:
        raise InputError(one_line(cause)) from cause
