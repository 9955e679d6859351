"""Runs a program in several processes with `accelerate launch`, if its launch file fits this machine."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers.profiles import Profile
from takehome.checkpoints import claim, only_one_run
from takehome.commandline import Parser, Stopped, StopSignals, number
from takehome.errors import InputError, one_line

DISTRIBUTED_TYPES = ("MULTI_GPU", "FSDP", "DEEPSPEED")


@dataclass(frozen=True)
class Launch:
    """What the command line says about launching; what it leaves out is the launch file's."""

    config_file: Path | None = None
    num_processes: int | None = None
    num_machines: int | None = None
    machine_rank: int | None = None
    main_process_ip: str | None = None
    main_process_port: int | None = None

    def numbers(self) -> dict[str, Any]:
        """What is given beside the file, under accelerate's own names."""
        return {name: value for name, value in asdict(self).items() if name != "config_file" and value is not None}


def launch_parser() -> Parser:
    """The options of `Launch`, for `parents` of a program's parser."""
    parser = Parser(add_help=False)
    launch = parser.add_argument_group("launching", "for `accelerate launch`, which this program then runs")
    launch.add_argument("--config-file", type=Path, help="one of scripts/launch/, or your own of `accelerate config`")
    launch.add_argument("--num-processes", type=number(int, 1, 10**5))
    launch.add_argument("--num-machines", type=number(int, 1, 10**5))
    launch.add_argument("--machine-rank", type=number(int, 0, 10**5))
    launch.add_argument("--main-process-ip")
    launch.add_argument("--main-process-port", type=number(int, 1, 65535))
    return parser


def launch(options: Launch, profile: Profile, program: Path, words: list[str], folder: Path, kind: str) -> None:
    """Compares the launch file with the machine and runs the program on all processes until they end.

    Args:
        options: with a launch file.
        profile: says whether GPUs may be used; loaded here, the processes inherit what it found out about the Hub.
        program: to run.
        words: its command line.
        folder: of the run, which gets launch.log: what the launchers print, which is much.
        kind: of run, as the program claims the folder.

    Raises:
        InputError: the file cannot be used here, or a process failed.
        Stopped: a signal came; the processes have written a checkpoint.
    """
    config = read_config(options, program.parent / "launch")
    check_machine(config, options.config_file, profile)
    given = {name: value for name in Launch().__dict__ if (value := config.get(name)) is not None}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(options.config_file)]
    command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
    if config["machine_rank"]:  # the first machine takes the folder
        log = Path(tempfile.mkdtemp(prefix="launch-")) / "launch.log"
    else:
        log = folder / "launch.log"
        with only_one_run(claim(folder, kind)):  # until the main process takes over
            log.unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as file, StopSignals() as signals:
        # in a group of its own: a terminal's Ctrl-C reaches this process, which tells the launcher once
        worker = subprocess.Popen([*command, str(program), *words], stderr=file, process_group=0)
        status = wait(worker, signals)
    if signals.asked:
        raise Stopped(signals.asked)
    if status:
        said = what_failed(log.read_text(encoding="utf-8", errors="replace"), program.name)
        raise InputError(f"{said} (all messages: {log})")


def wait(worker: subprocess.Popen, signals: StopSignals) -> int:
    """Waits for the launcher to end, and hands a signal on to it; returns its exit status."""
    told = False
    try:
        while True:
            try:
                return worker.wait(0.2)
            except subprocess.TimeoutExpired:
                if signals.asked and not told:
                    told = True
                    worker.send_signal(signal.SIGTERM)
    except BaseException:  # no process stays behind
        worker.terminate()
        worker.wait()
        raise


def read_config(options: Launch, examples: Path) -> dict[str, Any]:
    """The launch file with what the command line says otherwise, and a free port if nobody asked for one.

    Raises:
        InputError: there is no such file, or it is none.
    """
    import yaml

    file = options.config_file
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        there = ", ".join(str(path) for path in sorted(examples.glob("*.yaml")))
        raise InputError(f"cannot read {file} ({type(error).__name__}); there is {there}") from error
    if not isinstance(config, dict) or config.get("distributed_type") not in DISTRIBUTED_TYPES:
        raise InputError(f"{file}: distributed_type must be one of {', '.join(DISTRIBUTED_TYPES)}")
    config |= options.numbers()
    for name, least in (("num_processes", 1), ("num_machines", 1), ("machine_rank", 0), ("main_process_port", 1)):
        value = config.setdefault(name, 1 if name.startswith("num") else None)
        if value is not None and (type(value) is not int or value < least):
            raise InputError(f"{file}: {name} is {one_line(value, 40)}; write a whole number of at least {least}")
    if config["num_machines"] == 1 and not config["main_process_port"]:
        config["main_process_port"] = free_port()
    return config


def check_machine(config: dict[str, Any], file: Path, profile: Profile) -> None:
    """Raises InputError if the launch file asks for what is not here: GPUs, DeepSpeed, a port, a number format."""
    local, use_cpu, gpus = config["num_processes"] // config["num_machines"], config.get("use_cpu", False), 0
    if not use_cpu and profile.wants_cpu:
        raise InputError(
            f"{file} asks for GPUs, the profile for the CPU (use_cpu); take a *_cpu.yaml, or a --profile for GPUs"
        )
    if not use_cpu:  # only then is torch worth the second that its import takes
        import torch

        gpus = torch.cuda.device_count()
    if local < 1:
        raise InputError(f"{file}: {config['num_processes']} processes cannot serve {config['num_machines']} machines")
    if config["num_machines"] > 1 and not (config.get("main_process_ip") and config["main_process_port"]):
        raise InputError(f"{file}: several machines need --main-process-ip and --main-process-port, the same on each")
    if not use_cpu and gpus < local:
        raise InputError(f"{file} asks for {local} GPUs on this machine, which has {gpus}; for CPUs take a *_cpu.yaml")
    if config["distributed_type"] == "DEEPSPEED":
        check_deepspeed(config, file, use_cpu)
    if config.get("mixed_precision") == "fp16" and use_cpu:
        raise InputError(f"{file} asks for fp16 on a CPU, which has no such training; take bf16 or no")
    port, first = config["main_process_port"], config["machine_rank"] or 0
    if port and first == 0 and not port_is_free(port):
        raise InputError(f"port {port} is taken by another program; give another with --main-process-port")


def check_deepspeed(config: dict[str, Any], file: Path, use_cpu: bool) -> None:
    if not importlib.util.find_spec("deepspeed"):
        raise InputError(f"{file} asks for DeepSpeed, which is not installed; install it, or take an fsdp2 file")
    if use_cpu and not (shutil.which("c++") and shutil.which("ninja")):
        raise InputError(f"{file}: on a CPU DeepSpeed compiles a part of itself and needs a C++ compiler and ninja")


def what_failed(log: str, name: str) -> str:
    """The first failure in the launchers' messages, in one line; `name` is the program's."""
    own = re.findall(rf"^{re.escape(name)}: (process (\d+) of \d+: .+)$", log, re.MULTILINE)
    root = log.rpartition("Root Cause")[2]
    rank, code = re.search(r"rank\s*: (\d+)", root), re.search(r"exitcode\s*: (-?\d+)", root)
    if rank and code and int(code[1]) < 0:
        hint = " (often: out of memory)" if code[1] == "-9" else ""
        return f"process {rank[1]} was ended by signal {-int(code[1])}{hint}"
    if own:  # the others fail because one did; it is the one that torchrun saw first
        return next((line for line, process in own if rank and process == rank[1]), own[0][0])
    said = [line for line in log.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return one_line(said[-1]) if said else "the launcher failed without a message"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def launch_options(args: argparse.Namespace) -> Launch:
    return Launch(**{name: getattr(args, name) for name in Launch().__dict__})
