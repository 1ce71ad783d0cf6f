"""The Gaussian scene as plain tensors with activated values, shared by every reader, writer and renderer."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from .harmonics import SH_C0, sh_degree


@dataclass(frozen=True)
class Gaussians:
    """N 3D Gaussians, with any leading batch axes.

    Attributes:
        means: Centres, model or world units. [..., N, 3]
        quats: Rotations wxyz, not necessarily unit length. [..., N, 4]
        scales: Standard deviations along the axes, linear, same unit as means. [..., N, 3]
        opacities: In [0, 1]. [..., N]
        sh0: Degree-0 spherical harmonic per colour channel. [..., N, 1, 3]
        sh_rest: The higher ones, which make the colour depend on the direction of view, 3, 8 or 15 of them;
            None with degree 0. [..., N, S - 1, 3]
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh0: Tensor
    sh_rest: Tensor | None = None

    def __post_init__(self) -> None:
        lead = self.means.shape[:-1]
        expected = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh0": (1, 3)}
        for name, tail in expected.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (*lead, *tail):
                raise DataError(f"Gaussians.{name} has shape {shape}, expected {(*lead, *tail)}.")
        if self.sh_rest is not None:
            shape = tuple(self.sh_rest.shape)
            if len(shape) < 2 or shape != (*lead, shape[-2], 3) or shape[-2] not in (3, 8, 15):
                raise DataError(
                    f"Gaussians.sh_rest has shape {shape}, expected {lead} followed by (3, 3), (8, 3) or "
                    "(15, 3)."
                )

    def __len__(self) -> int:
        return self.means.shape[-2]

    def __getitem__(self, index: int | slice | Tensor | None) -> "Gaussians":
        """Index the first axis of every tensor: a batch item, or Gaussians when there is no batch axis.

        None adds a batch axis.
        """
        return self._map(lambda tensor: tensor[index])

    @property
    def sh_degree(self) -> int:
        """Degree of the colours, 0 to 3."""
        return 0 if self.sh_rest is None else sh_degree(1 + self.sh_rest.shape[-2])

    @property
    def sh(self) -> Tensor:
        """All harmonics, degree 0 first. [..., N, S, 3]"""
        return self.sh0 if self.sh_rest is None else torch.cat([self.sh0, self.sh_rest], dim=-2)

    @property
    def rgb(self) -> Tensor:
        """Colours of degree 0, at least 0, not limited above (as the published renderer). [..., N, 3]"""
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
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return Gaussians(**{name: function(t) for name, t in tensors.items() if t is not None})
