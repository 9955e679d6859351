"""`python -m helpers.memory`: the memory of a training step, on the command line."""

from __future__ import annotations

import argparse
import sys

from helpers.memory.prediction import estimate
from helpers.memory.settings import ATTENTION, METHODS, OPTIMIZERS, PRECISIONS, SHARDING, TASKS


class _Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, not the whole usage
        sys.exit(f"{self.prog}: {message}")


def main(arguments: list[str] | None = None) -> int:
    """`python -m helpers.memory gpt2 --batch-size 8 --sequence-length 512`: prints the table of `estimate`."""
    parser = _Parser(prog="python -m helpers.memory", description="Predicts the peak memory of a training step.")
    parser.add_argument("config", metavar="model", help="a known name, a checkpoint directory or a Hub id")
    parser.add_argument("--batch-size", type=int, required=True, dest="per_device_train_batch_size")
    parser.add_argument("--sequence-length", type=int, required=True)
    parser.add_argument("--task", help=", ".join(TASKS))
    parser.add_argument("--precision", default="fp32", help=", ".join(PRECISIONS))
    parser.add_argument("--attn-implementation", default="sdpa", help=", ".join(ATTENTION))
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--optim", default="adamw_torch_fused", help=", ".join(OPTIMIZERS))
    parser.add_argument("--method", default="full", help=", ".join(METHODS))
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--lora-target-modules", nargs="+")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--sharding", default="ddp", help=", ".join(SHARDING))
    parser.add_argument("--padded", action="store_true", help="the batch has a padding mask")
    parser.add_argument("--device", default="cuda", help="cuda, cpu")
    options = vars(parser.parse_args(arguments))
    try:
        print(estimate(options.pop("config"), **options))
    except ValueError as error:
        parser.error(str(error))
    return 0
