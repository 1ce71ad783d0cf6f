"""What reconstructs: the networks of one configuration, found, pinned and loaded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from ..errors import DependencyError
from ..gslrm import find_weights, load_gslrm
from ..gslrm.graphs import GraphedBlocks
from ..provenance import sha256
from .config import ReconstructionConfig
from .direct import INFERENCE_DTYPE, Direct
from .inputs import Views
from .results import Reconstruction


def choose_device(choice: str) -> torch.device:
    """Resolve `auto`, `cuda` or `cpu`.

    Raises:
        DependencyError: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise DependencyError("device=cuda, but PyTorch finds no CUDA device. Use device=auto or device=cpu.")
    return torch.device("cuda" if available and choice != "cpu" else "cpu")


@dataclass(frozen=True)
class Models:
    """What reconstructs.

    Attributes:
        reconstruct: From the views of some samples to the Gaussians of each.
        shown_size: Side at which it wants the views; None takes them as they are.
        size: Side at which its result is rendered and measured, likewise.
    """

    reconstruct: Callable[[Sequence[Views]], Iterator[Reconstruction]]
    shown_size: int | None
    size: int | None


@dataclass(frozen=True)
class Weights:
    """Files of one configuration's networks, the same from now on.

    Attributes:
        config: Names MVDiffusion's checkpoint instead of its run: a training might write a newer one.
        gslrm: GS-LRM's file.
    """

    config: ReconstructionConfig
    gslrm: Path

    @classmethod
    def find(cls, config: ReconstructionConfig) -> "Weights":
        """Look them up.

        Raises:
            CheckpointError: some are missing.
        """
        return cls(_pin_checkpoint(config), find_weights(config.gslrm))

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of weights, prompts and slots, by its resolved path."""
        return {str(path.resolve()): sha256(path) for path in (self.gslrm, *_trained_files(self.config))}


def load_models(weights: Weights, device: torch.device) -> Models:
    """Read the weights onto a device.

    Raises:
        CheckpointError: they cannot be used.
    """
    config, model = weights.config, load_gslrm(weights.gslrm, device)
    if device.type == "cuda":
        model.hold_weights(INFERENCE_DTYPE)
        model.graphs = GraphedBlocks()
    measured = config.image_size
    # Gaussians are as large as the pixels that the model has learned from.
    config = config.model_copy(update={"image_size": config.image_size or model.image_size})
    if config.mvdiffusion is None:
        return Models(partial(map, Direct(config, model)), config.image_size, measured)
    from .e2e import EndToEnd

    end_to_end = EndToEnd(config, model, device)
    return Models(end_to_end.together, end_to_end.image_size, measured or end_to_end.image_size)


def _pin_checkpoint(config: ReconstructionConfig) -> ReconstructionConfig:
    """Name MVDiffusion's checkpoint instead of its run: a training might write a newer one meanwhile."""
    if config.mvdiffusion is None:
        return config
    from ..mvdiffusion.folders import pin

    return config.model_copy(update={"mvdiffusion": pin(config.mvdiffusion)})


def _trained_files(config: ReconstructionConfig) -> list[Path]:
    """The files of MVDiffusion's trained parts."""
    if config.mvdiffusion is None:
        return []
    from ..mvdiffusion.folders import trained_files

    return trained_files(config.mvdiffusion)
