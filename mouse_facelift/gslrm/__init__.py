"""GS-LRM: a transformer from posed views to 3D Gaussians, its weights and its training."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ..geometry.rays import CameraBatch
    from .config import GSLRMConfig, TrainGSLRMConfig
    from .model import GSLRM
    from .weights import find_weights, load_gslrm, save_gslrm

__all__ = [
    "GSLRM",
    "CameraBatch",
    "GSLRMConfig",
    "TrainGSLRMConfig",
    "find_weights",
    "load_gslrm",
    "save_gslrm",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "CameraBatch": "model",
        "GSLRM": "model",
        "GSLRMConfig": "config",
        "TrainGSLRMConfig": "config",
        "find_weights": "weights",
        "load_gslrm": "weights",
        "save_gslrm": "weights",
    },
)
