"""Trains a GPT-2 from random weights on a stream of documents, on one CPU, several processes or a cluster of GPUs.

    python scripts/pretrain_gpt2.py --output-dir runs/first
    torchrun --nproc_per_node=2 scripts/pretrain_gpt2.py --output-dir runs/first
    accelerate launch --config_file scripts/launch/fsdp2.yaml scripts/pretrain_gpt2.py --profile full ...

What is not said on the command line comes from the profile (`--profile`, see helpers/profiles.toml). The corpus is
anything that `load_dataset` streams. Documents are tokenised and joined with end-of-text between them, and the row of
tokens is cut into blocks: nothing is padded, nothing is thrown away at a document's end.

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for helpers, also where the project isn't installed
from helpers.profiles import ProfileError, load_profile


class InputError(Exception):
    """Something the user gave cannot be used; the message says what and what to do."""


# What may change between a checkpoint and its continuation; everything else would change the losses.
MAY_CHANGE = ("output_dir", "profile", "logging_steps", "eval_steps", "save_steps", "save_total_limit", "report_to")
FILE_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text", ".csv": "csv"}


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
        sequence_length=defaults.block_size,
        mixed_precision=os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16" if defaults.bf16 else "no"),
        use_cpu=profile.use_cpu,
        **{name: getattr(defaults, name) for name in (
            "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
            "weight_decay", "warmup_steps", "seed")},
    )  # fmt: skip
    if given.dataset is None:
        p.set_defaults(dataset=defaults.dataset, dataset_config=defaults.config, dataset_revision=defaults.revision)
    if given.model is None:
        p.set_defaults(model=defaults.checkpoint, model_revision=defaults.checkpoint_revision)
    return p.parse_args(arguments)


# --- The stream ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Position:
    """Where the next token to train on stands: so many shards and documents of this epoch are behind it."""

    epoch: int = 0
    shard: int = 0
    document: int = 0
    token: int = 0


class TokenStream:
    """An endless stream of blocks from the documents of a corpus, which can start again at any `Position`.

    An epoch visits the shards in random order and shuffles documents among their next `shuffle_buffer` ones. Both
    orders follow from the seed and the position, so four numbers are all there is to remember.
    """

    def __init__(self, args: argparse.Namespace, tokenizer):
        from datasets import load_dataset

        self.args, self.tokenizer = args, tokenizer
        path, files = args.dataset, None
        if Path(path).suffix in FILE_KINDS and not Path(path).is_dir():
            path, files = FILE_KINDS[Path(path).suffix], str(Path(path).absolute())
        elif Path(path).is_dir():
            path = str(Path(path).absolute())  # a relative path may be taken for a Hub id
        self.source = dict(path=path, name=args.dataset_config, data_files=files, revision=args.dataset_revision)
        try:
            self.dataset = load_dataset(**self.source, split=args.split, streaming=True)
            columns = self.dataset.column_names or list(next(iter(self.dataset), {}))
            if args.validation_split:
                self.validation = load_dataset(**self.source, split=args.validation_split, streaming=True)
        except Exception as cause:  # every builder raises errors of its own
            raise InputError(f"--dataset {args.dataset} cannot be read: {type(cause).__name__}: {cause}") from cause
        if not columns:
            raise InputError(f"--dataset {args.dataset} holds no documents")
        if args.text_column not in columns:
            raise InputError(
                f"--dataset {args.dataset} has no column {args.text_column!r}; it has {', '.join(columns)}: "
                "name the one that holds the text with --text-column"
            )
        self.num_shards = self.dataset.num_shards
        self.held_out = 0 if args.validation_split else args.validation_documents  # at the start of shard 0
        self.seconds = 0.0  # spent on reading, tokenising and packing

    def shard_name(self, shard: int) -> str:
        from datasets import load_dataset_builder

        files = (load_dataset_builder(**self.source).config.data_files or {}).get(self.args.split, [])
        return files[shard] if len(files) == self.num_shards else f"shard {shard} of {self.args.dataset}"

    def read(self, rows, number: int, shard: int, first: int) -> list[str]:
        """Takes the next `number` texts of a shard, the first of which is its document `first`."""
        texts = []
        try:
            for row in islice(rows, number):
                texts.append(row[self.args.text_column])
        except Exception as cause:  # cut off, not UTF-8, not Parquet, gone: each reader has errors of its own
            if "BatchSize must be greater than 0" not in str(cause):  # a Parquet file without rows: said elsewhere
                raise InputError(
                    f"{self.shard_name(shard)} cannot be read after document {first + len(texts)}: "
                    f"{type(cause).__name__}: {cause}"
                ) from cause
        for document, text in enumerate(texts, first):
            if not isinstance(text, str):
                raise InputError(f"{self.shard_name(shard)}: document {document} is no text but {text!r}")
            if len(text) > self.args.max_document_characters:
                raise InputError(
                    f"{self.shard_name(shard)}: document {document} has {len(text):,} characters; is it many documents "
                    "in one line? Split it, or raise --max-document-characters"
                )
        return texts

    def encode(self, texts: list[str]):
        """Returns an array of token ids for each text, with end-of-text at its end."""
        import numpy as np

        encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array([*text.ids, self.tokenizer.eos_token_id], dtype=np.int32) for text in encoded]

    def documents(self, start: Position):
        """Yields (position of its first token, token ids) for each document from `start` on, for ever."""
        import numpy as np

        def order(size: int, *key: int):
            return np.random.default_rng([self.args.seed, *key]).permutation(size).tolist()

        epoch, first_shard, first = start.epoch, start.shard, start.document
        buffer = self.args.shuffle_buffer
        while True:
            for number, shard in list(enumerate(order(self.num_shards, epoch)))[first_shard:]:
                window = first - first % buffer  # shuffled as a whole, so it is read as a whole
                skipped = window + (self.held_out if shard == 0 else 0)
                rows = iter(self.dataset.shard(num_shards=self.num_shards, index=shard).skip(skipped))
                while texts := self.read(rows, buffer, shard, skipped):
                    shuffled = [texts[i] for i in order(len(texts), epoch, shard, window)]
                    for i in range(first - window, len(texts), 64):
                        for k, ids in enumerate(self.encode(shuffled[i : i + 64]), window + i):
                            yield Position(epoch, number, k), ids
                    skipped += len(texts)
                    first = window = window + len(texts)
                if not first:
                    raise InputError(f"{self.shard_name(shard)} holds no documents to train on: remove it")
                first = 0
            epoch, first_shard = epoch + 1, 0

    def blocks(self, rows: int, length: int, start: Position):
        """Yields (block ids, the position after them); ids [rows, length + 1], a row's last is the next row's first."""
        import numpy as np
        import torch

        need, have, waiting = rows * length, 0, []  # waiting: documents' parts that are not handed out
        for position, ids in self.documents(start):
            begun = start.token if position == Position(start.epoch, start.shard, start.document) else 0
            waiting.append((position, begun, ids[begun:]))
            have += len(ids) - begun
            while have > need:
                flat = np.concatenate([ids for _, _, ids in waiting])[: need + 1]
                left = need
                while len(waiting[0][2]) <= left:
                    left -= len(waiting.pop(0)[2])
                position, begun, ids = waiting[0]
                waiting[0] = position, begun + left, ids[left:]
                have -= need
                batch = np.lib.stride_tricks.sliding_window_view(flat, length + 1)[::length]
                yield torch.from_numpy(batch.astype(np.int64)), Position(**{**asdict(position), "token": begun + left})

    def validation_blocks(self, length: int):
        """Returns the blocks [blocks, length + 1] of the documents that are held out."""
        import numpy as np
        import torch

        rows = self.validation if self.args.validation_split else self.dataset.shard(self.num_shards, index=0)
        texts = self.read(iter(rows), self.args.validation_documents, 0, 0)
        if self.held_out and len(texts) < self.held_out:
            raise InputError(
                f"--validation-documents {self.held_out}: {self.shard_name(0)} has only {len(texts)}; take fewer"
            )
        ids = np.concatenate(self.encode(texts)) if texts else np.zeros(0)
        if len(ids) <= length:
            raise InputError(f"the {len(texts)} validation documents have {len(ids)} tokens, fewer than one block")
        batch = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::length]
        return torch.from_numpy(batch.astype(np.int64))

    def read_ahead(self, rows: int, length: int, start: Position):
        """Yields what `blocks` yields, made in the background while the step before is computed."""
        blocks = self.blocks(rows, length, start)

        def timed():
            begin = time.perf_counter()
            made = next(blocks)
            self.seconds += time.perf_counter() - begin
            return made

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(timed)
            while True:
                made = future.result()
                future = pool.submit(timed)
                yield made


# --- The model -----------------------------------------------------------------------------------


def build_config(args: argparse.Namespace, tokenizer):
    """The shape that `--model` and `--config-overrides` give."""
    from transformers import AutoConfig, GPT2Config

    config = AutoConfig.from_pretrained(args.model, revision=args.model_revision)
    if not isinstance(config, GPT2Config):
        raise InputError(f"--model {args.model} is a {config.model_type}, not a GPT-2")
    overrides = dict(part.split("=") for part in args.config_overrides.split(",") if "=" in part)
    unknown = [name for name in overrides if not isinstance(getattr(config, name, None), int)]
    if unknown:
        raise InputError(f"--config-overrides: {unknown[0]} is not a number of GPT2Config, such as n_layer, n_embd")
    end = tokenizer.eos_token_id
    config.update({name: int(value) for name, value in overrides.items()})
    config.update(dict(
        vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end,
        attn_pdrop=args.dropout, embd_pdrop=args.dropout, resid_pdrop=args.dropout,
    ))  # fmt: skip
    if config.activation_function == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"  # the same function, in one kernel instead of eight
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
    from transformers import GPT2LMHeadModel

    class GPT2ForPretraining(GPT2LMHeadModel):
        def forward(self, input_ids):  # [rows, length + 1]
            hidden = self.transformer(input_ids[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
            labels = input_ids[:, 1:].flatten()
            # The logits are the largest tensor of the step: in parts, they stay in a CPU's cache.
            size = len(labels) if hidden.is_cuda else 512 if self.config.vocab_size < 10_000 else 1024
            parts = zip(hidden.split(size), labels.split(size), strict=True)
            losses = [F.cross_entropy(self.lm_head(h), label, reduction="sum") for h, label in parts]
            return torch.stack(losses).sum() / len(labels)

    return GPT2ForPretraining(config)


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


def evaluate(accelerator, model, blocks, rows: int) -> float:
    """Returns the mean loss in nats a token over blocks [blocks, length + 1], each process taking its share."""
    import torch

    total = torch.zeros((), device=accelerator.device)
    model.eval()
    with torch.no_grad():
        for i in range(0, len(blocks), rows * accelerator.num_processes):
            mine = blocks[i + rows * accelerator.process_index :][:rows]
            # A process without blocks joins in all the same: where weights are sharded, the others need it.
            total += model((mine if len(mine) else blocks[:1]).to(accelerator.device)) * len(mine)
    model.train()
    return accelerator.reduce(total, "sum").item() / len(blocks)


# --- Checkpoints ---------------------------------------------------------------------------------


def find_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint. Only a whole one has such a name."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def sync(path: Path) -> None:
    """Waits until a file, or a directory's list of files, has reached the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


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


def remove(folder: Path) -> None:
    """Removes a folder so that a kill on the way leaves no half of it under its name."""
    if folder.exists():
        shutil.rmtree(folder.rename(folder.with_name(folder.name + ".old")))


def save_checkpoint(accelerator, args, configuration: dict, step: int, position: Position) -> None:
    def write(folder: Path):
        accelerator.save_state(folder, safe_serialization=False)  # safetensors would drop the tied weights
        if accelerator.is_main_process:
            state = {"step": step, "position": asdict(position), "configuration": configuration}
            (folder / "trainer_state.json").write_text(json.dumps(state, indent=2))

    write_whole(accelerator, args.output_dir / f"checkpoint-{step}", write)
    if accelerator.is_main_process:
        every = [p for p in args.output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
        for old in sorted(every, key=lambda path: int(path.name.split("-")[1]))[: -args.save_total_limit]:
            remove(old)


def load_checkpoint(accelerator, folder: Path, configuration: dict) -> tuple[int, Position]:
    """Puts model, optimizers and random numbers back; returns the step and the position to go on from."""
    state = json.loads((folder / "trainer_state.json").read_text())
    saved = state["configuration"]
    differ = [key for key in configuration if saved.get(key) != configuration[key]]
    if differ:
        told = "; ".join(f"{key} was {saved.get(key)}, is {configuration[key]}" for key in differ)
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


# --- Training ------------------------------------------------------------------------------------


def make_accelerator(args: argparse.Namespace):
    """Accelerate as its launcher asks for; alone or under torchrun, one process or DDP."""
    import torch
    from accelerate import Accelerator, DistributedType, PartialState
    from accelerate.utils import (
        FullyShardedDataParallelPlugin,
        GradientAccumulationPlugin,
        InitProcessGroupKwargs,
        ProjectConfiguration,
    )

    cpu = args.use_cpu or not torch.cuda.is_available()
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    accelerator = Accelerator(
        cpu=cpu and not deepspeed,
        # Without it, Accelerate 1.15 lets DeepSpeed's processes on a CPU think that each is alone.
        kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")] if cpu and deepspeed else None,
        mixed_precision=args.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=args.gradient_accumulation_steps),
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(str(args.output_dir), logging_dir=str(args.output_dir / "tracking")),
    )
    if cpu and os.environ.get("ACCELERATE_USE_FSDP") == "true":  # Accelerate 1.15 would run DDP without a word
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        for state in (PartialState(), accelerator.state):
            state.distributed_type = DistributedType.FSDP
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


def announce(args, accelerator, config, validation_tokens: int) -> None:
    """Prints what the run will take, before it takes it."""
    from helpers.flops import calibrate, predict_time, training_flops
    from helpers.memory import estimate, read_config

    a, world = read_config(config), accelerator.num_processes
    rows, length = args.per_device_train_batch_size, args.sequence_length
    step_tokens = rows * length * args.gradient_accumulation_steps * world
    precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    sharding = {"FSDP": "fsdp", "DEEPSPEED": "zero2"}.get(accelerator.distributed_type.value, "ddp")
    memory = estimate(
        config, per_device_train_batch_size=rows, sequence_length=length, task="causal-lm", precision=precision,
        activation_checkpointing=args.activation_checkpointing, num_gpus=world, sharding=sharding,
        optim="muon" if args.optim == "muon" else "adamw_torch_fused",
        device="cuda" if accelerator.device.type == "cuda" else "cpu",
    )  # fmt: skip
    flops = training_flops(
        a.matmul_parameters("causal-lm"), args.max_steps * step_tokens, num_hidden_layers=a.num_hidden_layers,
        hidden_size=a.hidden_size, sequence_length=length, activation_checkpointing=args.activation_checkpointing,
    )  # fmt: skip
    speed = calibrate(width=a.hidden_size, tokens=rows * length, precision=precision)
    shared = world if accelerator.device.type == "cuda" else 1  # processes on one CPU share its cores
    parameters, tokens = a.parameters("causal-lm"), args.max_steps * step_tokens
    print(
        f"model       {parameters:,} parameters, {precision}, {world} process{'es' * (world > 1)}\n"
        f"training    {args.max_steps:,} steps of {step_tokens:,} tokens: {tokens:,} tokens, "
        f"{tokens / parameters:.1f} a parameter\n"
        f"validation  {validation_tokens:,} tokens\n"
        f"memory      {memory.peak_gb:.2f} GB a process, predicted\n"
        f"time        {predict_time(flops, speed, num_gpus=shared)}, predicted",
        flush=True,
    )


def train(args: argparse.Namespace) -> None:
    import torch
    from accelerate.utils import broadcast, set_seed
    from tqdm import tqdm
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # there is one bar, ours
    if args.report_to != "none" and not importlib.util.find_spec(args.report_to):
        raise InputError(f"--report-to {args.report_to}: not installed; pip install {args.report_to}")
    accelerator = make_accelerator(args)
    main, world, accumulation = accelerator.is_main_process, accelerator.num_processes, args.gradient_accumulation_steps
    rows, length, kind = args.per_device_train_batch_size, args.sequence_length, accelerator.distributed_type.value

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
    configuration |= {"num_processes": world, "distributed_type": kind, "num_shards": stream.num_shards}
    configuration |= {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
    configuration["tokenizer"] = zlib.crc32(tokenizer.backend_tokenizer.to_str().encode())
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if main:
        for unfinished in [*args.output_dir.glob("*.tmp"), *args.output_dir.glob("*.old")]:  # left by a kill
            shutil.rmtree(unfinished, ignore_errors=True)
    step, position = 0, Position()
    if checkpoint := find_checkpoint(args.output_dir):
        step, position = load_checkpoint(accelerator, checkpoint, configuration)
        if main:
            print(f"resuming    {checkpoint} after step {step}, at {position}", flush=True)
    log = Log(args.output_dir / "log.jsonl", step) if main else None
    if args.report_to != "none":
        accelerator.init_trackers("pretrain_gpt2", config=configuration)

    batches = stream.read_ahead(rows * world * accumulation, length, position) if main else None
    losses, rates, positions = [], [], []  # of the steps since the last line in the log
    begin = time.perf_counter()
    model.train()

    def write_log():
        """Reads the losses back from the device, once in a while, so that it need not be waited for at every step."""
        nonlocal begin
        if not losses:
            return
        values = accelerator.reduce(torch.stack(losses), "mean").tolist()
        speed = len(losses) * rows * world * accumulation * length / (time.perf_counter() - begin)
        if main:
            first = step - len(values) + 1
            for i, (loss, rate, where) in enumerate(zip(values, rates, positions, strict=True)):
                log.write(
                    {
                        "step": first + i,
                        "loss": loss,
                        "learning_rate": rate,
                        "tokens_per_second": round(speed),
                        "position": where,
                    }
                )
            bar.set_postfix_str(f"loss {values[-1]:.3f}, {speed:,.0f} tokens/s")
            accelerator.log({"loss": values[-1], "learning_rate": rates[-1], "tokens_per_second": speed}, step=step)
        for kept in (losses, rates, positions):
            kept.clear()
        begin = time.perf_counter()
        if not math.isfinite(values[-1]):
            raise InputError(f"the loss of step {step} is {values[-1]}: lower --learning-rate, or lengthen the warm-up")

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
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                for group, rate in zip(optimizer.param_groups, peak, strict=True):
                    group["lr"] = rate * share

            mine = batch.view(accumulation, world, rows, length + 1)[:, accelerator.process_index]
            losses.append(training_step(accelerator, model, optimizers, mine, args.max_grad_norm))
            step += 1
            rates.append(args.learning_rate * share)
            positions.append(asdict(position))
            bar.update()

            last = step == args.max_steps
            if step % args.logging_steps == 0 or last:
                write_log()
            if step % args.eval_steps == 0 or last:
                write_log()
                loss = evaluate(accelerator, model, validation, rows)
                if main:
                    log.write({"step": step, "eval_loss": loss, "perplexity": math.exp(loss)})
                    bar.write(f"step {step}: validation loss {loss:.4f}, perplexity {math.exp(loss):.2f}")
                    accelerator.log({"eval_loss": loss, "perplexity": math.exp(loss)}, step=step)
                begin = time.perf_counter()
            if step % args.save_steps == 0 or last:
                write_log()
                save_checkpoint(accelerator, args, configuration, step, position)
                begin = time.perf_counter()
    save_model(accelerator, model, config, tokenizer, args.output_dir / "model")
    accelerator.end_training()
    if main:
        print(f"done        {args.output_dir / 'model'}", flush=True)


class Log:
    """One line of JSON for each step. What a killed run wrote after its last checkpoint is taken back."""

    def __init__(self, path: Path, step: int):
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(path)
        self.file = path.open("a")

    def write(self, entry: dict) -> None:
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()


def main(arguments: list[str] | None = None) -> None:
    try:
        train(parse_arguments(arguments))
    except (InputError, ProfileError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
