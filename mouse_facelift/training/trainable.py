"""What a run trains, apart from what it leaves frozen: frozen parameters belong to the run's start.

They are neither written into every checkpoint nor averaged; their hash makes sure that a resumed run starts
from the same ones.
"""

import hashlib

import torch
from torch import Tensor, nn

from ..errors import CheckpointError


def frozen_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters without a gradient, by name."""
    everything = module.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in everything if not parameter.requires_grad}


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state dict without its frozen parameters, contiguous."""
    frozen = frozen_parameters(module)
    state = module.state_dict().items()
    return {name: tensor.detach().contiguous() for name, tensor in state if name not in frozen}


def load_trained_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Restore what `trained_state` gave.

    Raises:
        CheckpointError: the state is not of the parameters that this module trains.
    """
    outcome = module.load_state_dict(state, strict=False)
    faults = [f"missing {name}" for name in outcome.missing_keys if name not in frozen_parameters(module)]
    faults += [f"unexpected {name}" for name in outcome.unexpected_keys]
    if faults:
        raise CheckpointError(f"the state to resume does not fit the model: {'; '.join(faults)}.")


def share_frozen(module: nn.Module, copy: nn.Module) -> None:
    """Let a copy of a module use the very same frozen parameters, so that they take no memory twice."""
    frozen = frozen_parameters(module)
    for name, parameter in copy.named_parameters(remove_duplicate=False):
        if name in frozen:
            parameter.data = frozen[name].data


def frozen_hash(module: nn.Module) -> str | None:
    """SHA-256 of the frozen parameters' bytes; None if all parameters are trained."""
    frozen = frozen_parameters(module)
    if not frozen:
        return None
    digest = hashlib.sha256()
    for name in sorted(frozen):
        digest.update(name.encode())
        digest.update(frozen[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
