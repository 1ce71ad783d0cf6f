"""`training.fsdp`: parameters, gradients, averages and optimizer spread over all processes of a run.

FSDP2 (`torch.distributed.fsdp.fully_shard`) keeps parameters in fp32 and leaves half precision to autocast,
so that a sharded training computes what an unsharded one does. Checkpoints hold whole tensors: they do not
tell whether, or over how many processes, a run was sharded.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ..errors import ConfigError
from .config import OptimizerConfig, TrainingConfig
from .schedule import Tensors

UNIT = (1_000_000, 100_000_000)
"""Parameters that are gathered at a time, about: least and most."""


def wants_sharding(training: TrainingConfig) -> bool:
    """Whether parameters shall be spread: `training.fsdp`, or what accelerate's launcher was told."""
    return training.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")


def check_sharding(training: TrainingConfig, optimizer: OptimizerConfig) -> None:
    """Refuse what does not go together with sharding.

    Raises:
        ConfigError: fp16, whose scaler, or 8-bit momenta, whose blocks, take parameters for whole tensors.
    """
    if not wants_sharding(training):
        return
    if training.precision == "fp16":
        raise ConfigError("training.fsdp does not go with training.precision=fp16. Set it to bf16.")
    if optimizer.kind != "adamw":
        raise ConfigError(
            f"training.fsdp does not go with optimizer.kind={optimizer.kind}. Set optimizer.kind=adamw; its "
            "momenta are spread over the GPUs too."
        )


def shard(module: nn.Module, accelerator: Accelerator) -> nn.Module | None:
    """Spread a module's parameters over all processes, in place; each block is gathered when it computes.

    All processes begin from the first one's numbers. As accelerate does for others, what the module returns
    under autocast is made fp32.

    Args:
        module: On the device; its parameters become DTensors.
        accelerator: Of the run.

    Returns:
        A whole copy on the CPU in the first process, for `TrainState`.
    """
    if accelerator.mixed_precision != "no":
        module.register_forward_hook(_outputs_in_fp32)
    for tensor in (*module.parameters(), *module.buffers()):
        broadcast(tensor.detach(), src=0)
    twin = copy.deepcopy(module).cpu() if accelerator.is_main_process else None
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in blocks(module, *UNIT):
        fully_shard(block, mesh=mesh)
    # What belongs to no block stays gathered from forward to backward. Torch warns of outputs that are views:
    # changed in place, they would have nobody gather it again.
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module \(FSDP\w+\) returned a view tensor")
    return twin


def _outputs_in_fp32(module: nn.Module, arguments: Any, outputs: Any) -> Any:
    return convert_to_fp32(outputs)


def blocks(module: nn.Module, least: int, most: int) -> Iterator[nn.Module]:
    """Members of module lists that are worth gathering by themselves, inner ones before outer ones.

    Args:
        module: Whose.
        least: Parameters; smaller members go with what contains them.
        most: Parameters; larger members are divided further.
    """
    for child in module.children():
        size = sum(parameter.numel() for parameter in child.parameters())
        member = isinstance(module, nn.ModuleList) and size >= least
        if not member or size > most:
            yield from blocks(child, least, most)
        if member:
            yield child


@contextlib.contextmanager
def unsynchronized(module: nn.Module) -> Iterator[None]:
    """Keep gradients to this process for the duration of a block, as before the last of several passes."""
    sharded = cast(FSDPModule, module)
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts, on its device; all processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all processes have, spread as another one is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def spread_optimizer(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's whole state dict, its tensors spread as the optimizer's parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {}
    for number, entry in state["state"].items():
        parameter = parameters[number]
        entries[number] = {
            name: spread(value, parameter) if _is_like(value, parameter) else value
            for name, value in entry.items()
        }
    return {**state, "state": entries}


def whole_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """The state dict with whole tensors; of a sharded one, on the CPU. All processes take part."""
    state = optimizer.state_dict()
    entries = {number: whole_tensors(entry) for number, entry in state["state"].items()}
    return {**state, "state": entries}


def whole_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Spread tensors made whole, on the CPU; others, and what is no tensor, as they are."""
    return {name: whole(v).cpu() if isinstance(v, DTensor) else v for name, v in tensors.items()}


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


class ShardedAverage:
    """The running average of a sharded module's trained parameters: each process averages its part.

    Args:
        module: Sharded.
        rule: As for torch's AveragedModel, see `schedule.averaging`.
    """

    def __init__(self, module: nn.Module, rule: Callable[[Tensors, Tensors, int], None]) -> None:
        self._rule = rule
        self.n_averaged = 0
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.values = {name: parameter.detach().clone() for name, parameter in trained.items()}

    @torch.no_grad()
    def load(self, whole_values: Mapping[str, Tensor], n_averaged: int) -> None:
        """Set the average, which is whole, and how many updates it is of."""
        for name, value in self.values.items():
            value.copy_(spread(whole_values[name], value))
        self.n_averaged = n_averaged

    @torch.no_grad()
    def update_parameters(self, module: nn.Module) -> None:
        """Take in the module's parameters of now."""
        parameters = dict(module.named_parameters())
        pairs = [(local(value), local(parameters[name])) for name, value in self.values.items()]
        averaged, current = (list(side) for side in zip(*pairs, strict=True))
        if self.n_averaged == 0:
            torch._foreach_copy_(averaged, current)
        else:
            self._rule(averaged, current, self.n_averaged)
        self.n_averaged += 1
