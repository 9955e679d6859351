"""Trains a GPT-2 from random weights on a stream of documents, on one CPU, several processes or a cluster of GPUs.

    python scripts/pretrain_gpt2.py --output-dir runs/first
    torchrun --nproc_per_node=2 scripts/pretrain_gpt2.py --output-dir runs/first
    accelerate launch --config_file scripts/launch/fsdp2.yaml scripts/pretrain_gpt2.py --profile full ...

What is not said on the command line comes from the profile (`--profile`, see helpers/profiles.toml). The corpus is
anything that `load_dataset` streams; takehome/tokens.py makes blocks of it.

Stopped for whatever reason? Run the same command again: it goes on from the last checkpoint, with the same losses as if
nothing had happened. Ctrl-C, SIGTERM and SIGHUP write a checkpoint first. In the output directory: `log.jsonl` (a line
a step), `checkpoint-N` (whole or absent), and at the end `model`, which `from_pretrained` loads.
"""

import argparse
import math
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.machine import mixed_precision
from helpers.profiles import load_profile  # before Hugging Face's libraries: it may set them offline
from takehome.accelerator import SharedStop, gather_by_layer, make_accelerator
from takehome.commandline import Parser, Stopped, StopSignals, number, run_program
from takehome.errors import InputError
from takehome.log import Log, Losses
from takehome.recipe import Recipe, Schedule, Shape, parse_overrides
from takehome.runs import RunState, go_on, open_run, save_checkpoint, save_model
from takehome.tensors import Training, unusable
from takehome.tokens import Corpus, Position, TokenStream
from takehome.tracking import accelerate_settings, add_report_to, check_report_to, finish_trackers, start_trackers

# torch is imported where it is used: a wrong option, or a Hub that does not answer, is reported without waiting for it.
if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import GPT2Config, PreTrainedTokenizerBase

NAME = Path(__file__).name


@dataclass(frozen=True)
class Options:
    """The command line, with what it leaves out from the profile."""

    output_dir: Path
    profile: str | None
    resume: bool
    overwrite: bool
    corpus: Corpus
    shape: Shape
    recipe: Recipe
    use_cpu: bool
    logging_steps: int
    eval_steps: int
    save_steps: int
    save_total_limit: int
    report_to: str

    def lasting(self) -> dict[str, Any]:
        """What must be the same when a run goes on; everything else changes no loss."""
        return asdict(self.corpus) | asdict(self.shape) | asdict(self.recipe) | {"use_cpu": self.use_cpu}


# --- The command line ----------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """Reads the command line.

    Raises:
        InputError: an option is unknown or out of range, or two do not go together.
        ProfileError: the profile cannot be used.
    """
    parser = make_parser()
    given, _ = parser.parse_known_args(arguments)
    profile = load_profile(given.profile)
    defaults = profile.openwebtext
    bf16 = "bf16" if defaults.bf16 else "no"
    parser.set_defaults(
        **{name: str(value) for name, value in vars(defaults).items() if hasattr(given, name) and value is not None},
        sequence_length=str(defaults.block_size),  # a text, so that its range is checked as on the command line
        mixed_precision=os.environ.get("ACCELERATE_MIXED_PRECISION", bf16),
        use_cpu=profile.wants_cpu,
    )
    if given.dataset is None:
        parser.set_defaults(dataset_config=defaults.config, dataset_revision=defaults.revision)
    if given.model is None:
        parser.set_defaults(model=defaults.checkpoint, model_revision=defaults.checkpoint_revision)
    else:
        parser.set_defaults(config_overrides="")  # the profile's are for its own checkpoint
    options = collect(parser.parse_args(arguments))
    check(options)
    return options


def make_parser() -> Parser:
    count, share, from_zero = number(int, 1, 10**9), number(float, 0, 1), number(float, 0)
    above_zero = number(float, 0, above=True)
    p = Parser(prog=NAME, description=__doc__)
    p.add_argument("--output-dir", type=Path, required=True)
    p.add_argument("--profile", help="reduced, laptop, full or a TOML file; `reduced` stays offline")
    p.add_argument("--resume", action="store_true", help="insist on going on, which happens anyway if there is a start")
    p.add_argument("--overwrite", action="store_true", help="remove what an earlier run left in --output-dir")
    corpus = p.add_argument_group("corpus")
    corpus.add_argument("--dataset", help="Hub id, directory, or files such as 'texts/*.jsonl'")
    corpus.add_argument("--dataset-config")
    corpus.add_argument("--dataset-revision")
    corpus.add_argument("--split", default="train")
    corpus.add_argument("--text-column", default="text")
    corpus.add_argument("--validation-split", help="by default the first documents of the first shard are held out")
    corpus.add_argument("--validation-documents", type=count, default=200)
    corpus.add_argument("--shuffle-buffer", type=count, default=1000, help="documents shuffled together; 1: none")
    corpus.add_argument("--max-document-characters", type=count, default=10_000_000)
    model = p.add_argument_group("model")
    model.add_argument("--model", help="Hub id or directory that gives the tokenizer and the shape, not the weights")
    model.add_argument("--model-revision")
    model.add_argument("--config-overrides", type=parse_overrides, default="", help="as n_layer=2,n_embd=128,n_head=4")
    model.add_argument("--dropout", type=number(float, 0, 0.99), default=0.0)
    model.add_argument("--sequence-length", type=number(int, 1, 10**6))
    train = p.add_argument_group("training")
    train.add_argument("--max-steps", type=count)
    train.add_argument("--per-device-train-batch-size", type=number(int, 1, 10**5))
    train.add_argument("--gradient-accumulation-steps", type=number(int, 1, 10**5))
    train.add_argument("--learning-rate", type=above_zero)
    train.add_argument("--muon-learning-rate", type=above_zero, default=0.02, help="of the matrices inside the blocks")
    train.add_argument("--weight-decay", type=share)
    train.add_argument("--warmup-steps", type=from_zero, help="below 1: a share of all steps")
    train.add_argument("--max-grad-norm", type=above_zero, default=1.0)
    train.add_argument("--optim", choices=["adamw", "muon"], default="adamw")
    train.add_argument("--mixed-precision", choices=["no", "bf16"])
    train.add_argument("--activation-checkpointing", action="store_true")
    train.add_argument("--torch-compile", action="store_true")
    train.add_argument("--use-cpu", action="store_true")
    train.add_argument("--seed", type=number(int, 0, 2**32 - 1))
    keep = p.add_argument_group("log and checkpoints")
    keep.add_argument("--logging-steps", type=count, default=10)
    keep.add_argument("--eval-steps", type=count, default=100)
    keep.add_argument("--save-steps", type=count, default=100)
    keep.add_argument("--save-total-limit", type=count, default=2)
    add_report_to(keep)
    return p


def collect(args: argparse.Namespace) -> Options:
    """Sorts what was parsed into the parts that take it."""
    found = vars(args)
    shape = Shape(args.model, args.sequence_length, args.model_revision, args.config_overrides, args.dropout)
    corpus, recipe = (kind(**{part.name: found[part.name] for part in fields(kind)}) for kind in (Corpus, Recipe))
    own = {part.name: found[part.name] for part in fields(Options) if part.name in found}
    return Options(corpus=corpus, shape=shape, recipe=recipe, **own)


def check(options: Options) -> None:
    """Raises InputError for what no single option shows to be wrong."""
    recipe = options.recipe
    if recipe.mixed_precision not in ("no", "bf16"):
        raise InputError(f"mixed precision {recipe.mixed_precision} is not for this program: take bf16 or no")
    if recipe.warmup_steps > recipe.max_steps:
        raise InputError(
            f"--warmup-steps {recipe.warmup_steps:g} are more than --max-steps {recipe.max_steps}: take fewer, or a "
            "share below 1"
        )
    sharing = any(os.environ.get(f"ACCELERATE_USE_{kind}") == "true" for kind in ("FSDP", "DEEPSPEED"))
    if recipe.optim == "muon" and sharing:
        raise InputError("--optim muon needs whole matrices: use it with one process or with DDP")
    check_report_to(options.report_to)


# --- What a run is made of -----------------------------------------------------------------------


@dataclass
class Run:
    """A run under way. `step` steps are done, and the next token to train on stands at `position`."""

    options: Options
    training: Training
    optimizers: list["AcceleratedOptimizer"]
    tokenizer: "PreTrainedTokenizerBase"
    config: "GPT2Config"
    stream: TokenStream
    validation: "torch.Tensor"
    schedule: Schedule
    configuration: dict[str, Any]
    step: int = 0
    position: Position = field(default_factory=Position)

    @property
    def accelerator(self) -> "Accelerator":
        return self.training.accelerator

    @property
    def step_rows(self) -> int:
        """Blocks in a step, of all processes."""
        recipe, world = self.options.recipe, self.accelerator.num_processes
        return recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps * world


def open_accelerator(options: Options) -> "Accelerator":
    from accelerate import utils

    recipe, folder = options.recipe, options.output_dir
    accelerator = make_accelerator(
        options.use_cpu,
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_plugin=utils.GradientAccumulationPlugin(num_steps=recipe.gradient_accumulation_steps),
        **accelerate_settings(options.report_to, folder),
    )
    if recipe.mixed_precision == "bf16" and mixed_precision(True, accelerator.device.type) == "fp16":
        raise InputError("this GPU has no instructions for bf16: take --mixed-precision no")
    if accelerator.distributed_type == "DEEPSPEED":  # it divides and clips by itself
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=recipe.per_device_train_batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            gradient_clipping=recipe.max_grad_norm,
        )
    return accelerator


def begin(options: Options) -> Run:
    """Everything that a run needs, before its first step or the step to go on from."""
    from accelerate.utils import set_seed
    from transformers.utils.logging import disable_progress_bar

    from takehome.gpt2 import build_config, build_model, build_optimizers, load_tokenizer
    from takehome.models import loading
    from takehome.planning import plan

    disable_progress_bar()  # there is one bar, ours
    recipe, length = options.recipe, options.shape.sequence_length
    accelerator = open_accelerator(options)
    with loading(options.shape.model):
        tokenizer = load_tokenizer(options.shape)
        config = build_config(options.shape, tokenizer)
    stream = TokenStream(options.corpus, tokenizer)
    validation = stream.validation_blocks(length)
    accelerator.print(plan(config, recipe, length, accelerator))
    accelerator.print(f"validation  {validation[:, 1:].numel():,} tokens", flush=True)

    set_seed(recipe.seed)
    model = build_model(config)
    if recipe.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.torch_compile:
        model.compile()
    gather_by_layer(accelerator, model)
    optimizers = build_optimizers(recipe, model)
    model, *prepared = accelerator.prepare(model, *optimizers)
    configuration = options.lasting() | {
        "num_processes": accelerator.num_processes,
        "distributed_type": accelerator.distributed_type.value,
        **{name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")},
        "num_shards": stream.num_shards,
        "tokenizer": zlib.crc32(tokenizer.backend_tokenizer.to_str().encode()),
    }
    training, schedule = Training(accelerator, model, optimizers), Schedule(recipe, optimizers)
    return Run(options, training, prepared, tokenizer, config, stream, validation, schedule, configuration)


# --- Training ------------------------------------------------------------------------------------


def batches(run: Run) -> Iterator[tuple["torch.Tensor", Position]]:
    """Yields (blocks of this process [accumulation, rows, length + 1], the position after them) for ever.

    One process reads for all: the order of documents is the same on any number.
    """
    import torch
    from accelerate.utils import broadcast

    accelerator, length = run.accelerator, run.options.shape.sequence_length
    shape = (run.step_rows, length + 1)
    read = run.stream.read_ahead(run.step_rows, length, run.position) if accelerator.is_main_process else None
    while True:
        batch, position = next(read) if read else (torch.empty(shape, dtype=torch.long), run.position)
        batch = batch.to(accelerator.device, non_blocking=True)
        if accelerator.num_processes > 1:
            batch = broadcast(batch)
        parts = run.options.recipe.gradient_accumulation_steps, accelerator.num_processes, -1, length + 1
        yield batch.view(parts)[:, accelerator.process_index], position


def loop(run: Run, log: Log, signals: StopSignals) -> None:
    """Trains to the last step.

    Raises:
        Stopped: a signal came; a checkpoint is written.
    """
    from tqdm import tqdm

    from takehome.gpt2 import training_step

    options, accelerator, recipe = run.options, run.accelerator, run.options.recipe
    losses = Losses(log, run.step_rows * options.shape.sequence_length)
    stop, read = SharedStop(accelerator, signals), batches(run)
    every = (options.logging_steps, options.eval_steps, options.save_steps)
    run.training.model.train()
    shown = {"unit": "step", "dynamic_ncols": True, "disable": not accelerator.is_main_process}
    with tqdm(total=recipe.max_steps, initial=run.step, **shown) as bar:
        while run.step < recipe.max_steps:
            mine, run.position = next(read)
            run.schedule.set(run.step)
            loss = training_step(accelerator, run.training.model, run.optimizers, mine, recipe.max_grad_norm)
            rate = recipe.learning_rate * run.schedule.share(run.step)
            run.step += 1
            losses.add(run.step, loss, rate, asdict(run.position))
            bar.update()
            last, asked = run.step == recipe.max_steps, stop.after_step()
            to_log, to_evaluate, to_save = (run.step % steps == 0 or last for steps in every)
            if to_log or to_evaluate or to_save or asked:
                loss, speed = losses.write()
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
            if to_evaluate:
                evaluate(run, log, bar)
            if to_save or asked:
                save(run, log)
            if asked and not last:
                accelerator.print(f"stopped     after step {run.step}; the same command goes on", flush=True)
                raise Stopped(asked)
            if to_log or to_evaluate or to_save:
                losses.restart()


def evaluate(run: Run, log: Log, bar) -> None:
    from takehome.gpt2 import validation_loss

    accelerator, rows = run.accelerator, run.options.recipe.per_device_train_batch_size
    loss = validation_loss(accelerator, run.training.model, run.validation, rows)
    log.write(run.step, eval_loss=loss, perplexity=math.exp(loss))
    if accelerator.is_main_process:
        bar.write(f"step {run.step}: validation loss {loss:.4f}, perplexity {math.exp(loss):.2f}")


def save(run: Run, log: Log) -> None:
    log.sync()  # a checkpoint never knows a step that the log does not
    state = RunState(run.step, run.configuration, {"position": asdict(run.position)})
    save_checkpoint(run.training, run.options.output_dir, state, run.options.save_total_limit)


def write_model(run: Run) -> None:
    """Writes a GPT2LMHeadModel and its tokenizer, wherever the weights are kept."""
    from transformers import GPT2LMHeadModel

    def write(folder: Path, weights: dict[str, "torch.Tensor"]) -> None:
        plain = GPT2LMHeadModel(run.config)
        plain.load_state_dict(weights)
        plain.save_pretrained(folder)
        run.tokenizer.save_pretrained(folder)

    save_model(run.training, run.options.output_dir / "model", write)


def train(options: Options, start: Path | None) -> None:
    """Trains from the beginning, or from the checkpoint `start`, to the model."""
    run = begin(options)
    accelerator, folder = run.accelerator, options.output_dir
    if state := go_on(run.training, start, run.configuration):
        run.step = state.step
        try:
            run.position = Position(**{name: int(value) for name, value in state.progress["position"].items()})
        except (TypeError, ValueError, KeyError, AttributeError) as cause:
            raise unusable(folder / f"checkpoint-{state.step}", cause) from cause
        accelerator.print(f"resuming    {folder / f'checkpoint-{run.step}'}, at {run.position}", flush=True)
    start_trackers(accelerator, "pretrain_gpt2", folder, run.configuration, run.step)
    log = Log(accelerator, folder / "log.jsonl", run.step)
    with StopSignals(accelerator.print) as signals:
        loop(run, log, signals)
    write_model(run)
    finish_trackers(accelerator)
    accelerator.print(f"done        {folder / 'model'}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    options: list[Options] = []

    def program() -> None:
        options.append(parse_arguments(arguments))
        with open_run(options[0].output_dir, "pretraining run", options[0].resume, options[0].overwrite) as start:
            train(options[0], start)

    return run_program(NAME, program, lambda: options[0].output_dir if options else None, keep_traceback=True)


if __name__ == "__main__":
    sys.exit(main())
