"""The Gaussian scene as plain tensors with activated values, shared by every reader, writer and renderer."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError

SH_C0 = 0.28209479177387814
"""Degree-0 spherical harmonic: colour = 0.5 + SH_C0 * sh0."""


@dataclass(frozen=True)
class Gaussians:
    """N 3D Gaussians, with any leading batch axes.

    Attributes:
        means: Centres, model or world units. [..., N, 3]
        quats: Rotations wxyz, not necessarily unit length. [..., N, 4]
        scales: Standard deviations along the axes, linear, same unit as means. [..., N, 3]
        opacities: In [0, 1]. [..., N]
        sh0: Degree-0 spherical harmonic per colour channel. [..., N, 1, 3]
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh0: Tensor

    def __post_init__(self) -> None:
        lead = self.means.shape[:-1]
        expected = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh0": (1, 3)}
        for name, tail in expected.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (*lead, *tail):
                raise DataError(f"Gaussians.{name} has shape {shape}, expected {(*lead, *tail)}.")

    def __len__(self) -> int:
        return self.means.shape[-2]

    def __getitem__(self, index: int | slice | Tensor | None) -> "Gaussians":
        """Index the first axis of every tensor: a batch item, or Gaussians when there is no batch axis.

        None adds a batch axis.
        """
        return self._map(lambda tensor: tensor[index])

    @property
    def rgb(self) -> Tensor:
        """Colours, at least 0, not limited above (as the published renderer). [..., N, 3]"""
        return (0.5 + SH_C0 * self.sh0[..., 0, :]).clamp_min(0)

    @property
    def log_scales(self) -> Tensor:
        """Scales as stored in PLY files, finite also for a scale of 0. [..., N, 3]"""
        return self.scales.clamp_min(1e-12).log()

    @property
    def logit_opacities(self) -> Tensor:
        """Opacities as stored in PLY files. [..., N]"""
        return torch.logit(self.opacities.double(), eps=1e-12).to(self.opacities.dtype)

    def to(self, *args: object, **kwargs: object) -> "Gaussians":
        """Move or cast every tensor, as `Tensor.to`."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))  # type: ignore[call-overload]

    def detach(self) -> "Gaussians":
        """Cut every tensor from its graph."""
        return self._map(Tensor.detach)

    @classmethod
    def load_ply(cls, path: str | Path) -> "Gaussians":
        """Read a 3D Gaussian splatting PLY. See `gaussians.ply`."""
        from .ply import read_ply

        return read_ply(Path(path))

    def save_ply(self, path: str | Path) -> None:
        """Write the standard 3D Gaussian splatting PLY. See `gaussians.ply`."""
        from .ply import write_ply

        write_ply(Path(path), self)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Gaussians":
        return Gaussians(**{f.name: function(getattr(self, f.name)) for f in fields(self)})
