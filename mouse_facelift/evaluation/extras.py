"""What a comparison keeps beside scores: generated views against real ones, pictures, Gaussians."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..files import atomic_path, write_json
from ..gaussians import Gaussians, render
from ..gaussians.rendering import Rendering
from ..gslrm.config import LossConfig
from ..gslrm.losses import RenderingLoss
from ..inference.generation import resized
from ..inference.inputs import Views
from ..inference.results import Reconstruction
from ..metrics import psnr
from ..mvdiffusion.silhouettes import estimate_silhouettes
from ..mvdiffusion.slots import Slots
from ..samples.datasets import composite
from .config import EvaluateConfig
from .gaps import measure_gap
from .kept import KeptScores
from .measure import Measure
from .protocols import Attempt, only
from .scores import Score
from .subjects import Subject

WHITE = 1.0


class KeptComparison(KeptScores):
    """Scores that count as finished only with what the comparison needs beside them.

    Args:
        config: As of `KeptScores`.
        weights: Likewise.
        pictured: Names of the samples whose pictures and Gaussians are kept.
        slots: What MVDiffusion's views mean.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        weights: Mapping[str, Mapping[str, str]],
        pictured: Collection[str],
        slots: Slots,
    ) -> None:
        super().__init__(config, weights)
        self.pictured, self.slots = frozenset(pictured), slots

    @property
    def at_cameras(self) -> bool:
        """Whether MVDiffusion's views stand at the samples' own cameras."""
        return self.slots.mode != "facelift"

    def read(self, method: str, subject: Subject) -> list[Score] | None:
        """Finished scores; None where something is missing."""
        folder = self.place(method, subject.name)
        if not (folder / "extras.json").is_file():
            return None
        if subject.name in self.pictured:
            shown = self.extras(method, subject.name)["shown"]
            renders = [_picture_file(folder, "render", v) for v in subject.view_ids if v not in shown]
            if not all(path.is_file() for path in (*renders, folder / "gaussians.ply")):
                return None
        return super().read(method, subject)

    def place(self, method: str, sample: str) -> Path:
        """The folder of a sample's extras."""
        return self.folder / method / sample

    def extras(self, method: str, sample: str) -> dict[str, Any]:
        """`own`, `shown` (to e2e), and of e2e `scores` and `views` of the generated pictures.

        Raises:
            DataError: the file is damaged.
        """
        path = self.place(method, sample) / "extras.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: damaged ({error!r}). Remove it to measure this sample again.") from None
        return content

    def watch(
        self, method: str, subject: Subject, attempt: Attempt, result: Reconstruction, measure: Measure
    ) -> None:
        """Keep what a reconstruction shows beside its scores."""
        folder, pictured = self.place(method, subject.name), subject.name in self.pictured
        if attempt.left_out is not None:
            if pictured:
                _keep_pictures(
                    folder, "render", _rendered(result.gaussians, measure.views, [attempt.left_out])
                )
            return
        views = measure.views
        if result.generated is None:
            # At the size of the generated views, whose loss this is compared with.
            shown = only(subject.read(self.slots.image_size), result.shown_ids)
            own = _own(result.gaussians, composite(shown.rgba, WHITE), shown.rgba[:, 3:], shown)
            # Each real view is shown, and left out once.
            content: dict[str, Any] = {"shown": [], "own": own}
        else:
            others = [view_id for view_id in subject.view_ids if view_id not in result.shown_ids]
            content = self._generated(folder, subject, result, measure)
            if pictured:
                _keep_pictures(folder, "render", _rendered(result.gaussians, views, others))
        if pictured:
            result.gaussians.save_ply(folder / "gaussians.ply")
        write_json(folder / "extras.json", content)

    def _generated(
        self, folder: Path, subject: Subject, result: Reconstruction, measure: Measure
    ) -> dict[str, Any]:
        """Generated views against the real ones, before and after GS-LRM."""
        shown = list(result.shown_ids)
        if result.generated is None or not self.at_cameras:
            return {"shown": shown, "own": None, "views": [], "scores": {}}
        pictures, silhouettes = _on_white(result.generated)
        size = pictures.shape[-1]
        at = [index for index, view_id in enumerate(result.generated_ids) if view_id not in shown]
        ids = [result.generated_ids[index] for index in at]
        # Fine detail is compared at the size at which it was made.
        real = only(subject.read(size), ids).rgba.to(pictures)
        own = _own(result.gaussians, pictures, silhouettes, only(subject.read(size), result.generated_ids))
        rgb, alpha = (resized(each[at], measure.views.rgba.shape[-1]) for each in (pictures, silhouettes))
        if subject.name in self.pictured:
            _keep_pictures(folder, "generated", dict(zip(ids, zip(rgb, alpha, strict=True), strict=True)))
        return {
            "shown": shown,
            "own": own,
            "views": measure_gap(pictures[at], silhouettes[at], composite(real, WHITE), real[:, 3:]),
            "scores": dict(zip(map(str, ids), measure.pictures(rgb, alpha, shown, ids), strict=True)),
        }


def read_pictures(folder: Path, kind: str, view_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Kept pictures: colours on white [V, 3, H, W] and silhouettes [V, 1, H, W]."""
    pictures = []
    for view_id in view_ids:
        with np.load(_picture_file(folder, kind, view_id), allow_pickle=False) as content:
            pictures.append(torch.from_numpy(content["rgba"]).float() / 255)
    rgba = torch.stack(pictures)
    return rgba[:, :3], rgba[:, 3:]


def _on_white(generated: Tensor) -> tuple[Tensor, Tensor]:
    """Generated views without the noise of their background, and their estimated silhouettes."""
    silhouettes = estimate_silhouettes(generated, WHITE)
    return torch.where(silhouettes > 0, generated.float(), WHITE), silhouettes


def _own(gaussians: Gaussians, rgb: Tensor, alpha: Tensor, views: Views) -> dict[str, float]:
    """How well GS-LRM copies what it was shown: training's loss without networks, and the PSNR."""
    device, size = gaussians.means.device, rgb.shape[-1]
    assert views.K is not None and views.w2c is not None
    picture = render(gaussians, views.K.to(device), views.w2c.to(device), size, size, WHITE)
    rgb, alpha = rgb.to(device).float(), alpha.to(device).float()
    batched = Rendering(picture.rgb[None], picture.alpha[None], picture.depth[None])
    loss = RenderingLoss(LossConfig())(batched, rgb[None], alpha[None])["loss"]
    return {"own_loss": float(loss), "own_psnr_db": float(psnr(picture.rgb, rgb, alpha).nanmean())}


def _rendered(
    gaussians: Gaussians, views: Views, view_ids: Sequence[int]
) -> Mapping[int, tuple[Tensor, Tensor]]:
    """Colours on white and silhouettes at some cameras."""
    chosen, device, size = only(views, view_ids), gaussians.means.device, views.rgba.shape[-1]
    assert chosen.K is not None and chosen.w2c is not None
    picture = render(gaussians, chosen.K.to(device), chosen.w2c.to(device), size, size, WHITE)
    return dict(zip(view_ids, zip(picture.rgb, picture.alpha, strict=True), strict=True))


def _keep_pictures(folder: Path, kind: str, pictures: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    for view_id, (rgb, alpha) in pictures.items():
        rgba = (torch.cat([rgb, alpha]).clamp(0, 1) * 255).round().byte().cpu().numpy()
        with atomic_path(_picture_file(folder, kind, view_id)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, rgba=rgba)


def _picture_file(folder: Path, kind: str, view_id: int) -> Path:
    return folder / f"{kind}_{view_id:03d}.npz"
