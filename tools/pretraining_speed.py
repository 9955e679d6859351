"""Tokens per second of pretrain_gpt2.py's own steps, beside two plain loops over the same batches.

    make benchmark BENCHMARK=pretraining_speed             # all shapes, fp32 and bf16, about six minutes
    make benchmark BENCHMARK='pretraining_speed --shape "4 M" --precision bf16 --torch-compile'

The plain loops are Transformers' GPT-2 as it comes, and a GPT in nothing but torch, the way nanoGPT is built. Each loop
has a process of its own, so that none gets what another does for its memory; they take turns, step by step, and
medians are compared. Run it when the machine has nothing else to do.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

from helpers.profiles import load_profile
from takehome.recipe import corpus_of, recipe_of, shape_of

# layers, width, heads, vocabulary, rows, length
SHAPES = {"0.7 M": (2, 128, 4, 2048, 16, 128), "4 M": (4, 256, 4, 4096, 16, 128), "124 M": (12, 768, 12, 50257, 2, 256)}
LOOPS = ("program", "transformers", "torch")  # the first leaves its batches for the others


def gpt2_config(layers, width, heads, vocabulary):
    from transformers import GPT2Config, logging

    logging.set_verbosity_error()
    return GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=1024,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )


def plain_torch_gpt(layers, width, heads, vocabulary):
    """The shape of GPT-2 in nothing but torch: no Accelerate, no transformers."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
            self.attend, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            parts = self.attend(self.norms[0](x)).split(width, dim=2)
            q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in parts)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.mix(mixed.transpose(1, 2).flatten(2))
            return x + self.narrow(F.gelu(self.widen(self.norms[1](x))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(1024, width)
            self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(layers))), nn.LayerNorm(width)
            nn.init.normal_(self.tokens.weight, std=0.02)

        def forward(self, ids):
            x = self.tokens(ids[:, :-1]) + self.places(torch.arange(ids.shape[1] - 1, device=ids.device))
            logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
            return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return GPT()


def plain_loop(name, shape, precision, compiled, device="cpu"):
    """A function that trains on ids [rows, length + 1] and returns the loss."""
    import torch

    if name == "torch":
        model, options = plain_torch_gpt(*shape).to(device), {"fused": True}
        loss_of = torch.compile(model) if compiled else model
    else:
        from transformers import GPT2LMHeadModel

        model, options = GPT2LMHeadModel(gpt2_config(*shape)).to(device), {}

        def loss_of(ids):
            ids = ids[:, :-1].contiguous()
            return model(input_ids=ids, labels=ids).loss

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, **options)

    def step(ids):
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def program_loop(recipe, shape, device="cpu"):
    """The same by what scripts/pretrain_gpt2.py calls."""
    from accelerate import Accelerator

    from takehome.gpt2 import build_model, build_optimizers, training_step

    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=recipe.mixed_precision)
    config = gpt2_config(*shape)
    config.activation_function = "gelu"  # as build_config does
    model = build_model(config)
    if recipe.torch_compile:
        model.compile()
    model, *optimizers = accelerator.prepare(model, *build_optimizers(recipe, model))
    return lambda ids: training_step(accelerator, model, optimizers, [ids], 1.0).item()


def step_of(name, shape, precision, compiled, device):
    """One of LOOPS as a function that trains on ids [rows, length + 1] and returns the loss."""
    if name != "program":
        return plain_loop(name, shape, precision, compiled, device)
    settings = load_profile("reduced").openwebtext
    return program_loop(replace(recipe_of(settings), mixed_precision=precision, torch_compile=compiled), shape, device)


def take_turns(name, shape, precision, compiled, batches: str) -> None:
    """One loop in its process: a step for each line that comes in, its seconds in a line that goes out.

    The program first leaves its batches [steps, rows, length + 1] for the others, and says how many seconds each took
    with nothing else going on. Then it reads the corpus beside its steps, as it does in training, and adds the seconds
    of that reading so far.
    """
    import numpy as np
    import torch

    torch.manual_seed(0)
    *shape, rows, length = SHAPES[shape]
    alone = 0.0
    if name == "program":
        from takehome.gpt2 import load_tokenizer
        from takehome.tokens import Position, TokenStream

        settings = load_profile("reduced").openwebtext
        stream, start = TokenStream(corpus_of(settings), load_tokenizer(shape_of(settings))), Position()
        made, number = stream.blocks(rows, length, start), 500_000 // (rows * length)
        next(made)  # opens the files
        begin = time.perf_counter()
        copies = [next(made)[0].numpy() for _ in range(number)]
        alone = (time.perf_counter() - begin) / number
        np.save(batches, np.stack(copies))
        step, read = step_of(name, shape, precision, compiled, "cpu"), stream.read_ahead(rows, length, start)
    else:
        step, copies = step_of(name, shape, precision, compiled, "cpu"), np.load(batches)
        read = ((torch.from_numpy(copies[i % len(copies)]), None) for i in range(10**9))
    print(alone, flush=True)
    for _ in sys.stdin:
        ids = next(read)[0] % shape[3]
        start = time.perf_counter()
        step(ids)
        print(time.perf_counter() - start, stream.seconds if name == "program" else 0.0, flush=True)


def compare_speed(shape: str, precision: str, seconds: float = 30, compiled: bool = False) -> tuple[dict, dict]:
    """Returns each loop's tokens per second, and the share of the program's step that reading takes.

    Reading, tokenising and packing, "alone": with nothing else going on; "beside" the steps: in the background, where
    it waits for cores that are busy.

    Args:
        shape: One of SHAPES.
        precision: "no" or "bf16".
        seconds: How long the loops take turns.
        compiled: The last two loops through torch.compile.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        workers, alone = {}, {}
        for name in LOOPS:
            command = [sys.executable, __file__, "--shape", shape, "--precision", precision, "--loop", name]
            command += ["--batches", f"{folder}/batches.npy"] + ["--torch-compile"] * compiled
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            workers[name] = stack.enter_context(subprocess.Popen(command, **pipes))
            stack.callback(workers[name].kill)
            if not (ready := workers[name].stdout.readline()):
                raise SystemExit(f"the loop {name!r} did not start")
            alone[name] = float(ready)

        def turn() -> dict[str, tuple[float, float]]:
            answers = {}
            for name, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                answers[name] = tuple(map(float, worker.stdout.readline().split()))
            return answers

        for _ in range(3):
            before = turn()  # the first steps are slower
        turns, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(turns) < 3:
            turns.append(turn())
    medians = {name: statistics.median(answers[name][0] for answers in turns) for name in LOOPS}
    beside = (turns[-1]["program"][1] - before["program"][1]) / len(turns)
    reading = {"alone": alone["program"] / medians["program"], "beside": beside / medians["program"]}
    *_, rows, length = SHAPES[shape]
    return {name: rows * length / taken for name, taken in medians.items()}, reading


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=list(SHAPES))
    parser.add_argument("--precision", choices=["no", "bf16"], nargs="+", default=["no", "bf16"])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--torch-compile", action="store_true")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--batches", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        return take_turns(options.loop, options.shape[0], options.precision[0], options.torch_compile, options.batches)
    print("| shape, precision | program | transformers | torch | times transformers | times torch | reading | beside |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in options.shape:
        for precision in options.precision:
            speeds, reading = compare_speed(shape, precision, options.seconds, options.torch_compile)
            ours = speeds["program"]
            rates = " | ".join(f"{speed:,.0f}" for speed in speeds.values())
            ratios = f"{ours / speeds['transformers']:.2f} | {ours / speeds['torch']:.2f} | "
            ratios += " | ".join(f"{share:.1%}" for share in reading.values())
            print(f"| {shape}, {precision} | {rates} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
