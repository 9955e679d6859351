"""Accelerate as its launcher asks for it, on the device that one question decides, and what its processes agree on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from helpers.machine import device_kind
from takehome.commandline import StopSignals
from takehome.errors import InputError, one_line

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

Result = TypeVar("Result")


def make_accelerator(use_cpu: bool, **settings) -> Accelerator:
    """Accelerate on the devices that this process was launched for; alone or under torchrun, one process or DDP.

    Accelerate 1.15 shards on GPUs only: on a CPU it reads an FSDP file and runs DDP without a word. Here a rehearsal
    on the CPU is what the file says.

    Args:
        use_cpu: what the profile or the user says.
        settings: for Accelerator.

    Raises:
        InputError: the processes that were launched do not see each other, or their launch file cannot be used.
    """
    import torch
    from accelerate import Accelerator, DistributedType
    from accelerate.state import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin, InitProcessGroupKwargs

    cpu = device_kind(use_cpu) == "cpu"
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
    # Without gloo, DeepSpeed's processes on a CPU would each think that it is alone.
    handlers = [InitProcessGroupKwargs(backend="gloo")] if cpu and deepspeed else None
    accelerator = Accelerator(cpu=cpu and not deepspeed, kwargs_handlers=handlers, **settings)
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" and cpu:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        for state in (PartialState(), accelerator.state):
            state.distributed_type = DistributedType.FSDP
    asked = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != asked:
        raise InputError(f"{asked} processes were launched and do not see each other")
    if deepspeed and accelerator.mixed_precision == "fp16":  # its loss scale would be no part of a checkpoint
        raise InputError("mixed_precision fp16 is not for DeepSpeed here: take bf16 or no")
    if cpu and asked > 1:  # with more threads than cores they mostly wait for each other
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", asked))))
    return accelerator


def kind_of(accelerator: Accelerator) -> str:
    """How the processes share the work, in the usual word."""
    if accelerator.num_processes == 1:
        return "alone"
    return {"FSDP": "FSDP2", "DEEPSPEED": "DeepSpeed ZeRO"}.get(accelerator.distributed_type.value, "DDP")


def gather_by_layer(accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Lets FSDP gather this model a layer at a time, whatever model's layers the launch file names."""
    if accelerator.distributed_type == "FSDP":
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(model)


def layer_classes(model: torch.nn.Module) -> list[str]:
    """The names of the classes of the model's layers."""
    import torch

    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return sorted({type(layer).__name__ for stack in stacks for layer in stack})


def on_main(accelerator: Accelerator, function: Callable[..., Result], *arguments) -> Result:
    """Calls a function in the main process; every process gets what it returns.

    Raises:
        InputError: in every process, if it raised that, an OSError, or an error of safetensors.
    """
    from accelerate.utils import broadcast_object_list
    from safetensors import SafetensorError

    result, failed = None, None
    if accelerator.is_main_process:
        try:
            result = function(*arguments)
        except (InputError, OSError, SafetensorError) as error:
            failed = one_line(error, 2000)
    result, failed = broadcast_object_list([result, failed])
    if failed is not None:
        raise InputError(failed)
    return result


def in_each(accelerator: Accelerator, function: Callable[..., None], *arguments) -> None:
    """Calls a function in every process, and waits for all.

    Raises:
        InputError: in every process, if one of them raised that, an OSError, or an error of safetensors.
    """
    from accelerate.utils import gather_object
    from safetensors import SafetensorError

    failed = ""
    try:
        function(*arguments)
    except (InputError, OSError, SafetensorError) as error:
        failed = one_line(error, 2000)
    if found := [line for line in gather_object([failed]) if line]:
        raise InputError(found[0])


class SharedStop:
    """Whether a signal asked any of the processes to stop. All know it after the same step, one step later than the
    process that was asked, so that no device is waited for."""

    def __init__(self, accelerator: Accelerator, signals: StopSignals):
        self.accelerator, self.signals, self.told = accelerator, signals, None

    def after_step(self) -> int:
        """The signal to stop for, or 0; every process calls it once a step."""
        if self.accelerator.num_processes == 1:
            return self.signals.asked
        import torch
        from torch import distributed

        before, self.told = self.told, torch.tensor(self.signals.asked, device=self.accelerator.device)
        distributed.all_reduce(self.told, op=distributed.ReduceOp.MAX)
        return 0 if before is None else int(before)
