"""How long training takes: the arithmetic of a step, predicted seconds, GPU-hours and cost.

A step costs 6 FLOPs for each weight of a matrix and each token: two in the forward pass (a multiplication and an
addition), four in the backward pass (the gradients of the inputs and of the weights). Attention adds its products of
every token with every other, in which no weight takes part. What a machine really reaches turns FLOPs into seconds:

    seconds = FLOPs / (number of GPUs x peak FLOP/s x utilization)

Utilization is the share of the peak that a run reaches ("MFU"). It is the one number that must be assumed or measured:
30 to 60 % is good on data centre GPUs, and small models or batches reach far less.

    flops = training_flops(123_532_032, tokens=500_000_000, num_hidden_layers=12, hidden_size=768, sequence_length=1024)
    print(predict_time(flops, GPUS["a100"].half, utilization=0.4, num_gpus=4, price_per_gpu_hour=2.0))
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """Peak dense FLOP/s of one GPU (no sparsity), its memory in GB, and where the numbers are from.

    `half` is bf16 or fp16 with fp32 accumulation, on the matrix units; `fp32` is plain fp32, which PyTorch uses unless
    `torch.set_float32_matmul_precision("high")` allows TF32.
    """

    half: float
    fp32: float
    memory: int
    source: str


GPUS = {
    "t4": GPU(65e12, 8.1e12, 16, "NVIDIA T4 data sheet (fp16; it has no bf16)"),
    "v100": GPU(125e12, 15.7e12, 32, "NVIDIA V100 data sheet, SXM2 (fp16; it has no bf16)"),
    "rtx-3090": GPU(71e12, 35.6e12, 24, "NVIDIA Ampere GA102 white paper, table 3: fp16 with fp32 accumulation"),
    "rtx-4090": GPU(165.2e12, 82.6e12, 24, "NVIDIA Ada white paper, appendix A: fp16 with fp32 accumulation"),
    "l4": GPU(121e12, 30.3e12, 24, "NVIDIA L4 data sheet; half of the 242 that it gives with sparsity"),
    "a100": GPU(312e12, 19.5e12, 80, "NVIDIA A100 data sheet, 80 GB SXM"),
    "h100": GPU(989e12, 67e12, 80, "NVIDIA H100 data sheet, SXM; half of the 1,979 that it gives with sparsity"),
    "h200": GPU(989e12, 67e12, 141, "NVIDIA H200 data sheet, SXM; half of the 1,979 that it gives with sparsity"),
}


def training_flops(
    matmul_parameters: int,
    tokens: int,
    *,
    num_hidden_layers: int,
    hidden_size: int,
    sequence_length: int,
    activation_checkpointing: bool = False,
) -> float:
    """FLOPs of training on `tokens` tokens: 6 a weight and token, and 12 x layers x width x length a token.

    Source: Kaplan et al. 2020 (arXiv:2001.08361), section 2.1, and Chowdhery et al. 2022 (arXiv:2204.02311), appendix
    B, which counts the full square of attention also where a causal kernel skips half.

    Args:
        matmul_parameters: weights that multiply, see `helpers.memory.Architecture.matmul_parameters`: not an embedding
            table, unless it is the output head as well.
        tokens: tokens trained on, padding included; of one step: batch size x sequence length.
        num_hidden_layers, hidden_size: of the model.
        sequence_length: tokens that attend to each other.
        activation_checkpointing: one more forward pass.

    Raises:
        ValueError: a number is not positive.
    """
    numbers = dict(matmul_parameters=matmul_parameters, tokens=tokens, num_hidden_layers=num_hidden_layers)
    numbers |= dict(hidden_size=hidden_size, sequence_length=sequence_length)
    for name, number in numbers.items():
        if number <= 0:
            raise ValueError(f"{name} must be positive, got {number!r}")
    forward = tokens * (2 * matmul_parameters + 4 * num_hidden_layers * hidden_size * sequence_length)
    return forward * (4 if activation_checkpointing else 3)


@dataclass(frozen=True)
class TrainingTime:
    """Predicted duration of a run. `cost` is in the currency of the price, None without one."""

    flops: float
    seconds: float
    num_gpus: int
    cost: float | None

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.num_gpus / 3600

    def __str__(self) -> str:
        units = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1, "milliseconds": 0.001}
        unit = next((unit for unit, size in units.items() if self.seconds >= size), "milliseconds")
        text = f"{self.flops:.2e} FLOPs: {self.seconds / units[unit]:.1f} {unit}, {self.gpu_hours:.3g} GPU-hours"
        return text + (f", cost {self.cost:,.2f}" if self.cost is not None else "")


def predict_time(
    flops: float,
    flops_per_second: float,
    *,
    utilization: float = 1.0,
    num_gpus: int = 1,
    price_per_gpu_hour: float | None = None,
) -> TrainingTime:
    """Seconds, GPU-hours and cost of so many FLOPs.

    Args:
        flops: see `training_flops`.
        flops_per_second: a GPU's peak from `GPUS`, with the `utilization` you expect; or what `calibrate` measured.
        utilization: share of that rate which training reaches, above 0 and at most 1.
        num_gpus: GPUs that share the work; perfect scaling is assumed.
        price_per_gpu_hour: what one GPU costs for an hour.

    Raises:
        ValueError: a rate or number is not positive, or utilization is not a share.
    """
    if not 0 < utilization <= 1:
        raise ValueError(f"utilization is a share above 0 and at most 1, got {utilization!r}")
    if flops <= 0 or flops_per_second <= 0 or num_gpus < 1:
        raise ValueError(f"flops, flops_per_second, num_gpus must be positive: {flops}, {flops_per_second}, {num_gpus}")
    seconds = flops / (flops_per_second * utilization * num_gpus)
    cost = None if price_per_gpu_hour is None else seconds * num_gpus / 3600 * price_per_gpu_hour
    return TrainingTime(flops, seconds, num_gpus, cost)


def calibrate(
    width: int = 512, tokens: int = 512, precision: str = "fp32", seconds: float = 0.5, device: str | None = None
) -> float:
    """FLOP/s that this machine reaches on a model-like piece of work: the measured side of a prediction.

    Trains a small stack of linear layers and GELUs for about `seconds` and counts 6 FLOPs a weight and token. The
    closer `width` and `tokens` (batch size x sequence length) are to your model's, the better the prediction.

    Args:
        width: of the layers; take the model's hidden_size.
        tokens: rows of the matrix that is multiplied.
        precision: "fp32" or "bf16" (autocast).
        seconds: how long to measure; the fastest step counts, so a busy moment does no harm.
        device: "cuda", "mps" or "cpu"; by default the GPU if there is one.

    Raises:
        ValueError: the precision is unknown.
    """
    import time

    import torch

    from helpers.machine import device_kind

    if precision not in ("fp32", "bf16"):
        raise ValueError(f"unknown precision {precision!r}; choose from fp32, bf16")
    device = device or device_kind()
    layers = [torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)] * 2
    model = torch.nn.Sequential(torch.nn.Linear(width, width), *layers).to(device)
    rows = torch.randn(tokens, width, device=device)

    def step():
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(rows).square().mean()
        loss.backward()
        return loss.item()  # waits for the GPU

    step()
    flops = tokens * 6 * (width * width + 2 * 8 * width * width)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - start)
    return flops / fastest


@dataclass(frozen=True)
class PublishedRun:
    """A training time that someone published; `utilization` is what it would take to be true."""

    name: str
    flops: float
    gpu: str
    num_gpus: int
    hours: float
    precision: str
    source: str

    @property
    def utilization(self) -> float:
        return self.flops / (self.hours * 3600 * self.num_gpus * getattr(GPUS[self.gpu], self.precision))

    @property
    def remark(self) -> str:
        if self.utilization > 0.7:
            return "too fast: no run reaches that share of the peak"
        if self.utilization < 0.15:
            return "slow: another precision, idle GPUs, or more passes over the text than it says"
        return "plausible"


def _gpt2(tokens: float, parameters: int = 123_532_032, layers: int = 12, width: int = 768) -> float:
    """By default GPT-2 small; the weights that multiply are those of its blocks' matrices and of the output head."""
    return training_flops(parameters, tokens, num_hidden_layers=layers, hidden_size=width, sequence_length=1024)


def _llama(parameters: int, tokens: float, length: int) -> float:
    return training_flops(parameters, tokens, num_hidden_layers=32, hidden_size=4096, sequence_length=length)


# OpenWebText has 9.04e9 GPT-2 tokens (nanoGPT, data/openwebtext/readme.md).
PUBLISHED_RUNS = (
    PublishedRun("GPT-2 124M, 10 % of OpenWebText, once", _gpt2(0.904e9), "v100", 4, 12, "half",
                 "guides: about 12 hours on 4 V100"),
    PublishedRun("the same, in fp32", _gpt2(0.904e9), "v100", 4, 12, "fp32", "guides: about 12 hours on 4 V100"),
    PublishedRun("GPT-2 medium, 50 % of OpenWebText, once", _gpt2(4.52e9, 353_453_056, 24, 1024), "a100", 8, 48, "half",
                 "guides: about 48 hours on 8 A100"),
    PublishedRun("GPT-2 large, all of OpenWebText, once", _gpt2(9.04e9, 772_117_760, 36, 1280), "a100", 16, 120, "half",
                 "guides: about 120 hours on 16 A100"),
    PublishedRun("GPT-2 124M, 600,000 steps of 491,520 tokens", _gpt2(600_000 * 491_520), "a100", 8, 96, "half",
                 "nanoGPT README: about 4 days on 8 A100 40GB"),
    PublishedRun("LLaMA 7B, 1e12 tokens", _llama(6_607_077_376, 1e12, 2048), "a100", 1, 82_432, "half",
                 "arXiv:2302.13971, table 15: 82,432 GPU-hours on A100 80GB"),
    PublishedRun("Llama 2 7B, 2e12 tokens", _llama(6_607_077_376, 2e12, 4096), "a100", 1, 184_320, "half",
                 "arXiv:2307.09288, table 2: 184,320 GPU-hours on A100 80GB"),
)  # fmt: skip
