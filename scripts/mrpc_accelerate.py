"""Fine-tunes a classifier of sentence pairs (MRPC) with Accelerate, on one process or on many.

    python scripts/mrpc_accelerate.py                                              # one process
    python scripts/mrpc_accelerate.py --config-file scripts/launch/ddp_cpu.yaml    # as many as the file asks for
    accelerate launch --config_file scripts/launch/ddp_cpu.yaml scripts/mrpc_accelerate.py
    torchrun --nproc_per_node 2 scripts/mrpc_accelerate.py

With --config-file the program first compares the file with the machine, then runs `accelerate launch` itself, keeps the
launchers' messages in launch.log, and says in one line what went wrong. Data, model and settings come from [mrpc] of
the profile.

Stopped for whatever reason? Run the same command again: it goes on from the last checkpoint, as if nothing had
happened. There is one after each epoch, every --save-steps, and when Ctrl-C, SIGTERM or SIGHUP come. At the end the
output directory holds `model` and results.json: the loss of every step, the validation of every epoch, the memory.
"""

import contextlib
import gc
import itertools
import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.profile_tables import PairClassification
from helpers.profiles import Profile, load_profile
from takehome.accelerator import SharedStop, gather_by_layer, kind_of, make_accelerator
from takehome.checkpoints import damage, write_file
from takehome.commandline import Parser, Stopped, StopSignals, number, run_program
from takehome.errors import InputError
from takehome.launching import Launch, launch, launch_options, launch_parser
from takehome.runs import RunState, go_on, open_run, save_checkpoint, save_model
from takehome.tensors import Training, resting_bytes, unusable
from takehome.tracking import accelerate_settings, add_report_to, check_report_to, finish_trackers, start_trackers

# torch is imported where it is used: a wrong option, or a Hub that does not answer, is reported without waiting for it.
if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = Path(__file__).name


@dataclass(frozen=True)
class Options:
    """The command line; a size that is not given is that of the profile."""

    profile: str | None
    output_dir: Path
    overwrite: bool
    resume: bool
    save_steps: int | None
    save_total_limit: int
    per_device_train_batch_size: int | None
    gradient_accumulation_steps: int
    max_steps: int | None
    report_to: str
    launch: Launch


@dataclass
class Progress:
    """What a run has found so far.

    Attributes:
        losses: of each step.
        epochs: for each validation its step and its metrics.
        updates: steps that were taken; in fp16 a few are skipped.
        memory: for each process the bytes that it holds between two steps.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    updates: int = 0
    memory: list[dict[str, int]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return len(self.losses)


def parse_arguments(arguments: list[str] | None = None) -> Options:
    p = Parser(prog=NAME, description=__doc__, parents=[launch_parser()])
    p.add_argument("--profile", help="name or .toml file; default: FINETUNING_PROFILE, or reduced")
    p.add_argument("--output-dir", type=Path, default=Path("outputs/mrpc_accelerate"))
    p.add_argument("--resume", action="store_true", help="insist on going on, which happens anyway if there is a start")
    p.add_argument("--overwrite", action="store_true", help="remove what an earlier run left in --output-dir")
    p.add_argument("--save-steps", type=number(int, 1, 10**9), help="save every so many steps, not only epochs")
    p.add_argument("--save-total-limit", type=number(int, 1, 10**9), default=2)
    p.add_argument("--per-device-train-batch-size", type=number(int, 1, 10**6))
    p.add_argument("--gradient-accumulation-steps", type=number(int, 1, 10**6), default=1)
    p.add_argument("--max-steps", type=number(int, 1, 10**9), help="stop, and end the schedule, after so many steps")
    add_report_to(p)
    args = p.parse_args(arguments)
    check_report_to(args.report_to)
    own = {name: value for name, value in vars(args).items() if name in Options.__dataclass_fields__}
    return Options(launch=launch_options(args), **own)


# --- What a run is made of -----------------------------------------------------------------------


@dataclass
class Run:
    """A run under way."""

    options: Options
    settings: PairClassification
    training: Training
    tokenizer: "PreTrainedTokenizerBase"
    optimizer: Any  # as `prepare` returned it
    train_loader: "DataLoader"
    eval_loader: "DataLoader"
    order: "torch.Generator"
    rows: int  # of a batch
    num_steps: int
    steps_per_epoch: int
    progress: Progress = field(default_factory=Progress)

    @property
    def accelerator(self) -> "Accelerator":
        return self.training.accelerator

    def learning_rate_share(self) -> float:
        """Share of the peak learning rate for the next step: up in a line, then down in a line to zero."""
        share, step = self.settings.warmup_steps, self.progress.updates
        warmup = int(share) if share >= 1 else math.ceil(self.num_steps * share)
        if step < warmup:
            return step / warmup
        return max(0.0, (self.num_steps - step) / max(1, self.num_steps - warmup))

    def configuration(self) -> dict[str, Any]:
        """What must be the same when the run goes on."""
        return asdict(self.settings) | {
            "per_device_train_batch_size": self.rows,
            "gradient_accumulation_steps": self.options.gradient_accumulation_steps,
            "max_steps": self.num_steps,
            "num_processes": self.accelerator.num_processes,
            "distributed_type": self.accelerator.distributed_type.value,
            "mixed_precision": self.accelerator.mixed_precision,
        }


def load_data(settings: PairClassification, tokenizer, accelerator: "Accelerator") -> list["Dataset"]:
    """Training and validation rows, tokenised, with the columns that the model takes."""
    from datasets import load_dataset

    def tokenize(rows):
        return tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=settings.max_length)

    parts = []
    with accelerator.local_main_process_first():  # the others read its cache
        for split, most in (("train", settings.max_train_samples), ("validation", settings.max_eval_samples)):
            rows = load_dataset(settings.dataset, settings.config, revision=settings.revision, split=split)
            rows = rows.select(range(min(most, len(rows))))
            unused = [name for name in rows.column_names if name != "label"]
            rows = rows.map(tokenize, batched=True, remove_columns=unused).rename_column("label", "labels")
            parts.append(rows.with_format("torch"))
    return parts


def build_optimizer(settings: PairClassification, model: "PreTrainedModel") -> "torch.optim.Optimizer":
    import torch

    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def begin(options: Options, profile: Profile) -> Run:
    """Everything that a run needs, before its first step or the step to go on from."""
    import datasets
    import torch
    import transformers
    from accelerate.utils import set_seed  # the one in transformers imports PEFT and bitsandbytes: two seconds
    from torch.utils.data import DataLoader, RandomSampler

    from takehome.models import SAFE, load_model, loading

    settings, accumulation = profile.mrpc, options.gradient_accumulation_steps
    accelerator = make_accelerator(profile.wants_cpu, **accelerate_settings(options.report_to, options.output_dir))
    if accelerator.distributed_type == "DEEPSPEED" and accumulation > 1:
        raise InputError("DeepSpeed counts accumulation by itself; take DDP or FSDP for --gradient-accumulation-steps")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    place, revision = settings.checkpoint, settings.checkpoint_revision
    with loading(place):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, revision=revision, **SAFE)
        set_seed(settings.seed)  # the new head is drawn here, on every process the same
        kind = transformers.AutoModelForSequenceClassification
        model = load_model(kind, place, new_head=True, revision=revision, num_labels=2).model
    with loading(settings.dataset):
        train_rows, eval_rows = load_data(settings, tokenizer, accelerator)
    rows = options.per_device_train_batch_size or settings.per_device_train_batch_size
    if (step_rows := rows * accumulation * accelerator.num_processes) > len(train_rows):
        raise InputError(
            f"a step would take {step_rows:,} rows, there are {len(train_rows):,}: take a smaller "
            "--per-device-train-batch-size or fewer --gradient-accumulation-steps"
        )
    gather_by_layer(accelerator, model)
    optimizer = build_optimizer(settings, model)
    order, collate = torch.Generator(), transformers.DataCollatorWithPadding(tokenizer)
    sampler = RandomSampler(train_rows, generator=order)
    train_loader = DataLoader(train_rows, rows, sampler=sampler, collate_fn=collate)
    eval_loader = DataLoader(eval_rows, settings.per_device_eval_batch_size, collate_fn=collate)
    model, prepared, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)

    steps_per_epoch = math.ceil(len(train_loader) / accumulation)
    num_steps = options.max_steps or math.ceil(steps_per_epoch * settings.num_train_epochs)
    training = Training(accelerator, model, [optimizer])
    data = (tokenizer, prepared, train_loader, eval_loader, order, rows)
    return Run(options, settings, training, *data, num_steps, steps_per_epoch)


# --- Training ------------------------------------------------------------------------------------


def train(options: Options, profile: Profile, start: Path | None) -> None:
    """Trains, evaluates after every epoch, saves, and writes the model and results.json."""
    gc.disable()  # what the imports make stays: looking for garbage in it, now and at the exit, costs seconds
    from accelerate.utils import set_seed

    run = begin(options, profile)
    gc.enable()
    gc.freeze()
    accelerator, folder = run.accelerator, options.output_dir
    if state := go_on(run.training, start, run.configuration()):
        try:
            run.progress = Progress(**state.progress)
            if run.progress.step != state.step:
                raise ValueError(f"{run.progress.step} losses after {state.step} steps")
        except (TypeError, ValueError) as cause:
            raise unusable(folder / f"checkpoint-{state.step}" / "state.json", cause) from cause
        if state.step >= run.num_steps and (folder / "results.json").exists() and not damage(folder / "model"):
            raise InputError(f"{folder} is finished: checkpoint-{state.step} is the last step; --overwrite begins anew")
    else:
        set_seed(run.settings.seed)  # as Trainer does: dropout starts from here
    where = f"{accelerator.num_processes} process(es) on {accelerator.device.type}, {kind_of(accelerator)}"
    accelerator.print(f"{where}, {f'from step {state.step} ' if state else ''}to step {run.num_steps}", flush=True)
    start_trackers(accelerator, "mrpc_accelerate", folder, run.configuration(), run.progress.step)
    with StopSignals(accelerator.print) as signals:
        loop(run, bool(state), signals)
    finish(run)
    finish_trackers(accelerator)


def loop(run: Run, resumed: bool, signals: StopSignals) -> None:
    """Trains to the last step; raises Stopped after a signal, when a checkpoint is written."""
    from tqdm import tqdm

    accelerator, progress, options = run.accelerator, run.progress, run.options
    stop = SharedStop(accelerator, signals)
    shown = {"file": sys.stdout, "mininterval": 1, "disable": not accelerator.is_main_process}
    bar = tqdm(total=run.num_steps, initial=progress.step, **shown)
    while progress.step < run.num_steps:
        for group in read_epoch(run, resumed):
            take_step(run, group)
            accelerator.log({"loss": progress.losses[-1]}, progress.step)
            bar.update()
            last, asked = progress.step == run.num_steps, stop.after_step()
            if ends_epoch := last or progress.step % run.steps_per_epoch == 0:
                metrics = evaluate(run)
                progress.epochs.append({"step": progress.step, **metrics})
                accelerator.log({f"eval_{name}": value for name, value in metrics.items()}, progress.step)
            due = options.save_steps and progress.step % options.save_steps == 0
            if due or ends_epoch or asked:
                state = RunState(progress.step, run.configuration(), asdict(progress))
                save_checkpoint(run.training, options.output_dir, state, options.save_total_limit)
            if last:
                break
            if asked:
                bar.close()
                accelerator.print(f"stopped after step {progress.step}; the same command goes on", flush=True)
                raise Stopped(asked)
        resumed = False
    bar.close()


def read_epoch(run: Run, resumed: bool):
    """Yields the batches of a step until an epoch ends, from where the run is."""
    import torch

    accumulation = run.options.gradient_accumulation_steps
    epoch, done = divmod(run.progress.step, run.steps_per_epoch)
    run.order.manual_seed(run.settings.seed + epoch)  # the order of an epoch depends on nothing but its number
    run.training.model.train()
    loader = run.accelerator.skip_first_batches(run.train_loader, done * accumulation) if done else run.train_loader
    random_state = torch.get_rng_state()
    batches = iter(loader)
    group = list(itertools.islice(batches, accumulation))
    if resumed and done:  # beginning to read has drawn a number that was drawn before
        torch.set_rng_state(random_state)
    while group:
        yield group
        run.training.model.train()  # an evaluation may have been
        group = list(itertools.islice(batches, accumulation))


def take_step(run: Run, group: list) -> None:
    """One step of the optimizer on all batches of a group."""
    accelerator, model, optimizer, progress = run.accelerator, run.training.model, run.optimizer, run.progress
    for part in run.training.optimizers[0].param_groups:
        part["lr"] = run.settings.learning_rate * run.learning_rate_share()
    loss = mean_loss(accelerator, model, group)
    accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if not accelerator.optimizer_step_was_skipped:
        progress.updates += 1
    if not progress.memory:
        progress.memory = resting_bytes(run.training)
    optimizer.zero_grad()
    progress.losses.append(loss)


def mean_loss(accelerator: "Accelerator", model, group: list) -> float:
    """Forward and backward of all batches of a step; returns the mean loss of its rows, on all processes.

    Each row counts the same, whichever batch and process it is in: a mean of means would favour the rows of a smaller
    batch. DDP averages the gradients over the processes, hence their number in the loss.
    """
    import torch

    rows = accelerator.reduce(torch.tensor(float(sum(len(b["labels"]) for b in group)), device=accelerator.device))
    total = 0.0
    for place, batch in enumerate(group, 1):
        with accelerator.no_sync(model) if place < len(group) else contextlib.nullcontext():
            loss = model(**batch).loss * len(batch["labels"]) / rows
            accelerator.backward(loss * accelerator.num_processes)
            total += loss.detach()
    return accelerator.reduce(total).item()


def evaluate(run: Run) -> dict[str, float]:
    """The metrics of the whole validation set; the main process computes them, the others return nothing."""
    import torch

    accelerator, model = run.accelerator, run.training.model
    model.eval()
    predictions, labels = [], []
    for batch in run.eval_loader:
        with torch.no_grad():
            predicted = model(**batch).logits.argmax(dim=-1)
        # Without gather_for_metrics the rows that fill up the last batch would count twice.
        predicted, label = accelerator.gather_for_metrics((predicted, batch["labels"]))
        predictions += predicted.tolist()
        labels += label.tolist()
    if not accelerator.is_main_process:
        return {}
    import evaluate as metrics  # the library, not this function; the other processes need not read it

    return metrics.load(run.settings.metric, "mrpc").compute(predictions=predictions, references=labels)


def finish(run: Run) -> None:
    """Writes the model, then results.json."""
    accelerator, folder, progress = run.accelerator, run.options.output_dir, run.progress
    model = accelerator.unwrap_model(run.training.model)

    def write(place: Path, weights: dict[str, "torch.Tensor"]) -> None:
        model.save_pretrained(place, state_dict=weights)
        run.tokenizer.save_pretrained(place)

    save_model(run.training, folder / "model", write)
    if accelerator.is_main_process:
        found = {"step": progress.step, "losses": progress.losses, "epochs": progress.epochs}
        found |= {"processes": accelerator.num_processes, "kind": kind_of(accelerator), "memory": progress.memory}
        write_file(folder / "results.json", json.dumps(found, indent=1))
        print(", ".join(f"{name} {value:.4f}" for name, value in progress.epochs[-1].items() if name != "step"))


def main(arguments: list[str] | None = None) -> int:
    """Launches, or trains in this process; returns the exit status."""
    options: list[Options] = []
    words = sys.argv[1:] if arguments is None else arguments

    def program() -> None:
        options.append(parse_arguments(words))
        folder, profile = options[0].output_dir, load_profile(options[0].profile)
        profile.mrpc  # noqa: B018 (raises if something is missing)
        if options[0].launch.config_file and "LOCAL_RANK" not in os.environ:
            _, own = launch_parser().parse_known_args(words)
            launch(options[0].launch, profile, Path(__file__), own, folder, "MRPC run")
        else:
            with open_run(folder, "MRPC run", options[0].resume, options[0].overwrite) as start:
                train(options[0], profile, start)

    return run_program(NAME, program, lambda: options[0].output_dir if options else None, keep_traceback=True)


if __name__ == "__main__":
    sys.exit(main())
