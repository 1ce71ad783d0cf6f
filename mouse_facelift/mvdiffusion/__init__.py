"""Multi-view diffusion: one picture of the animal in, V views around it out."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .pipeline import MVDiffusionPipeline
    from .slots import Slots
    from .unet import MultiViewUNet

__all__ = ["MVDiffusionPipeline", "MultiViewUNet", "Slots"]

__getattr__ = lazy_exports(
    __name__, {"MVDiffusionPipeline": "pipeline", "MultiViewUNet": "unet", "Slots": "slots"}
)
