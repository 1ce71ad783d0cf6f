"""End-to-end mode: one view, MVDiffusion makes the others, GS-LRM reconstructs from all of them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError, DependencyError
from ..gaussians.filters import filter_gaussians
from ..geometry import Camera, Similarity
from ..geometry.rays import CameraBatch
from ..gslrm import GSLRM
from ..mvdiffusion import MVDiffusionPipeline, Slots
from ..mvdiffusion.fast import speed_up, speed_up_vae
from ..mvdiffusion.pose import check_view_count
from ..mvdiffusion.silhouettes import estimate_silhouettes
from ..mvdiffusion.slots import rig_order
from ..samples.datasets import composite
from .config import InferConfig
from .direct import reconstruct
from .inputs import Views
from .results import Reconstruction

BACKGROUND = 1.0
"""MVDiffusion is shown, and makes, pictures on white."""


@dataclass(frozen=True)
class SlotCameras:
    """Where MVDiffusion's views are seen from, the reference first.

    Attributes:
        view_ids: Camera id, or slot number where slots are no cameras of the rig. [V]
        K: Intrinsics at the model's picture size. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
    """

    view_ids: tuple[int, ...]
    K: Tensor
    w2c: Tensor


@dataclass(frozen=True)
class _Request:
    """What MVDiffusion is asked for: the shown view, on white [3, S, S], and the cameras, its own first."""

    shown: int
    picture: Tensor
    cameras: SlotCameras


class EndToEnd:
    """MVDiffusion followed by GS-LRM, as a function from views to a reconstruction.

    Args:
        config: Of the inference.
        model: GS-LRM.
        device: Where both compute.

    Raises:
        CheckpointError: the pipeline cannot be used.
    """

    def __init__(self, config: InferConfig, model: GSLRM, device: torch.device) -> None:
        assert config.mvdiffusion is not None
        self.config, self.model, self.device = config, model, device
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.pipeline = MVDiffusionPipeline.load(config.mvdiffusion, device, dtype)
        self.pipeline.denoiser = speed_up(self.pipeline.denoiser, compile=config.compile)
        if config.compile:
            speed_up_vae(self.pipeline.frozen.vae)

    @property
    def image_size(self) -> int:
        """Side of the pictures that MVDiffusion takes and makes."""
        return self.pipeline.slots.image_size

    def __call__(self, views: Views) -> Reconstruction:
        """Look at the reference view only; the other views serve the metrics alone."""
        return next(self.together([views]))

    def together(self, batch: Sequence[Views]) -> Iterator[Reconstruction]:
        """The same of several samples, of which MVDiffusion makes those with equally many views at once."""
        requests = [self._request(views) for views in batch]
        for request, generated in zip(requests, self._generate(requests), strict=True):
            yield self._reconstruct(request, generated)

    def _request(self, views: Views) -> _Request:
        slots, shown = self.pipeline.slots, views.view_ids[0]
        if views.K is not None:
            shown = choose_reference(slots, self.config.reference_view, views.view_ids)
        reference = views.position(shown)
        picture = composite(views.rgba[reference], BACKGROUND)
        shown_picture = _resized(picture[None], self.image_size)[0]
        return _Request(shown, shown_picture, slot_cameras(slots, views, reference))

    def _reconstruct(self, request: _Request, generated: Tensor) -> Reconstruction:
        size, cameras = self.config.image_size or self.image_size, request.cameras
        K = cameras.K.clone()
        K[:, :2] *= size / self.image_size
        # Silhouettes first: resizing mixes the animal into pixels around it, and all of them would count.
        pictures = torch.cat([generated, estimate_silhouettes(generated, BACKGROUND)], dim=1)
        gaussians = reconstruct(self.model, _resized(pictures, size), K, cameras.w2c)
        filtered, report = filter_gaussians(gaussians, self.config.filter)
        return Reconstruction(filtered, report, (request.shown,), generated, cameras.view_ids)

    def _generate(self, requests: Sequence[_Request]) -> list[Tensor]:
        """Views on white, in the order of the requests. [V, 3, S, S] each"""
        equal: defaultdict[int, list[int]] = defaultdict(list)
        for position, request in enumerate(requests):
            equal[len(request.cameras.view_ids)].append(position)
        made: dict[int, Tensor] = {}
        for positions in equal.values():
            made |= zip(positions, self._sample([requests[i] for i in positions]), strict=True)
        return [made[position] for position in range(len(requests))]

    def _sample(self, requests: Sequence[_Request]) -> Tensor:
        """Views of requests with equally many cameras. [B, V, 3, S, S]"""
        cameras = [request.cameras for request in requests]
        told = CameraBatch(torch.stack([c.K for c in cameras]), torch.stack([c.w2c for c in cameras]))
        try:
            return self.pipeline(
                torch.stack([request.picture for request in requests]).to(self.device),
                # One a sample: a result depends neither on the order of samples nor on their number.
                generators=[torch.Generator().manual_seed(self.config.seed) for _ in requests],
                sampling=self.config.diffusion,
                cameras=told if self.pipeline.slots.mode == "pose" else None,
            )
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().split("\n")[0]
            raise DependencyError(
                f"compile=true, but PyTorch cannot compile here ({reason}). Install a C++ compiler, or leave "
                "compile=false."
            ) from error


def choose_reference(slots: Slots, wanted: int | None, view_ids: Sequence[int]) -> int:
    """The camera of the one view that is shown, after a look whether the model can make the sample's views.

    FaceLift's slots are relative to whatever view is shown, and so are the rays of a model that is told its
    cameras; a rig's slots are tied to their reference.

    Args:
        slots: What the model's views mean.
        wanted: A camera id; None takes the reference of training or, where nothing ties the model to it and
            the sample has no such camera, the sample's first view.
        view_ids: The sample's camera ids.

    Returns:
        A camera id of the sample.

    Raises:
        ConfigError: a rig's slots and another reference.
        DataError: the sample lacks the reference or a camera that the slots name, or has too few or many.
    """
    trained = slots.view_ids[0]
    if slots.mode == "rig":
        if wanted not in (None, trained):
            raise ConfigError(
                f"reference_view={wanted}, but this MVDiffusion was trained with camera {trained} as its "
                f"reference (slots {list(slots.view_ids)}). Use that one, or train with "
                f"data.reference_view={wanted} or with diffusion.conditioning=pose."
            )
        missing = [view_id for view_id in slots.view_ids if view_id not in view_ids]
        if missing:
            raise DataError(
                f"has cameras {list(view_ids)}, the slots of this MVDiffusion also need {missing}. Use one "
                "that was trained on this rig, or with diffusion.conditioning=pose, which takes any cameras."
            )
    if slots.mode == "pose":
        if len(view_ids) == 1:
            raise DataError(
                "has one camera, MVDiffusion makes views for 2 to 16. Give the picture instead of the "
                "sample: the others then stand where the training's stood."
            )
        check_view_count(len(view_ids), "the cameras to make views for")
    if wanted is None:
        return trained if trained in view_ids else view_ids[0]
    if wanted not in view_ids:
        raise DataError(f"has no view {wanted} (reference_view), only {list(view_ids)}.")
    return wanted


def slot_cameras(slots: Slots, views: Views, reference: int) -> SlotCameras:
    """Cameras of the generated views in the frame of the sample, or in the model's own for a lone picture.

    Args:
        slots: What the model's views mean.
        views: The sample, with all cameras that `choose_reference` asks for; its calibrated cameras are used,
            never its other pictures.
        reference: Index of the shown view.
    """
    if views.K is None or views.w2c is None:
        return _as_tensors(slots.view_ids, slots.cameras)
    if slots.mode == "facelift":
        return _facelift_cameras(slots, views.K[reference], views.w2c[reference], views.rgba.shape[-1])
    if slots.mode == "pose":
        azimuths = [Camera(np.eye(3), w2c.double().numpy(), 1, 1).azimuth_deg for w2c in views.w2c]
        order = rig_order(azimuths, reference)
    else:
        order = [views.position(view_id) for view_id in slots.view_ids]
    K = views.K[order].clone()
    K[:, :2] *= slots.image_size / views.rgba.shape[-1]
    return SlotCameras(tuple(views.view_ids[index] for index in order), K, views.w2c[order])


def _facelift_cameras(slots: Slots, K: Tensor, w2c: Tensor, size: int) -> SlotCameras:
    """FaceLift's cameras, turned about the vertical axis to where the shown view stands."""
    shown = Camera(K.double().numpy(), w2c.double().numpy(), size, size)
    turn = np.radians(shown.azimuth_deg - slots.cameras[0].azimuth_deg)
    yaw = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return _as_tensors(
        range(len(slots)), [c.similarity(Similarity(1.0, yaw, np.zeros(3))) for c in slots.cameras]
    )


def _as_tensors(view_ids: Sequence[int], cameras: Sequence[Camera]) -> SlotCameras:
    K = torch.from_numpy(np.stack([camera.K for camera in cameras])).float()
    w2c = torch.from_numpy(np.stack([camera.w2c for camera in cameras])).float()
    return SlotCameras(tuple(view_ids), K, w2c)


def _resized(pictures: Tensor, size: int) -> Tensor:
    """Square pictures at another size, anti-aliased. [N, C, H, H] -> [N, C, S, S]"""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
