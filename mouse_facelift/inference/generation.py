"""MVDiffusion as a function from one view to posed views, of several animals at once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError, DependencyError
from ..geometry import Camera, Similarity
from ..geometry.rays import CameraBatch, camera_tensors
from ..mvdiffusion import MVDiffusionPipeline, Slots
from ..mvdiffusion.config import SamplingConfig
from ..mvdiffusion.fast import speed_up, speed_up_vae
from ..mvdiffusion.pose import check_view_count
from ..mvdiffusion.slots import rig_order
from ..samples.datasets import composite
from .inputs import Views

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
class Request:
    """What MVDiffusion is asked for.

    Attributes:
        shown: Camera id of the reference.
        picture: The reference on white, RGB in [0, 1]. [3, S, S]
        cameras: Of the views to be made, the reference's first.
        seed: Of the sampling noise.
    """

    shown: int
    picture: Tensor
    cameras: SlotCameras
    seed: int


class ViewMaker:
    """MVDiffusion, loaded and ready.

    Args:
        checkpoint: A pipeline folder, a training run or one of its checkpoints.
        sampling: Solver, steps, guidance.
        device: Where it computes.
        compile: Compile it, see `mvdiffusion.fast`.

    Raises:
        CheckpointError: the pipeline cannot be used.
    """

    def __init__(
        self, checkpoint: Path, sampling: SamplingConfig, device: torch.device, compile: bool = False
    ) -> None:
        self.sampling, self.device = sampling, device
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.pipeline = MVDiffusionPipeline.load(checkpoint, device, dtype)
        self.pipeline.denoiser = speed_up(self.pipeline.denoiser, compile=compile)
        if compile:
            speed_up_vae(self.pipeline.frozen.vae)

    @property
    def slots(self) -> Slots:
        """What the views mean."""
        return self.pipeline.slots

    @property
    def image_size(self) -> int:
        """Side S of the pictures that are taken and made."""
        return self.slots.image_size

    def request(self, views: Views, wanted: int | None, seed: int) -> Request:
        """Ask for the views of one animal; of its pictures only the reference's is looked at.

        Args:
            views: A sample, or a lone picture.
            wanted: Camera id of the reference, see `choose_reference`.
            seed: Of the sampling noise.

        Raises:
            ConfigError: the model is tied to another reference.
            DataError: the sample lacks cameras.
        """
        shown = views.view_ids[0]
        if views.K is not None:
            shown = choose_reference(self.slots, wanted, views.view_ids)
        reference = views.position(shown)
        picture = composite(views.rgba[reference], BACKGROUND)
        cameras = slot_cameras(self.slots, views, reference)
        return Request(shown, resized(picture[None], self.image_size)[0], cameras, seed)

    def __call__(self, requests: Sequence[Request]) -> list[Tensor]:
        """Make the views; those of animals with equally many at once.

        A result depends on its own request alone, up to rounding.

        Returns:
            Views on white, RGB in [0, 1], in the order of the request's cameras. [V, 3, S, S] each

        Raises:
            DependencyError: they shall be compiled and PyTorch cannot compile here.
        """
        equal: defaultdict[int, list[int]] = defaultdict(list)
        for position, request in enumerate(requests):
            equal[len(request.cameras.view_ids)].append(position)
        made: dict[int, Tensor] = {}
        for positions in equal.values():
            made |= zip(positions, self._sample([requests[i] for i in positions]), strict=True)
        return [made[position] for position in range(len(requests))]

    def _sample(self, requests: Sequence[Request]) -> Tensor:
        """Views of requests with equally many cameras. [B, V, 3, S, S]"""
        cameras = [request.cameras for request in requests]
        told = CameraBatch(torch.stack([c.K for c in cameras]), torch.stack([c.w2c for c in cameras]))
        try:
            return self.pipeline(
                torch.stack([request.picture for request in requests]).to(self.device),
                # One a sample: a result depends neither on the order of samples nor on their number.
                generators=[torch.Generator().manual_seed(request.seed) for request in requests],
                sampling=self.sampling,
                cameras=told if self.slots.mode == "pose" else None,
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
    return SlotCameras(tuple(view_ids), *camera_tensors(cameras))


def resized(pictures: Tensor, size: int) -> Tensor:
    """Square pictures at another size, anti-aliased. [N, C, H, H] -> [N, C, S, S]"""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
