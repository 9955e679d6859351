"""What the page "Does it fit?" shows: `helpers.memory.estimate`, put into the words and numbers of the page.

The page runs this file and helpers/memory themselves, in Pyodide; the tests run it as it stands. Nothing heavy is
imported.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from helpers.flops import GPUS
from helpers.memory import KNOWN_MODELS, NOT_SEEN, estimate
from helpers.memory.report import COLOURS

HELD_BACK = 2e9  # bytes of a card that are left for what is not seen
MOST_ROWS = 4096  # of a batch that is looked for


@dataclass(frozen=True)
class Run:
    """What the dials say; each is a keyword of `estimate`, but for the card and the pasted config."""

    model: str = "gpt2"
    config: str = ""  # the text of a config.json, instead of a name
    card: str = "rtx-4090"
    task: str = "causal-lm"
    method: str = "full"
    precision: str = "bf16"
    optim: str = "adamw_torch_fused"
    attn_implementation: str = "sdpa"
    per_device_train_batch_size: int = 8
    sequence_length: int = 512
    num_gpus: int = 1
    sharding: str = "ddp"
    activation_checkpointing: bool = False
    padded: bool = False

    def estimate(self, **changes):
        """What `helpers.memory.estimate` says of this run, with some settings changed."""
        settings = asdict(self) | changes
        name, config, _ = (settings.pop(key) for key in ("model", "config", "card"))
        if settings["num_gpus"] == 1:
            settings["sharding"] = "ddp"
        return estimate(json.loads(config) if config.strip() else name, **settings)


@dataclass(frozen=True)
class Change:
    """One thing to change, the peak that it leads to in bytes, and whether that fits the card."""

    words: str
    peak: int
    fits: bool


@dataclass(frozen=True)
class Answer:
    """What one estimate says. All sizes in bytes."""

    title: str = ""
    peak: int = 0
    peak_instant: str = ""
    instants: dict[str, dict[str, int]] = field(default_factory=dict)
    cards: dict[str, bool] = field(default_factory=dict)  # which card it fits
    notes: list[str] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Advice:
    """What takes many estimates, so that the page asks for it after the bars have moved."""

    largest_batch: int  # rows, on the chosen card; 0 if not even one fits
    changes: list[Change]


def answer(run: Run) -> Answer:
    """The answer to what the dials say; nonsense is answered with the sentence of `estimate`."""
    try:
        found = run.estimate()
    except json.JSONDecodeError as error:
        return Answer(error=f"The pasted text is no config.json: {error}")
    except ValueError as error:
        return Answer(error=str(error))
    return Answer(
        title=found.title,
        peak=found.peak_bytes,
        peak_instant=found.peak_instant,
        instants=found.instants,
        cards={name: found.peak_bytes <= room_on(name) for name in GPUS},
        notes=list(found.notes),
    )


def advice(run: Run) -> Advice:
    """What fits the chosen card, and what to change first; for a run that `answer` finds no error in."""
    room = room_on(run.card)
    return Advice(largest_batch(run, room), changes(run, room))


def room_on(card: str) -> float:
    """Bytes of a card that a step may take."""
    return GPUS[card].memory * 1e9 - HELD_BACK


def largest_batch(run: Run, room: float) -> int:
    """The most rows a step that fit, by bisection: the peak grows with the rows."""

    def fits(rows: int) -> bool:
        return run.estimate(per_device_train_batch_size=rows).peak_bytes <= room

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= MOST_ROWS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return min(low, MOST_ROWS)


def changes(run: Run, room: float) -> list[Change]:
    """What can be changed, one at a time, in the order in which it costs least; what saves nothing is left out."""
    rows, full = run.per_device_train_batch_size, run.method == "full"
    tries = [
        ("compute in bf16, keep the weights in fp32", {"precision": "bf16"}, run.precision == "fp32"),
        (f"{rows // 2} rows at a time, twice the accumulation", {"per_device_train_batch_size": rows // 2}, rows > 1),
        ("checkpoint the activations (a third more computing)", {"activation_checkpointing": True}, True),
        ("AdamW in 8 bits", {"optim": "adamw_8bit"}, full),
        ("texts of half the length", {"sequence_length": max(1, run.sequence_length // 2)}, True),
        ("share everything among the GPUs (FSDP)", {"sharding": "fsdp"}, run.num_gpus > 1),
        ("LoRA: train adapters only", {"method": "lora"}, full),
        ("QLoRA: adapters, and the frozen weights in 4 bits", {"method": "qlora", "sharding": "ddp"}, True),
    ]
    found, now = [], run.estimate().peak_bytes
    for words, changed, possible in tries:
        try:
            peak = run.estimate(**changed).peak_bytes if possible else now
        except ValueError:  # this model has no such thing
            continue
        if peak < 0.97 * now:
            found.append(Change(words, peak, peak <= room))
    return found


def choices() -> dict:
    """What the dials offer, and the colours of the parts."""
    return {
        "models": list(KNOWN_MODELS),
        "cards": {name: card.memory for name, card in GPUS.items()},
        "colours": COLOURS,
        "held_back": HELD_BACK,
        "not_seen": NOT_SEEN,
        "start": asdict(Run()),
    }


def as_json(function, state: str) -> str:
    """For the page: the dials as JSON in, what `function` says of them as JSON out."""
    return json.dumps(asdict(function(Run(**json.loads(state)))))
