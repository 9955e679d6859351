"""Trains a GPT-2 from random weights on a stream of documents, on one CPU, several processes or a cluster of GPUs.

    python scripts/pretrain_gpt2.py --output-dir runs/first
    torchrun --nproc_per_node=2 scripts/pretrain_gpt2.py --output-dir runs/first
    accelerate launch --config_file scripts/launch/fsdp2.yaml scripts/pretrain_gpt2.py --profile full ...

What is not said on the command line comes from the profile (`--profile`, see helpers/profiles.toml). The corpus is
anything that `load_dataset` streams; takehome/tokens.py makes blocks of it.

Stopped for whatever reason? Run the same command again: it goes on from the last checkpoint, with the same losses as if
nothing had happened. In the output directory: `log.jsonl` (a line a step), `checkpoint-N` (whole or absent), and at the
end `model`, which `from_pretrained` loads.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import sys
import time
import zlib
from dataclasses import asdict
from pathlib import Path

from helpers.profiles import ProfileError, load_profile  # before Hugging Face's libraries: it may set them offline
from takehome.tokens import InputError, Position, TokenStream

# torch is imported where it is used: a wrong option, or a Hub that does not answer, is reported without waiting for it.

# What may change between a checkpoint and its continuation; everything else would change the losses.
MAY_CHANGE = ("output_dir", "profile", "logging_steps", "eval_steps", "save_steps", "save_total_limit", "report_to")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; what it leaves out is the profile's."""

    def positive(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output-dir", type=Path, required=True)
    p.add_argument("--profile", help="reduced, laptop, full or a TOML file; `reduced` stays offline")
    corpus = p.add_argument_group("corpus")
    corpus.add_argument("--dataset", help="Hub id, directory, or files such as 'texts/*.jsonl'")
    corpus.add_argument("--dataset-config")
    corpus.add_argument("--dataset-revision")
    corpus.add_argument("--split", default="train")
    corpus.add_argument("--text-column", default="text")
    corpus.add_argument("--validation-split", help="by default the first documents of the first shard are held out")
    corpus.add_argument("--validation-documents", type=positive, default=200)
    corpus.add_argument("--shuffle-buffer", type=positive, default=1000, help="documents shuffled together; 1: none")
    corpus.add_argument("--max-document-characters", type=positive, default=10_000_000)
    model = p.add_argument_group("model")
    model.add_argument("--model", help="Hub id or directory that gives the tokenizer and the shape, not the weights")
    model.add_argument("--model-revision")
    model.add_argument("--config-overrides", default="", help="such as n_layer=2,n_embd=128,n_head=4")
    model.add_argument("--dropout", type=float, default=0.0)
    model.add_argument("--sequence-length", type=positive)
    train = p.add_argument_group("training")
    train.add_argument("--max-steps", type=positive)
    train.add_argument("--per-device-train-batch-size", type=positive)
    train.add_argument("--gradient-accumulation-steps", type=positive)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--muon-learning-rate", type=float, default=0.02, help="of the matrices inside the blocks")
    train.add_argument("--weight-decay", type=float)
    train.add_argument("--warmup-steps", type=float, help="below 1: a share of all steps")
    train.add_argument("--max-grad-norm", type=float, default=1.0)
    train.add_argument("--optim", choices=["adamw", "muon"], default="adamw")
    train.add_argument("--mixed-precision", choices=["no", "bf16"])
    train.add_argument("--activation-checkpointing", action="store_true")
    train.add_argument("--torch-compile", action="store_true")
    train.add_argument("--use-cpu", action="store_true")
    train.add_argument("--seed", type=int)
    keep = p.add_argument_group("log and checkpoints")
    keep.add_argument("--logging-steps", type=positive, default=10)
    keep.add_argument("--eval-steps", type=positive, default=100)
    keep.add_argument("--save-steps", type=positive, default=100)
    keep.add_argument("--save-total-limit", type=positive, default=2)
    keep.add_argument("--report-to", choices=["none", "tensorboard", "trackio"], default="none")

    given, _ = p.parse_known_args(arguments)
    profile = load_profile(given.profile)
    defaults = profile.openwebtext
    p.set_defaults(
        **{name: value for name, value in vars(defaults).items() if hasattr(given, name)},
        sequence_length=defaults.block_size,
        mixed_precision=os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16" if defaults.bf16 else "no"),
        use_cpu=profile.use_cpu,
    )
    if given.dataset is None:
        p.set_defaults(dataset_config=defaults.config, dataset_revision=defaults.revision)
    if given.model is None:
        p.set_defaults(model=defaults.checkpoint, model_revision=defaults.checkpoint_revision)
    else:
        p.set_defaults(config_overrides="")  # the profile's are for its own checkpoint
    return p.parse_args(arguments)


# --- The model -----------------------------------------------------------------------------------


def build_config(args: argparse.Namespace, tokenizer):
    """The shape that `--model` and `--config-overrides` give."""
    from transformers import AutoConfig, GPT2Config

    config = AutoConfig.from_pretrained(args.model, revision=args.model_revision)
    if not isinstance(config, GPT2Config):
        raise InputError(f"--model {args.model} is a {config.model_type}, not a GPT-2")
    overrides = dict(part.split("=") for part in args.config_overrides.split(",") if "=" in part)
    for name, value in overrides.items():
        if not isinstance(getattr(config, name, None), int):
            raise InputError(f"--config-overrides: {name} is not a number of GPT2Config, such as n_layer, n_embd")
        setattr(config, name, int(value))
    config.vocab_size, config.bos_token_id, config.eos_token_id = len(tokenizer), *2 * [tokenizer.eos_token_id]
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = args.dropout
    if config.activation_function == "gelu_new":
        config.activation_function = "gelu"  # gelu_new is within 0.0005 of it, and slow on a CPU
    if args.sequence_length > config.n_positions:
        raise InputError(
            f"--sequence-length {args.sequence_length}: the model has {config.n_positions} positions; take at most "
            f"that, or --config-overrides n_positions={args.sequence_length}"
        )
    return config


def build_model(config):
    """A GPT-2 with random weights whose forward pass is the training loss."""
    import torch
    from torch.nn import functional as F
    from transformers import AttentionInterface, GPT2LMHeadModel

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
        def forward(self, input_ids):  # [rows, length + 1]
            hidden = self.transformer(input_ids[:, :-1], use_cache=False).last_hidden_state
            return HeadLoss.apply(hidden.flatten(0, 1), self.lm_head.weight, input_ids[:, 1:].flatten())

    AttentionInterface.register("causal", causal_attention)
    model = GPT2ForPretraining(config)
    model.set_attn_implementation("causal")
    return model


def build_optimizers(args: argparse.Namespace, model) -> list:
    """AdamW for everything, or Muon for the matrices inside the blocks; weight decay for matrices only."""
    import torch

    named = list(model.named_parameters())
    muon = [p for name, p in named if args.optim == "muon" and p.ndim == 2 and ".h." in name]
    rest = [p for _, p in named if all(p is not other for other in muon)]
    groups = [
        dict(params=[p for p in rest if p.ndim >= 2], weight_decay=args.weight_decay),
        dict(params=[p for p in rest if p.ndim < 2], weight_decay=0.0),
    ]
    optimizers = [torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95), fused=True)]
    if muon:
        optimizers.append(torch.optim.Muon(muon, lr=args.muon_learning_rate, weight_decay=args.weight_decay))
    return optimizers


def learning_rate_share(step: int, warmup: int, steps: int) -> float:
    """Share of the peak learning rate at a step counted from 0: up in a line, then down a cosine to a tenth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


# --- Checkpoints ---------------------------------------------------------------------------------


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints, the newest last. Only a whole one has such a name."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def sync(path: Path) -> None:
    """Waits until a file, or a directory's list of files, has reached the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def remove(folder: Path) -> None:
    """Removes a folder so that a kill on the way leaves no half of it under its name."""
    if folder.exists():
        shutil.rmtree(folder.rename(folder.with_name(folder.name + ".old")))


def write_whole(accelerator, folder: Path, write) -> None:
    """Makes a folder with `write(temporary folder)`, called by every process: it appears whole, or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        write(temporary)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for path in [*temporary.rglob("*"), temporary]:
                sync(path)
    except Exception as cause:  # OSError, or what torch and safetensors make of it
        free = shutil.disk_usage(temporary).free / 1e6
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"{folder} could not be written, what was there is untouched; {free:,.0f} MB are free: {cause}"
        ) from cause
    if accelerator.is_main_process:
        remove(folder)
        temporary.rename(folder)
        sync(folder.parent)
    accelerator.wait_for_everyone()


def save_checkpoint(accelerator, args, configuration: dict, step: int, position: Position) -> None:
    def write(folder: Path):
        accelerator.save_state(folder, safe_serialization=False)  # safetensors would drop the tied weights
        if accelerator.is_main_process:
            state = {"step": step, "position": asdict(position), "configuration": configuration}
            (folder / "trainer_state.json").write_text(json.dumps(state, indent=2))

    write_whole(accelerator, args.output_dir / f"checkpoint-{step}", write)
    if accelerator.is_main_process:
        for old in checkpoints(args.output_dir)[: -args.save_total_limit]:
            remove(old)


def load_checkpoint(accelerator, folder: Path, configuration: dict) -> tuple[int, Position]:
    """Puts model, optimizers and random numbers back; returns the step and the position to go on from."""
    state = json.loads((folder / "trainer_state.json").read_text())
    saved = state["configuration"]
    differ = [f"{key} was {saved.get(key)}, is {now}" for key, now in configuration.items() if saved.get(key) != now]
    if differ:
        told = "; ".join(differ)
        raise InputError(f"{folder} belongs to another configuration ({told}): take its own, or another --output-dir")
    accelerator.load_state(folder)
    return state["step"], Position(**state["position"])


def save_model(accelerator, model, config, tokenizer, folder: Path) -> None:
    """Writes a GPT2LMHeadModel and its tokenizer, wherever the weights are kept."""
    from transformers import GPT2LMHeadModel

    weights = accelerator.get_state_dict(model)

    def write(temporary: Path):
        if accelerator.is_main_process:
            plain = GPT2LMHeadModel(config)
            plain.load_state_dict(weights)
            plain.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)

    write_whole(accelerator, folder, write)


class Log:
    """One line of JSON for each step. What a killed run wrote after its last checkpoint is taken back."""

    def __init__(self, accelerator, path: Path, step: int):
        self.accelerator, self.file = accelerator, None
        if accelerator.is_main_process:
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_text("".join(kept))
            temporary.replace(path)
            self.file = path.open("a")

    def write(self, step: int, **values) -> None:
        if self.file:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
            values.pop("position", None)
            self.accelerator.log(values, step=step)


# --- Training ------------------------------------------------------------------------------------


def make_accelerator(args: argparse.Namespace):
    """Accelerate as its launcher asks for; alone or under torchrun, one process or DDP."""
    import torch
    from accelerate import Accelerator, DistributedType, PartialState, utils

    cpu = args.use_cpu or not torch.cuda.is_available()
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    accelerator = Accelerator(
        cpu=cpu and not deepspeed,
        # Without it, Accelerate 1.15 lets DeepSpeed's processes on a CPU think that each is alone.
        kwargs_handlers=[utils.InitProcessGroupKwargs(backend="gloo")] if cpu and deepspeed else None,
        mixed_precision=args.mixed_precision,
        gradient_accumulation_plugin=utils.GradientAccumulationPlugin(num_steps=args.gradient_accumulation_steps),
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=utils.ProjectConfiguration(str(args.output_dir), logging_dir=str(args.output_dir / "tracking")),
    )
    if cpu and os.environ.get("ACCELERATE_USE_FSDP") == "true":  # Accelerate 1.15 would run DDP without a word
        accelerator.state.fsdp_plugin = utils.FullyShardedDataParallelPlugin()
        for state in (PartialState(), accelerator.state):
            state.distributed_type = DistributedType.FSDP
    if cpu and accelerator.num_processes > 1:  # with more threads than cores they would mostly wait for each other
        local = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
        torch.set_num_threads(max(1, os.cpu_count() // local))
    kind = accelerator.distributed_type.value
    if kind == "FSDP":
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = ["GPT2Block"]  # launch files may name another's
    if kind == "DEEPSPEED":  # it divides and clips by itself
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=args.per_device_train_batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            gradient_clipping=args.max_grad_norm,
        )
    if args.optim == "muon" and kind in ("FSDP", "DEEPSPEED"):
        raise InputError("--optim muon needs whole matrices: use it with one process or with DDP")
    return accelerator


def announce(args, accelerator, config, validation_tokens: int) -> None:
    """Prints what the run will take, before it takes it."""
    from helpers.flops import calibrate, predict_time, training_flops
    from helpers.memory import estimate, read_config

    a, world = read_config(config), accelerator.num_processes
    rows, length = args.per_device_train_batch_size, args.sequence_length
    parameters, step_tokens = a.parameters("causal-lm"), rows * length * args.gradient_accumulation_steps * world
    tokens = args.max_steps * step_tokens
    device = "cuda" if accelerator.device.type == "cuda" else "cpu"
    precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    memory = estimate(
        config, per_device_train_batch_size=rows, sequence_length=length, task="causal-lm", precision=precision,
        activation_checkpointing=args.activation_checkpointing, num_gpus=world, device=device,
        sharding={"FSDP": "fsdp", "DEEPSPEED": "zero2"}.get(accelerator.distributed_type.value, "ddp"),
        optim="muon" if args.optim == "muon" else "adamw_torch_fused",
        attn_implementation="eager" if (device, precision) == ("cpu", "bf16") else "sdpa",
    )  # of Transformers' GPT-2; the head's loss in parts keeps less  # fmt: skip
    flops = training_flops(
        a.matmul_parameters("causal-lm"), tokens, num_hidden_layers=a.num_hidden_layers,
        hidden_size=a.hidden_size, sequence_length=length, activation_checkpointing=args.activation_checkpointing,
    )  # fmt: skip
    speed = calibrate(width=a.hidden_size, tokens=rows * length, precision=precision, device=device)
    shared = world if device == "cuda" else 1  # processes on one CPU share its cores
    print(
        f"model       {parameters:,} parameters, {precision}, {world} process{'es' * (world > 1)}\n"
        f"training    {args.max_steps:,} steps of {step_tokens:,} tokens: {tokens:,} tokens, "
        f"{tokens / parameters:.1f} a parameter\n"
        f"validation  {validation_tokens:,} tokens\n"
        f"memory      at most {memory.peak_gb:.2f} GB a process, predicted\n"
        f"time        {predict_time(flops, speed, num_gpus=shared)}, predicted",
        flush=True,
    )


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


def evaluate(accelerator, model, blocks, rows: int) -> float:
    """Returns the mean loss in nats a token over blocks [blocks, length + 1], each process taking its share."""
    import torch

    total = torch.zeros((), device=accelerator.device)
    model.eval()
    for i in range(0, len(blocks), rows * accelerator.num_processes):
        mine = blocks[i + rows * accelerator.process_index :][:rows]
        with torch.no_grad():
            # A process without blocks joins in all the same: where weights are sharded, the others need it.
            total += model((mine if len(mine) else blocks[:1]).to(accelerator.device)) * len(mine)
    model.train()
    return accelerator.reduce(total, "sum").item() / len(blocks)


def train(args: argparse.Namespace) -> None:
    import torch
    from accelerate.utils import broadcast, set_seed
    from tqdm import tqdm
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # there is one bar, ours
    if args.report_to != "none" and not importlib.util.find_spec(args.report_to):
        raise InputError(f"--report-to {args.report_to}: not installed; SETUP.md says how, under optional groups")
    accelerator = make_accelerator(args)
    main, world, accumulation = accelerator.is_main_process, accelerator.num_processes, args.gradient_accumulation_steps
    rows, length = args.per_device_train_batch_size, args.sequence_length
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model, revision=args.model_revision)
        config = build_config(args, tokenizer)
    except (OSError, ValueError) as cause:
        raise InputError(f"--model {args.model}: {cause}") from cause
    stream = TokenStream(args, tokenizer)
    validation = stream.validation_blocks(length)
    if main:
        announce(args, accelerator, config, validation[:, 1:].numel())

    set_seed(args.seed)
    model = build_model(config)
    if args.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if args.torch_compile:
        model.compile()
    model, *optimizers = accelerator.prepare(model, *build_optimizers(args, model))
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    warmup = round(args.warmup_steps * args.max_steps if args.warmup_steps < 1 else args.warmup_steps)

    configuration = {key: value for key, value in vars(args).items() if key not in MAY_CHANGE}
    configuration |= {"num_processes": world, "distributed_type": accelerator.distributed_type.value}
    configuration |= {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
    checksum = zlib.crc32(tokenizer.backend_tokenizer.to_str().encode())
    configuration |= {"num_shards": stream.num_shards, "tokenizer": checksum}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if main:
        for unfinished in [*args.output_dir.glob("*.tmp"), *args.output_dir.glob("*.old")]:  # left by a kill
            shutil.rmtree(unfinished, ignore_errors=True)
    step, position = 0, Position()
    if found := checkpoints(args.output_dir):
        step, position = load_checkpoint(accelerator, found[-1], configuration)
        accelerator.print(f"resuming    {found[-1]} after step {step}, at {position}", flush=True)
    continued = {"tensorboard": {"purge_step": step + 1}, "trackio": {"name": args.output_dir.name, "resume": "allow"}}
    accelerator.init_trackers("pretrain_gpt2", config=configuration, init_kwargs=continued)
    log = Log(accelerator, args.output_dir / "log.jsonl", step)

    batches = stream.read_ahead(rows * world * accumulation, length, position) if main else None
    waiting = []  # the steps that are not in the log yet
    model.train()
    begin = time.perf_counter()
    with tqdm(total=args.max_steps, initial=step, unit="step", disable=not main, dynamic_ncols=True) as bar:
        while step < args.max_steps:
            if main:
                batch, position = next(batches)
            else:
                batch = torch.empty(rows * world * accumulation, length + 1, dtype=torch.long)
            batch = batch.to(accelerator.device, non_blocking=True)
            if world > 1:
                batch = broadcast(batch)  # one process reads for all: the order of documents is the same on any number
            share = learning_rate_share(step, warmup, args.max_steps)
            for optimizer, rates in zip(optimizers, peaks, strict=True):
                for group, peak in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = peak * share
            mine = batch.view(accumulation, world, rows, length + 1)[:, accelerator.process_index]
            loss = training_step(accelerator, model, optimizers, mine, args.max_grad_norm)
            step += 1
            waiting.append((step, loss, args.learning_rate * share, asdict(position)))
            bar.update()

            every = (args.logging_steps, args.eval_steps, args.save_steps)
            to_log, to_evaluate, to_save = (step % steps == 0 or step == args.max_steps for steps in every)
            if to_log or to_evaluate or to_save:  # only now wait for the device, whose losses are read back
                losses = accelerator.reduce(torch.stack([loss for _, loss, _, _ in waiting]), "mean").tolist()
                speed = len(losses) * batch[:, 1:].numel() / (time.perf_counter() - begin)
                for (number, _, rate, where), loss in zip(waiting, losses, strict=True):
                    log.write(number, loss=loss, learning_rate=rate, tokens_per_second=round(speed), position=where)
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
                waiting.clear()
                if not math.isfinite(loss):
                    raise InputError(f"loss {loss} at step {step}: lower --learning-rate, or lengthen the warm-up")
            if to_evaluate:
                loss = evaluate(accelerator, model, validation, rows)
                log.write(step, eval_loss=loss, perplexity=math.exp(loss))
                if main:
                    bar.write(f"step {step}: validation loss {loss:.4f}, perplexity {math.exp(loss):.2f}")
            if to_save:
                save_checkpoint(accelerator, args, configuration, step, position)
            if to_log or to_evaluate or to_save:
                begin = time.perf_counter()
    save_model(accelerator, model, config, tokenizer, args.output_dir / "model")
    accelerator.end_training()
    accelerator.print(f"done        {args.output_dir / 'model'}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    try:
        train(parse_arguments(arguments))
    except (InputError, ProfileError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
