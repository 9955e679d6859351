"""Runs what lesson 03 shows and has no time for: techniques and Muon over several seeds, and one longer run.

    make benchmark BENCHMARK=pretraining_experiments          # some minutes on two cores; goes on if stopped
    make benchmark BENCHMARK='pretraining_experiments --results new.json --steps 240 --long-steps 900'

Techniques are tried on a model as small as the one that the lesson kills and resumes; Muon and the longer run take the
lesson's own recipe. Results go into `data/pretraining_experiments.json`. A run that stands there is not computed again:
remove the file to start anew. All techniques of a seed begin with the same weights and read the same documents in the
same order. So runs are compared seed by seed: the lesson computes a paired t-test from the losses.
"""

import argparse
import json
import os
from dataclasses import replace
from itertools import product
from pathlib import Path

from recipes import ConstantRate, train

from helpers.profiles import ROOT, load_profile
from takehome.recipe import Recipe, Schedule, Shape, recipe_of, shape_of

RESULTS = ROOT / "data" / "pretraining_experiments.json"
SMALL = {"n_layer": 2, "n_embd": 64, "n_head": 2}
BATCH, LENGTH, STEPS, SEEDS = 4, 64, 120, 4
TECHNIQUES = ("the recipe", "no warm-up", "constant rate", "no clipping", "no weight decay", "dropout 0.1")
MUON_SHARE = 0.6  # of AdamW's steps
PROMPT, LONG = "The bicycle was a present from", 180
SHARES = (0, 1 / 6, 1 / 2, 1)  # of the long run's steps: when it is looked at


def technique(name: str, recipe: Recipe, shape: Shape) -> float:
    """The validation loss of the recipe with one thing changed."""
    changes = {
        "no warm-up": {"warmup_steps": 0},
        "no clipping": {"max_grad_norm": float("inf")},
        "no weight decay": {"weight_decay": 0.0},
    }
    shape = replace(shape, dropout=0.1) if name == "dropout 0.1" else shape
    schedule = ConstantRate if name == "constant rate" else Schedule
    return train(replace(recipe, **changes.get(name, {})), shape, schedule=schedule)


def long_run(recipe: Recipe, shape: Shape, prompt: str) -> list[dict]:
    """One run: at each of SHARES of its steps the validation loss, and how it goes on from the prompt."""
    from transformers import GPT2LMHeadModel, set_seed

    found, points = [], [round(share * recipe.max_steps) for share in SHARES]

    def watch(step, model, tokenizer, loss):
        if step not in points:
            return
        plain = GPT2LMHeadModel(model.config)  # ours computes the loss and nothing else
        plain.load_state_dict(model.state_dict())
        plain.set_attn_implementation("sdpa")
        set_seed(0)
        ids = tokenizer(prompt, return_tensors="pt")
        drawn = plain.eval().generate(
            **ids, do_sample=True, top_k=40, min_new_tokens=60, max_new_tokens=60, pad_token_id=tokenizer.eos_token_id
        )
        written = tokenizer.decode(drawn[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        tokens = step * recipe.per_device_train_batch_size * shape.sequence_length
        found.append({"tokens": tokens, "loss": round(loss(), 4), "written": written})

    train(recipe, shape, at=watch)
    return found


def write(results: dict, path: Path) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    draft.replace(path)


def muon_runs(recipe: Recipe, shape: Shape, seeds: int, path: Path, results: dict) -> None:
    """For each seed the validation loss of AdamW, and that of Muon after a share of AdamW's steps."""
    steps = {"AdamW": recipe.max_steps, "Muon": round(MUON_SHARE * recipe.max_steps)}
    table = results.setdefault("muon", {"steps": steps, "losses": {name: [] for name in steps}})
    for seed, (name, optim) in product(range(seeds), {"AdamW": recipe.optim, "Muon": "muon"}.items()):
        if len(table["losses"][name]) <= seed:
            loss = train(replace(recipe, seed=seed, optim=optim, max_steps=steps[name]), shape)
            table["losses"][name].append(round(loss, 4))
            write(results, path)
            print(f"seed {seed}: {name} {loss:.4f}", flush=True)


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns all results, those computed before among them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["techniques", "muon", "long"])
    parser.add_argument("--steps", type=int, default=STEPS, help="of each technique's runs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--long-steps", type=int, default=LONG, help="of the long run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    os.environ["FINETUNING_PROFILE"] = "reduced"
    settings = load_profile().openwebtext
    recipe, shape = recipe_of(settings), shape_of(settings)
    short = replace(recipe, per_device_train_batch_size=BATCH, max_steps=args.steps)
    small = replace(shape, overrides=SMALL, sequence_length=LENGTH)
    results = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
    if args.only in (None, "techniques"):
        table = results.setdefault("techniques", {"steps": args.steps, "losses": {name: [] for name in TECHNIQUES}})
        if table["steps"] != args.steps:
            parser.error(f"{args.results} holds runs of {table['steps']} steps: remove it, or take --steps like them")
        for seed, name in product(range(args.seeds), TECHNIQUES):
            if len(table["losses"][name]) <= seed:
                table["losses"][name].append(round(technique(name, replace(short, seed=seed), small), 4))
                write(results, args.results)
                print(f"seed {seed}: {name} {table['losses'][name][-1]}", flush=True)
    if args.only in (None, "muon"):
        muon_runs(recipe, shape, args.seeds, args.results, results)
    if args.only in (None, "long") and "long" not in results:
        points = long_run(replace(recipe, max_steps=args.long_steps), shape, PROMPT)
        results["long"] = {"prompt": PROMPT, "points": points}
        write(results, args.results)
    return results


if __name__ == "__main__":
    main()
