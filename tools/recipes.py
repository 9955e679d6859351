"""Which recipe needs fewer tokens: AdamW alone, or Muon for the matrices inside the blocks and AdamW for the rest?

    make benchmark BENCHMARK=recipes                       # the reduced profile, three seeds, ten minutes on two cores
    make benchmark BENCHMARK="recipes --seeds 5 --steps 600"

Learning rates come first: of each recipe the best of a few, in half the steps, on a seed that is not used again. Then,
for each seed, AdamW trains for all steps, and Muon for a share of them, with warm-up and cosine fitted to the shorter
run: the smallest share that still ends at AdamW's validation loss is what it needs. Both see the same documents in the
same order, and are built as scripts/pretrain_gpt2.py builds them.
"""

import argparse
from dataclasses import replace
from statistics import fmean

from helpers.profiles import load_profile
from takehome.recipe import Schedule, corpus_of, recipe_of, shape_of
from takehome.tokens import Position, TokenStream

SHARES = (0.7, 0.6, 0.5, 0.4, 0.3)  # of AdamW's steps
ADAMW_RATES, MUON_RATES = (1.5e-3, 3e-3, 6e-3, 12e-3), (0.01, 0.02, 0.04)
SEED_OF_THE_SEARCH = 100


def final_loss(**changes) -> float:
    """Trains one model and returns its validation loss in nats a token; `changes` are of the profile's `Recipe`."""
    import torch
    from transformers import set_seed

    from takehome.gpt2 import build_config, build_model, build_optimizers, load_tokenizer

    settings = load_profile().openwebtext
    corpus, shape, recipe = corpus_of(settings), shape_of(settings), replace(recipe_of(settings), **changes)
    tokenizer = load_tokenizer(shape)
    stream = TokenStream(replace(corpus, seed=recipe.seed), tokenizer)
    rows, length = recipe.per_device_train_batch_size, shape.sequence_length
    set_seed(recipe.seed)
    model = build_model(build_config(shape, tokenizer))
    optimizers = build_optimizers(recipe, model)
    schedule, blocks = Schedule(recipe, optimizers), stream.blocks(rows, length, Position())
    for step in range(recipe.max_steps):
        schedule.set(step)
        model(next(blocks)[0]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        parts = stream.validation_blocks(length).split(rows)
        return sum(model(part).item() * len(part) for part in parts) / sum(map(len, parts))


def search_rates(steps: int) -> tuple[float, float]:
    """The learning rate of AdamW and that of Muon (beside AdamW at its own) with the lowest validation loss."""
    common = dict(max_steps=steps, seed=SEED_OF_THE_SEARCH)
    adamw = {rate: final_loss(**common, learning_rate=rate) for rate in ADAMW_RATES}
    best = min(adamw, key=adamw.get)
    muon = {
        rate: final_loss(**common, learning_rate=best, optim="muon", muon_learning_rate=rate) for rate in MUON_RATES
    }
    for name, losses in {"AdamW": adamw, "Muon": muon}.items():
        print(f"{name:6}", *(f"{rate:g}: {loss:.3f}  " for rate, loss in losses.items()), flush=True)
    return best, min(muon, key=muon.get)


def share_needed(steps: int, seed: int, learning_rate: float, muon_learning_rate: float) -> float | None:
    """The smallest of SHARES of AdamW's steps after which Muon has reached AdamW's loss; None if no share is enough."""
    common = dict(seed=seed, learning_rate=learning_rate)
    target, needed = final_loss(max_steps=steps, **common), None
    print(f"seed {seed}: AdamW {target:.3f}; Muon", end="")
    muon = dict(optim="muon", muon_learning_rate=muon_learning_rate)
    for share in SHARES:
        loss = final_loss(max_steps=round(share * steps), **common, **muon)
        print(f"  {share:.0%}: {loss:.3f}", end="", flush=True)
        if loss > target:
            break
        needed = share
    print()
    return needed


def main(arguments: list[str] | None = None) -> list[float | None]:
    """Runs the command line; returns the share that each seed needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=load_profile().openwebtext.max_steps)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(arguments)
    rates = search_rates(args.steps // 2)
    print(f"learning rates: AdamW {rates[0]:g}, Muon {rates[1]:g}", flush=True)
    shares = [share_needed(args.steps, seed, *rates) for seed in range(args.seeds)]
    if None not in shares:
        print(f"Muon needs {fmean(shares):.0%} of AdamW's tokens (seeds: {', '.join(f'{s:.0%}' for s in shares)})")
    return shares


if __name__ == "__main__":
    main()
