"""Which recipe needs fewer tokens: AdamW alone, or Muon for the matrices inside the blocks and AdamW for the rest?

    make benchmark BENCHMARK=recipes                       # the reduced profile, three seeds, ten minutes on two cores
    make benchmark BENCHMARK="recipes --seeds 5 --steps 600"

Learning rates come first: of each recipe the best of a few, in half the steps, on a seed that is not used again. Then,
for each seed, AdamW trains for all steps, and Muon for a share of them, with warm-up and cosine fitted to the shorter
run: the smallest share that still ends at AdamW's validation loss is what it needs. Both see the same documents in the
same order, and are built as scripts/pretrain_gpt2.py builds them. `tools/pretraining_experiments.py` does the same with
a smaller model.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from helpers.profiles import load_profile
from takehome.recipe import Recipe, Schedule, Shape, corpus_of, recipe_of, shape_of
from takehome.tokens import Position, TokenStream

SHARES = (0.7, 0.6, 0.5, 0.4, 0.3)  # of AdamW's steps
ADAMW_RATES, MUON_RATES = (1.5e-3, 3e-3, 6e-3, 12e-3), (0.01, 0.02, 0.04)
SEED_OF_THE_SEARCH = 100


class ConstantRate(Schedule):
    """Warm-up, and then the peak to the end."""

    def share(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0


def train(recipe: Recipe, shape: Shape, *, schedule: type[Schedule] = Schedule, at: Callable | None = None) -> float:
    """Trains one model on the profile's corpus and returns its validation loss in nats a token.

    Args:
        recipe: how.
        shape: of the model and of its blocks.
        schedule: of the learning rates.
        at: called before each step and after the last, with the number of steps done, the model, the tokenizer and a
            function that returns the validation loss.
    """
    import torch
    from transformers import set_seed

    from takehome.gpt2 import build_config, build_model, build_optimizers, load_tokenizer

    tokenizer = load_tokenizer(shape)
    corpus = replace(corpus_of(load_profile().openwebtext), seed=recipe.seed, validation_documents=50)
    stream = TokenStream(corpus, tokenizer)
    rows, length = recipe.per_device_train_batch_size, shape.sequence_length
    set_seed(recipe.seed)
    model = build_model(build_config(shape, tokenizer))
    optimizers = build_optimizers(recipe, model)
    rates, blocks = schedule(recipe, optimizers), stream.blocks(rows, length, Position())
    held_out = stream.validation_blocks(length)

    @torch.no_grad()
    def loss() -> float:
        model.eval()
        total = sum(model(part).item() * len(part) for part in held_out.split(rows))
        model.train()
        return total / len(held_out)

    model.train()
    for step in range(recipe.max_steps):
        if at:
            at(step, model, tokenizer, loss)
        rates.set(step)
        model(next(blocks)[0]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    if at:
        at(recipe.max_steps, model, tokenizer, loss)
    return loss()


def search_rates(recipe: Recipe, shape: Shape) -> tuple[float, float]:
    """The learning rate of AdamW and that of Muon (beside AdamW at its own) with the lowest validation loss."""
    recipe = replace(recipe, seed=SEED_OF_THE_SEARCH)
    adamw = {rate: train(replace(recipe, learning_rate=rate), shape) for rate in ADAMW_RATES}
    best = min(adamw, key=adamw.get)
    recipe = replace(recipe, learning_rate=best, optim="muon")
    muon = {rate: train(replace(recipe, muon_learning_rate=rate), shape) for rate in MUON_RATES}
    for name, losses in {"AdamW": adamw, "Muon": muon}.items():
        print(f"{name:6}", *(f"{rate:g}: {loss:.3f}  " for rate, loss in losses.items()), flush=True)
    return best, min(muon, key=muon.get)


def share_needed(recipe: Recipe, shape: Shape) -> float | None:
    """The smallest of SHARES of AdamW's steps after which Muon has reached AdamW's loss; None if no share is enough."""
    target, needed = train(recipe, shape), None
    print(f"seed {recipe.seed}: AdamW {target:.3f}; Muon", end="")
    for share in SHARES:
        loss = train(replace(recipe, optim="muon", max_steps=round(share * recipe.max_steps)), shape)
        print(f"  {share:.0%}: {loss:.3f}", end="", flush=True)
        if loss > target:
            break
        needed = share
    print()
    return needed


def compare(recipe: Recipe, shape: Shape, seeds: int) -> dict:
    """The best rates, and the share of AdamW's steps that Muon needs with each seed."""
    rates = search_rates(replace(recipe, max_steps=recipe.max_steps // 2), shape)
    print(f"learning rates: AdamW {rates[0]:g}, Muon {rates[1]:g}", flush=True)
    recipe = replace(recipe, learning_rate=rates[0], muon_learning_rate=rates[1])
    shares = [share_needed(replace(recipe, seed=seed), shape) for seed in range(seeds)]
    if None not in shares:
        print(f"Muon needs {fmean(shares):.0%} of AdamW's tokens (seeds: {', '.join(f'{s:.0%}' for s in shares)})")
    return {"steps": recipe.max_steps, "learning_rate": rates[0], "muon_learning_rate": rates[1], "shares": shares}


def main(arguments: list[str] | None = None) -> list[float | None]:
    """Runs the command line; returns the share that each seed needs."""
    settings = load_profile().openwebtext
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=settings.max_steps)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(arguments)
    return compare(replace(recipe_of(settings), max_steps=args.steps), shape_of(settings), args.seeds)["shares"]


if __name__ == "__main__":
    main()
