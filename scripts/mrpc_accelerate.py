"""Fine-tunes a classifier of sentence pairs (MRPC) with Accelerate, on one process or on many.

    python scripts/mrpc_accelerate.py                                              # one process
    python scripts/mrpc_accelerate.py --config_file scripts/launch/ddp_cpu.yaml    # as many as the file asks for
    accelerate launch --config_file scripts/launch/ddp_cpu.yaml scripts/mrpc_accelerate.py
    torchrun --nproc_per_node 2 scripts/mrpc_accelerate.py

With --config_file the script first compares the file with the machine, then runs `accelerate launch` itself, keeps the
launchers' messages in launch.log, and says in one line what went wrong. Data, model and settings come from [mrpc] of
the profile. After each epoch, and every --checkpointing_steps, all that is needed to go on is saved in --output_dir;
the same command with --resume_from_checkpoint goes on there, or begins if nothing was saved yet. At the end the
directory holds the model and results.json: the loss of every step, the validation of every epoch, the memory.
"""

import argparse
import contextlib
import gc
import importlib.util
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import traceback
from pathlib import Path

from helpers.profiles import ProfileError, load_profile

NAME = Path(__file__).name
DISTRIBUTED_TYPES = ("MULTI_GPU", "FSDP", "DEEPSPEED")


class Refusal(Exception):
    """What the user has to change, in one line."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; a size that is not given is that of the profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="name or .toml file; default: FINETUNING_PROFILE, or reduced")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/mrpc_accelerate"))
    parser.add_argument("--overwrite_output_dir", action="store_true", help="delete what an earlier run left there")
    parser.add_argument("--resume_from_checkpoint", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--checkpointing_steps", type=int, default=0, help="save every so many steps, not only epochs")
    parser.add_argument("--per_device_train_batch_size", type=int)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--max_train_steps", type=int, help="stop, and end the schedule, after so many steps")
    launch = parser.add_argument_group("launching", "for `accelerate launch`, which this script then runs")
    launch.add_argument("--config_file", type=Path, help="one of scripts/launch/, or your own from `accelerate config`")
    launch.add_argument("--num_processes", type=int)
    launch.add_argument("--num_machines", type=int)
    launch.add_argument("--machine_rank", type=int)
    launch.add_argument("--main_process_ip")
    launch.add_argument("--main_process_port", type=int)
    return parser.parse_args(arguments)


# ------------------------------------------------------------------ launching


def launch(options: argparse.Namespace) -> int:
    """Compares the launch file with the machine, runs `accelerate launch`, and returns the exit status.

    Raises:
        Refusal: the file cannot be used here, or a process failed.
    """
    config = read_config(options)
    check_machine(config, options)
    names = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
    given = {name: value for name in names if (value := config.get(name)) is not None}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(options.config_file)]
    command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
    own = ["--config_file", *(f"--{name}" for name in names)]
    log = options.output_dir / "launch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        worker = subprocess.Popen([*command, __file__, *_without(sys.argv[1:], own)], stderr=file)
        try:
            status = worker.wait()
        except BaseException:  # Ctrl-C and the like: no process stays behind
            worker.terminate()
            worker.wait()
            raise
    if status:
        raise Refusal(f"{what_failed(log.read_text(errors='replace'))} (all messages: {log})")
    return 0


def read_config(options: argparse.Namespace) -> dict:
    """The launch file with what the command line says otherwise, and a free port if nobody asked for one.

    Raises:
        Refusal: there is no such file, or it is none.
    """
    import yaml

    try:
        config = yaml.safe_load(options.config_file.read_text())
    except (OSError, yaml.YAMLError) as error:
        there = ", ".join(str(path) for path in sorted(Path(__file__).parent.glob("launch/*.yaml")))
        raise Refusal(f"cannot read {options.config_file} ({type(error).__name__}); there is {there}") from error
    if not isinstance(config, dict) or config.get("distributed_type") not in DISTRIBUTED_TYPES:
        raise Refusal(f"{options.config_file}: distributed_type must be one of {', '.join(DISTRIBUTED_TYPES)}")
    config |= {key: value for key, value in vars(options).items() if key in config and value is not None}
    machine = ("machine_rank", "main_process_ip", "main_process_port")
    config |= {key: getattr(options, key) for key in machine if getattr(options, key) is not None}
    config.setdefault("num_machines", 1)
    if config["num_machines"] == 1 and not config.get("main_process_port"):
        config["main_process_port"] = _free_port()
    return config


def check_machine(config: dict, options: argparse.Namespace) -> None:
    """Raises Refusal if the launch file asks for what is not here: GPUs, DeepSpeed, a port, a number format."""
    profile = load_profile(options.profile)  # here, so that the processes inherit what it found out about the Hub
    profile.mrpc  # noqa: B018 (raises if something is missing)
    file, local = options.config_file, config.get("num_processes", 1) // config["num_machines"]
    use_cpu, gpus = config.get("use_cpu", False), 0
    if not use_cpu and profile.use_cpu:
        raise Refusal(
            f"{file} asks for GPUs, the profile for the CPU (use_cpu); take a *_cpu.yaml, or a --profile for GPUs"
        )
    if not use_cpu:  # only then is torch worth the second that its import takes
        import torch

        gpus = torch.cuda.device_count()
    if local < 1:
        raise Refusal(f"{file}: {config.get('num_processes')} processes cannot serve {config['num_machines']} machines")
    if config["num_machines"] > 1 and not (config.get("main_process_ip") and config.get("main_process_port")):
        raise Refusal(f"{file}: several machines need --main_process_ip and --main_process_port, the same on each")
    if not use_cpu and gpus < local:
        raise Refusal(f"{file} asks for {local} GPUs on this machine, which has {gpus}; for CPUs take a *_cpu.yaml")
    if config["distributed_type"] == "DEEPSPEED" and not importlib.util.find_spec("deepspeed"):
        raise Refusal(f"{file} asks for DeepSpeed, which is not installed; install it, or take an fsdp2 file")
    if config["distributed_type"] == "DEEPSPEED" and use_cpu and not (shutil.which("c++") and shutil.which("ninja")):
        raise Refusal(f"{file}: on a CPU DeepSpeed compiles a part of itself and needs a C++ compiler and ninja")
    if config.get("mixed_precision") == "fp16" and use_cpu:
        raise Refusal(f"{file} asks for fp16 on a CPU, which has no such training; take bf16 or no")
    port, first = config.get("main_process_port"), config.get("machine_rank") or 0
    if port and first == 0 and not _port_is_free(port):
        raise Refusal(f"port {port} is taken by another program; give another with --main_process_port")


def what_failed(log: str) -> str:
    """The first failure in the launchers' messages, in one line."""
    own = re.findall(rf"^{re.escape(NAME)}: (process (\d+) of \d+: .+)$", log, re.MULTILINE)
    root = log.rpartition("Root Cause")[2]
    rank, code = re.search(r"rank\s*: (\d+)", root), re.search(r"exitcode\s*: (-?\d+)", root)
    if rank and code and int(code[1]) < 0:
        hint = " (often: out of memory)" if code[1] == "-9" else ""
        return f"process {rank[1]} was ended by signal {-int(code[1])}{hint}"
    if own:  # the others fail because one did; it is the one that torchrun saw first
        return next((line for line, process in own if rank and process == rank[1]), own[0][0])
    said = [line for line in log.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return said[-1][:300] if said else "the launcher failed without a message"


def _without(words: list[str], names: list[str]) -> list[str]:
    """A command line without some options and their values, given as `--name value` or `--name=value`."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in names:
            kept.append(word)
        skip = not skip and word in names
    return kept


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


# ------------------------------------------------------------------ training


def make_accelerator(use_cpu: bool):
    """Accelerate on the devices that this process was launched for.

    Accelerate 1.15 shards on GPUs only: on a CPU it reads an FSDP file and runs DDP without a word. Here a rehearsal
    on the CPU is what the file says.
    """
    import torch
    from accelerate import Accelerator, DistributedType
    from accelerate.state import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin, InitProcessGroupKwargs

    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
    # Without gloo, DeepSpeed's processes on a CPU would each think that it is alone.
    handlers = [InitProcessGroupKwargs(backend="gloo")] if use_cpu and deepspeed else None
    accelerator = Accelerator(cpu=use_cpu and not deepspeed, kwargs_handlers=handlers)
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" and use_cpu:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        for state in (PartialState(), accelerator.state):
            state.distributed_type = DistributedType.FSDP
    asked = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != asked:
        raise Refusal(f"{asked} processes were launched and do not see each other")
    if use_cpu and asked > 1:  # with more threads than cores they mostly wait for each other
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", asked))))
    return accelerator


def layer_classes(model) -> list[str]:
    """The classes of the model's layers, which FSDP gathers one at a time."""
    import torch

    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return sorted({type(layer).__name__ for stack in stacks for layer in stack})


def load_data(settings, tokenizer, accelerator):
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


def train(options: argparse.Namespace) -> None:
    """Trains, evaluates after every epoch, saves, and writes results.json."""
    gc.disable()  # what the imports make stays: looking for garbage in it, now and at the exit, costs seconds
    profile = load_profile(options.profile)  # before the libraries: it may set them offline
    settings, output_dir = profile.mrpc, options.output_dir

    import datasets
    import torch
    import transformers
    from accelerate.utils import set_seed  # the one in transformers imports PEFT and bitsandbytes: two seconds
    from torch.utils.data import DataLoader, RandomSampler
    from tqdm import tqdm

    use_cpu = profile.use_cpu or not torch.cuda.is_available()
    accelerator = make_accelerator(use_cpu)
    accumulation = options.gradient_accumulation_steps
    if accelerator.distributed_type == "DEEPSPEED" and accumulation > 1:
        raise Refusal("DeepSpeed counts accumulation by itself; take DDP or FSDP for --gradient_accumulation_steps")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    saved = last_checkpoint(output_dir)
    if saved and not (options.resume_from_checkpoint or options.overwrite_output_dir):
        raise Refusal(f"{output_dir} holds {saved.name}: add --resume_from_checkpoint or --overwrite_output_dir")
    accelerator.wait_for_everyone()
    if options.overwrite_output_dir and not options.resume_from_checkpoint:
        saved = None
        if accelerator.is_main_process:
            for path in output_dir.glob("checkpoint-*"):
                shutil.rmtree(path)

    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.checkpoint, revision=settings.checkpoint_revision)
    train_rows, eval_rows = load_data(settings, tokenizer, accelerator)
    set_seed(settings.seed)  # the new head is drawn here, on every process the same
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        settings.checkpoint, revision=settings.checkpoint_revision, num_labels=2
    )
    if accelerator.distributed_type == "FSDP":  # the launch file may name another model's layers
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )
    order, collate = torch.Generator(), transformers.DataCollatorWithPadding(tokenizer)
    train_loader = DataLoader(
        train_rows,
        options.per_device_train_batch_size or settings.per_device_train_batch_size,
        sampler=RandomSampler(train_rows, generator=order),
        collate_fn=collate,
    )
    eval_loader = DataLoader(eval_rows, settings.per_device_eval_batch_size, collate_fn=collate)
    gc.enable()
    gc.freeze()
    raw_optimizer = optimizer  # a prepared scheduler would take one step for each process
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)

    steps_per_epoch = math.ceil(len(train_loader) / accumulation)
    num_steps = options.max_train_steps or math.ceil(steps_per_epoch * settings.num_train_epochs)
    warmup = settings.warmup_steps if settings.warmup_steps >= 1 else math.ceil(num_steps * settings.warmup_steps)
    scheduler = linear_schedule(raw_optimizer, int(warmup), num_steps)
    accelerator.register_for_checkpointing(scheduler)

    state = {"step": 0, "losses": [], "epochs": []}
    random_state = None
    if saved:
        accelerator.load_state(str(saved))
        state = json.loads((saved / "state.json").read_text())
        random_state = torch.get_rng_state()
    else:
        set_seed(settings.seed)  # as Trainer does: dropout starts from here
    accelerator.print(
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, {kind_of(accelerator)}, "
        + (f"from step {state['step']} " if saved else "")
        + f"to step {num_steps}"
    )
    bar = tqdm(
        total=num_steps, initial=state["step"], file=sys.stdout, disable=not accelerator.is_main_process, mininterval=1
    )
    memory = {}
    if state["step"] >= num_steps:
        raise Refusal(f"{output_dir} is finished: {saved.name} is the last step")
    while state["step"] < num_steps:
        epoch, done = divmod(state["step"], steps_per_epoch)
        order.manual_seed(settings.seed + epoch)  # the order of an epoch depends on nothing but its number
        model.train()
        loader = accelerator.skip_first_batches(train_loader, done * accumulation) if done else train_loader
        batches = iter(loader)
        while state["step"] < num_steps and (group := list(itertools.islice(batches, accumulation))):
            if random_state is not None and done:  # beginning to read has drawn a number that was drawn before
                torch.set_rng_state(random_state)
            random_state = None
            loss = training_step(accelerator, model, group)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if not accelerator.optimizer_step_was_skipped:
                scheduler.step()
            memory = memory or resting_bytes(model, raw_optimizer)
            optimizer.zero_grad()
            state["step"] += 1
            state["losses"].append(loss)
            bar.update()
            due = options.checkpointing_steps and state["step"] % options.checkpointing_steps == 0
            if due and state["step"] % steps_per_epoch:  # the end of an epoch is saved below, with its evaluation
                save_checkpoint(accelerator, output_dir, state)
        metrics = evaluate(accelerator, model, eval_loader, settings)
        state["epochs"].append({"step": state["step"], **metrics})
        if state["step"] % steps_per_epoch == 0:
            save_checkpoint(accelerator, output_dir, state)
    bar.close()

    memories = accelerator.gather(torch.tensor([list(memory.values())], device=accelerator.device))
    weights = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(output_dir, state_dict=weights)
        tokenizer.save_pretrained(output_dir)
        found = [dict(zip(memory, row, strict=True)) for row in memories.tolist()]
        results = state | {"processes": accelerator.num_processes, "kind": kind_of(accelerator), "memory": found}
        write_whole(output_dir / "results.json", json.dumps(results, indent=1))
        print(", ".join(f"{name} {value:.4f}" for name, value in state["epochs"][-1].items() if name != "step"))
    accelerator.wait_for_everyone()
    accelerator.end_training()


def linear_schedule(optimizer, warmup_steps: int, num_steps: int):
    """What get_scheduler("linear") of transformers makes, which imports PEFT and bitsandbytes for it."""
    import torch

    def share(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return max(0.0, (num_steps - step) / max(1, num_steps - warmup_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def training_step(accelerator, model, group: list) -> float:
    """Forward and backward of all batches of a step; returns the mean loss of its rows, on all processes.

    Each row counts the same, whichever batch and process it is in: a mean of means would favour the rows of a smaller
    batch. DDP averages the gradients over the processes, hence their number in the loss.
    """
    import torch

    rows = accelerator.reduce(torch.tensor(float(sum(len(b["labels"]) for b in group)), device=accelerator.device))
    total = 0.0
    for number, batch in enumerate(group, 1):
        last = number == len(group)
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            loss = model(**batch).loss * len(batch["labels"]) / rows
            accelerator.backward(loss * accelerator.num_processes)
            total += loss.detach()
    return accelerator.reduce(total).item()


def evaluate(accelerator, model, loader, settings) -> dict:
    """The metrics of the whole validation set; the main process computes them, the others return nothing."""
    import torch

    model.eval()
    predictions, labels = [], []
    for batch in loader:
        with torch.no_grad():
            predicted = model(**batch).logits.argmax(dim=-1)
        # Without gather_for_metrics the rows that fill up the last batch would count twice.
        predicted, label = accelerator.gather_for_metrics((predicted, batch["labels"]))
        predictions += predicted.tolist()
        labels += label.tolist()
    if not accelerator.is_main_process:
        return {}
    import evaluate as metrics  # the library, not this function; the other processes need not read it

    return metrics.load(settings.metric, "mrpc").compute(predictions=predictions, references=labels)


def kind_of(accelerator) -> str:
    """How the processes share the work, in the usual word."""
    if accelerator.num_processes == 1:
        return "alone"
    return {"FSDP": "FSDP2", "DEEPSPEED": "DeepSpeed ZeRO"}.get(str(accelerator.distributed_type.value), "DDP")


def resting_bytes(model, optimizer) -> dict:
    """Bytes that this process holds between two steps, before the gradients are set to zero."""

    def size(tensors) -> int:
        local = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors if tensor is not None]
        return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in local)}.values())

    parameters = list(model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if hasattr(value, "nbytes")]
    masters = [p for group in optimizer.param_groups for p in group["params"]]  # DeepSpeed keeps copies of its own
    return {
        "weights": size(parameters),
        "gradients": size([p.grad for p in parameters]),
        "optimizer": size([*states, *masters]) - size({id(p): p for p in masters if p in set(parameters)}.values()),
    }


# ------------------------------------------------------------------ checkpoints, whole or absent


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def save_checkpoint(accelerator, output_dir: Path, state: dict) -> None:
    """Writes everything beside its place, then renames it: whoever is killed in between leaves the last one whole."""
    final = output_dir / f"checkpoint-{state['step']}"
    draft = output_dir / f"checkpoint-{state['step']}.draft"
    if accelerator.is_main_process and draft.exists():
        shutil.rmtree(draft)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(draft))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (draft / "state.json").write_text(json.dumps(state))
        older = list(output_dir.glob("checkpoint-*"))
        draft.rename(final)
        for path in older:
            if path not in (draft, final):
                shutil.rmtree(path)
    accelerator.wait_for_everyone()


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)


def main() -> int:
    """Launches, or trains in this process; returns the exit status."""
    options = parse_arguments()
    alone = "LOCAL_RANK" not in os.environ
    who = "" if alone else f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}: "
    try:
        if options.config_file and alone:
            return launch(options)
        train(options)
    except Exception as error:
        said = " ".join(str(error).split())
        if isinstance(error, (Refusal, ProfileError)):
            print(f"{NAME}: {who}{said}", file=sys.stderr, flush=True)
        else:
            trace = options.output_dir / f"traceback-{os.environ.get('RANK', 0)}.txt"
            trace.parent.mkdir(parents=True, exist_ok=True)
            trace.write_text(traceback.format_exc())
            print(f"{NAME}: {who}{type(error).__name__}: {said} (see {trace})", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
