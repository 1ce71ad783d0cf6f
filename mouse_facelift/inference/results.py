"""One sample's result: as the models leave it on the device, and as files are made of it in main memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..gaussians import Gaussians
from ..gaussians.filters import FilterReport
from .refine import Refinement


@dataclass(frozen=True)
class Reconstruction:
    """One sample's result.

    Attributes:
        gaussians: Filtered, model units, on the computing device.
        report: What the filters cut.
        shown_ids: Camera ids of the real views that were given to a model.
        generated: MVDiffusion's views on their background, in slot order (mode e2e). [V, 3, S, S]
        generated_ids: Their camera ids.
        unfiltered: What the filters were given; None where nobody wants to know.
        refinement: What fitting to the shown views did.
    """

    gaussians: Gaussians
    report: FilterReport
    shown_ids: tuple[int, ...]
    generated: Tensor | None = None
    generated_ids: tuple[int, ...] = ()
    unfiltered: Gaussians | None = None
    refinement: Refinement | None = None


@dataclass(frozen=True)
class Results:
    """What is written of one sample, in main memory.

    Attributes:
        gaussians: Model units.
        stored: The same in the frame of the PLY.
        pictures: By their files' names: RGB [H, W, 3], or grey of 8 or 16 bits [H, W].
        turntable: Frames of the video; empty for none. Where they hold more than `parallel.MAX_BYTES`, they
            are drawn on the device when they are asked for, once. [H, W, 3] each
        turntable_nbytes: What they hold together.
        metrics: JSON-ready.
    """

    gaussians: Gaussians
    stored: Gaussians
    pictures: Mapping[str, NDArray[np.uint8] | NDArray[np.uint16]]
    turntable: Iterable[NDArray[np.uint8]]
    turntable_nbytes: int
    metrics: Mapping[str, Any]

    @property
    def means(self) -> dict[str, float]:
        """Mean metrics by role, such as `held_out/iou`; empty where there are no real views with cameras."""
        return dict(self.metrics["mean"])

    @property
    def filter_cost_db(self) -> float | None:
        """See `filter_cost.filter_cost_db`; None where not measured."""
        cost: float | None = self.metrics["filter"]["psnr_cost_db"]
        return cost

    @property
    def nbytes(self) -> int:
        """Of the pictures, which are most of it."""
        return self.turntable_nbytes + sum(picture.nbytes for picture in self.pictures.values())
