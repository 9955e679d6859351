"""What the processes of a run hold: written and read back as safetensors, a file for each process, and no pickle.

What Accelerate saves by itself is partly pickled, and reading it back runs what somebody put there: FSDP's `.metadata`,
DeepSpeed's states, whatever was registered. Here each process writes the tensors that it holds, of weights and
optimizers only its shards where these are shared out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from takehome.errors import InputError, one_line

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


@dataclass(frozen=True)
class Training:
    """What a checkpoint is made of: the model as `prepare` returned it, and the optimizers as they were before."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizers: list[torch.optim.Optimizer]

    @property
    def shared_out(self) -> bool:
        """Whether a process holds something that no other does."""
        return self.accelerator.distributed_type.value in ("FSDP", "DEEPSPEED")

    def parameters(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name; tied ones once."""
        model = self.accelerator.unwrap_model(self.model)
        model.state_dict()  # FSDP puts what it gathered back into shards
        return dict([*model.named_parameters(), *model.named_buffers()])

    def masters(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """The copies of the weights that DeepSpeed's optimizer works on."""
        if self.accelerator.distributed_type.value != "DEEPSPEED":
            return []
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def resting_bytes(training: Training) -> list[dict[str, int]]:
    """Bytes that each process holds between two steps, before the gradients are set to zero."""
    import torch

    def size(tensors) -> int:
        storages = (local(tensor).untyped_storage() for tensor in tensors if tensor is not None)
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    parameters, (optimizer,) = list(training.model.parameters()), training.optimizers
    states = [value for state in optimizer.state.values() for value in state.values() if hasattr(value, "nbytes")]
    masters = [p for group in optimizer.param_groups for p in group["params"]]  # DeepSpeed keeps copies of its own
    own = {
        "weights": size(parameters),
        "gradients": size([p.grad for p in parameters]),
        "optimizer": size([*states, *masters]) - size({id(p): p for p in masters if p in set(parameters)}.values()),
    }
    accelerator = training.accelerator
    found = accelerator.gather(torch.tensor([list(own.values())], device=accelerator.device))
    return [dict(zip(own, row, strict=True)) for row in found.tolist()]


# --- Writing -------------------------------------------------------------------------------------


def write_tensors(training: Training, folder: Path) -> None:
    """Writes what this process holds; of equal copies that of the main process is enough."""
    from safetensors.torch import save_file

    accelerator = training.accelerator
    held = random_states(accelerator.device)
    if accelerator.is_main_process or training.shared_out:
        held |= {f"model.{name}": local(tensor) for name, tensor in training.parameters().items()}
        for number, optimizer in enumerate(training.optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                held |= {f"optimizer.{number}.{index}.{name}": local(value) for name, value in values.items()}
            held |= {f"master.{number}.{index}": copy for index, copy in enumerate(training.masters(optimizer))}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in held.items()}
    save_file(held, folder / file_of(accelerator.process_index))


def file_of(process: int) -> str:
    return f"process-{process}.safetensors"


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random numbers that training draws from."""
    import torch

    states = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["random.mps"] = torch.mps.get_rng_state()
    return states


# --- Reading -------------------------------------------------------------------------------------


def unusable(path: Path, cause: object) -> InputError:
    return InputError(
        f"{path} is not what this program writes ({one_line(cause)}): remove {path.parent.name} to go on from the "
        "checkpoint before, or begin again with --overwrite"
    )


def read_tensors(training: Training, checkpoint: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    process = training.accelerator.process_index
    own = checkpoint / file_of(process)
    path = own if training.shared_out else checkpoint / file_of(0)
    try:
        found = load_file(path)
        numbers = found if path == own else load_file(own)
        put_back(training, found)
        set_random_states(training.accelerator.device, numbers)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as cause:
        raise unusable(path, cause) from cause


def put_back(training: Training, found: dict[str, torch.Tensor]) -> None:
    """Copies tensors of a checkpoint into the model and its optimizers."""
    import torch

    parameters = training.parameters()
    targets = {f"model.{name}": local(tensor) for name, tensor in parameters.items()}
    for number, optimizer in enumerate(training.optimizers):
        targets |= {f"master.{number}.{index}": copy for index, copy in enumerate(training.masters(optimizer))}
    saved = {name for name in found if name.startswith(("model.", "master."))}
    if wrong := sorted(saved ^ targets.keys()):
        raise ValueError(f"{len(wrong)} tensors are missing or unknown, as {wrong[0]}")
    with torch.no_grad():
        for name, target in targets.items():
            if (target.shape, target.dtype) != (found[name].shape, found[name].dtype):
                raise ValueError(f"{name} has another shape or type")
            target.copy_(found[name])
    for number, optimizer in enumerate(training.optimizers):
        optimizer.load_state_dict(optimizer_state(optimizer, f"optimizer.{number}.", found))


def optimizer_state(optimizer: torch.optim.Optimizer, prefix: str, found: dict[str, torch.Tensor]) -> dict:
    """The state dictionary of an optimizer: tensors of the checkpoint, and groups as the program has set them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in found.items():
        if name.startswith(prefix):
            index, _, key = name.removeprefix(prefix).partition(".")
            parameter = parameters[int(index)] if int(index) < len(parameters) else None
            if parameter is None or (value.dim() and value.shape != local(parameter).shape):
                raise ValueError(f"{name} fits no parameter")
            states.setdefault(int(index), {})[key] = shared_like(parameter, value) if value.dim() else value.clone()
    if len({frozenset(values) for values in states.values()}) > 1:
        raise ValueError("parts of the optimizer's state are missing")
    return {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}


def shared_like(parameter: torch.Tensor, shard: torch.Tensor) -> torch.Tensor:
    """A process's part of a tensor that is shared out as a parameter is; the part itself where it is not."""
    if not hasattr(parameter, "to_local"):
        return shard.clone()  # the file is only mapped
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        shard.clone().to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def set_random_states(device: torch.device, found: dict[str, torch.Tensor]) -> None:
    import torch

    torch.set_rng_state(found["random.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(found["random.cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(found["random.mps"])
