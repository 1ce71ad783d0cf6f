"""End-to-end mode: one view, MVDiffusion makes the others, GS-LRM reconstructs from all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError
from ..gaussians.filters import filter_gaussians
from ..geometry import Camera, Similarity
from ..gslrm import GSLRM
from ..mvdiffusion import MVDiffusionPipeline, Slots
from ..samples.datasets import composite
from .config import InferConfig
from .direct import reconstruct
from .inputs import Views
from .results import Reconstruction

BACKGROUND = 1.0
"""MVDiffusion is shown, and makes, pictures on white."""

NOISE_LEVEL, ANIMAL_LEVEL = 0.02, 0.10
"""Distance from the background's colour up to which a pixel is background, and from which on it is animal."""


@dataclass(frozen=True)
class SlotCameras:
    """Where MVDiffusion's views are seen from.

    Attributes:
        view_ids: Camera id, or slot number where slots are no cameras of the rig. [V]
        K: Intrinsics at the model's picture size. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
    """

    view_ids: tuple[int, ...]
    K: Tensor
    w2c: Tensor


class EndToEnd:
    """MVDiffusion followed by GS-LRM, as a function from views to a reconstruction.

    Args:
        config: Of the inference.
        model: GS-LRM.
        device: Where both compute.

    Raises:
        CheckpointError: the pipeline cannot be used.
        ConfigError: the reference view is not the one that the pipeline was trained for.
    """

    def __init__(self, config: InferConfig, model: GSLRM, device: torch.device) -> None:
        assert config.mvdiffusion is not None
        self.config, self.model, self.device = config, model, device
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.pipeline = MVDiffusionPipeline.load(config.mvdiffusion, device, dtype)
        self.reference = choose_reference(self.pipeline.slots, config.reference_view)

    @property
    def image_size(self) -> int:
        """Side of the pictures that MVDiffusion takes and makes."""
        return self.pipeline.slots.image_size

    def __call__(self, views: Views) -> Reconstruction:
        """Look at the reference view only; the other views serve the metrics alone."""
        shown = views.view_ids[0] if views.K is None else self.reference
        reference = views.position(shown)
        picture = composite(views.rgba[reference], BACKGROUND)
        generated = self._generate(_resized(picture[None], self.image_size))
        cameras = slot_cameras(self.pipeline.slots, views, reference)
        size = self.config.image_size or self.image_size
        K = cameras.K.clone()
        K[:, :2] *= size / self.image_size
        # Silhouettes first: resizing mixes the animal into pixels around it, and all of them would count.
        pictures = torch.cat([generated, estimate_silhouettes(generated, BACKGROUND)], dim=1)
        gaussians = reconstruct(self.model, _resized(pictures, size), K, cameras.w2c)
        filtered, report = filter_gaussians(gaussians, self.config.filter)
        return Reconstruction(filtered, report, (shown,), generated, cameras.view_ids)

    def _generate(self, picture: Tensor) -> Tensor:
        """[1, 3, S, S] -> [V, 3, S, S], both on white."""
        diffusion = self.config.diffusion
        # One generator a sample: a result depends neither on the order of samples nor on their number.
        generator = torch.Generator().manual_seed(self.config.seed)
        generated = self.pipeline(
            picture.to(self.device),
            steps=diffusion.steps,
            guidance=diffusion.guidance,
            eta=diffusion.eta,
            generators=[generator],
        )
        return generated[0]


def choose_reference(slots: Slots, wanted: int | None) -> int:
    """The camera id of the one view that is shown.

    FaceLift's slots are relative to whatever view is shown; a rig's are tied to their reference.

    Raises:
        ConfigError: a rig's slots and another reference.
    """
    trained = slots.view_ids[0]
    if wanted is None or wanted == trained or slots.mode == "facelift":
        return trained if wanted is None else wanted
    raise ConfigError(
        f"reference_view={wanted}, but this MVDiffusion was trained with camera {trained} as its reference "
        f"(slots {list(slots.view_ids)}). Use that one, or train with data.reference_view={wanted}."
    )


def slot_cameras(slots: Slots, views: Views, reference: int) -> SlotCameras:
    """Cameras of the generated views in the frame of the sample, or in the model's own for a lone picture.

    Args:
        slots: What the model's views mean.
        views: The sample; its calibrated cameras are used, never its other pictures.
        reference: Index of the shown view.

    Raises:
        DataError: the sample lacks a camera that the slots name.
    """
    if views.K is None or views.w2c is None:
        return _as_tensors(slots.view_ids, slots.cameras)
    if slots.mode == "rig":
        missing = [view_id for view_id in slots.view_ids if view_id not in views.view_ids]
        if missing:
            raise DataError(
                f"has cameras {list(views.view_ids)}, the slots of this MVDiffusion also need {missing}."
            )
        order = [views.position(view_id) for view_id in slots.view_ids]
        K = views.K[order].clone()
        K[:, :2] *= slots.image_size / views.rgba.shape[-1]
        return SlotCameras(slots.view_ids, K, views.w2c[order])
    size = views.rgba.shape[-1]
    shown = Camera(views.K[reference].double().numpy(), views.w2c[reference].double().numpy(), size, size)
    turn = np.radians(shown.azimuth_deg - slots.cameras[0].azimuth_deg)
    yaw = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return _as_tensors(
        range(len(slots)), [c.similarity(Similarity(1.0, yaw, np.zeros(3))) for c in slots.cameras]
    )


def estimate_silhouettes(pictures: Tensor, background: float) -> Tensor:
    """Soft silhouettes of pictures that were generated on a uniform background, so have no alpha.

    What is coloured as the background cannot be told from it: highlights on the animal become holes, a shadow
    that the model paints counts as animal, and so do pixels at the edge that show a tenth of a dark animal.
    Never use it where real alpha exists.

    Args:
        pictures: RGB in [0, 1]. [V, 3, H, W]
        background: Its grey level.

    Returns:
        0 for the background, 1 for the animal, 0.5 halfway between the two levels. [V, 1, H, W]
    """
    distance = (pictures - background).abs().amax(dim=1, keepdim=True)
    return ((distance - NOISE_LEVEL) / (ANIMAL_LEVEL - NOISE_LEVEL)).clamp(0, 1)


def _as_tensors(view_ids: Sequence[int], cameras: Sequence[Camera]) -> SlotCameras:
    K = torch.from_numpy(np.stack([camera.K for camera in cameras])).float()
    w2c = torch.from_numpy(np.stack([camera.w2c for camera in cameras])).float()
    return SlotCameras(tuple(view_ids), K, w2c)


def _resized(pictures: Tensor, size: int) -> Tensor:
    """Square pictures at another size, anti-aliased. [N, C, H, H] -> [N, C, S, S]"""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
