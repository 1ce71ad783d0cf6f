"""What the model's views mean: which cameras, in which order, relative to the reference picture in slot 0."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CalibrationError, CheckpointError, DataError
from ..files import write_json
from ..geometry import FACELIFT_DISTANCE, FACELIFT_FOCAL, Camera, direction
from ..geometry.rays import CameraBatch, camera_tensors
from ..samples.format import Sample
from .pose import check_view_count, nearest_prompts, pose_rays, relative_azimuths_deg
from .weights import read_json

SLOTS_FILE = "slots.json"
SlotMode = Literal["facelift", "rig", "pose"]

FACELIFT_NAMES = ("front", "front_right", "right", "back", "left", "front_left")
FACELIFT_AZIMUTHS_DEG = (270.0, 225.0, 180.0, 90.0, 0.0, 315.0)
FACELIFT_RELATIVE_DEG = (0.0, -45.0, -90.0, 180.0, 90.0, 45.0)
"""To the front, as the published prompts name them (facelift_spec.md 5)."""
AZIMUTH_TOLERANCE_DEG = 15.0


@dataclass(frozen=True, eq=False)
class Slots:
    """The views of a model, slot 0 first.

    Attributes:
        mode: `facelift`: six canonical cameras (facelift_spec.md 5), whatever animal stands at the origin;
            `rig`: the cameras of one recording, around the ring from the reference on;
            `pose`: the model is told the cameras and takes any; those here stand in for a lone picture's.
        view_ids: Camera id of the training samples that fills each slot. [V]
        cameras: At the model's picture size, model units; the mean over the training samples except for
            `facelift`. [V]
        prompt_azimuths_deg: Which direction, relative to the reference, each row of the prompt bank was
            written for; by default row k for slot k. With `pose` a view is told the nearest row. [P]
    """

    mode: SlotMode
    view_ids: tuple[int, ...]
    cameras: tuple[Camera, ...]
    prompt_azimuths_deg: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt_azimuths_deg:
            azimuths = tuple(_relative_deg(self.cameras).tolist())
            object.__setattr__(self, "prompt_azimuths_deg", azimuths)

    def __len__(self) -> int:
        return len(self.view_ids)

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that the model takes and makes."""
        return self.cameras[0].width

    @property
    def names(self) -> tuple[str, ...]:
        """One word per slot, for files and reports."""
        return (
            FACELIFT_NAMES if self.mode == "facelift" else tuple(f"camera_{view}" for view in self.view_ids)
        )

    @property
    def K(self) -> NDArray[np.float64]:
        """Intrinsics in pixels, half-pixel centres. [V, 3, 3]"""
        return np.stack([camera.K for camera in self.cameras])

    @property
    def w2c(self) -> NDArray[np.float64]:
        """World-to-camera, model units. [V, 4, 4]"""
        return np.stack([camera.w2c for camera in self.cameras])

    @property
    def camera_batch(self) -> CameraBatch:
        """The cameras as tensors, for one object. [1, V, ...]"""
        K, w2c = camera_tensors(self.cameras)
        return CameraBatch(K[None], w2c[None])

    def prompt_index(self, w2c: Tensor) -> Tensor:
        """The row of the prompt bank that each view is told.

        Args:
            w2c: World-to-camera of the views, reference first, Z up. [B, V, 4, 4]

        Returns:
            int64. [B, V]
        """
        if self.mode == "pose":
            return nearest_prompts(relative_azimuths_deg(w2c), self.prompt_azimuths_deg)
        return torch.arange(len(self), device=w2c.device).expand(w2c.shape[:2])

    def rays(self, cameras: CameraBatch, side: int) -> Tensor | None:
        """The rays that the model is told; None unless the mode is `pose`.

        Args:
            cameras: Of the views, reference first, K at `image_size`.
            side: Side of the latents.

        Returns:
            [B, V, 6, side, side]
        """
        if self.mode != "pose":
            return None
        return pose_rays(cameras.K, cameras.w2c, self.image_size, side)

    @classmethod
    def facelift(cls, image_size: int) -> "Slots":
        """FaceLift's six slots; slot k is filled by a sample's camera k."""
        centers = FACELIFT_DISTANCE * direction(np.radians(FACELIFT_AZIMUTHS_DEG), 0.0)
        cameras = [Camera.look_at(c, (0, 0, 0), FACELIFT_FOCAL * image_size, image_size) for c in centers]
        return cls("facelift", tuple(range(6)), tuple(cameras), FACELIFT_RELATIVE_DEG)

    @classmethod
    def rig(
        cls,
        samples: Sequence[Sample],
        image_size: int,
        reference: int | Literal["first"] = "first",
        clockwise: bool = False,
    ) -> "Slots":
        """The cameras of a recording, averaged over its samples and ordered around the ring.

        Args:
            samples: The training samples; all with the same views.
            image_size: Side of the pictures that the model shall take and make.
            reference: Camera id of slot 0, or "first": the samples' first view.
            clockwise: Order seen from above; FaceLift's own slots run clockwise.

        Raises:
            DataError: no such reference.
        """
        view_ids = [view.view_id for view in samples[0].views]
        if reference != "first" and reference not in view_ids:
            raise DataError(
                f"{samples[0].folder}: has no view {reference} (reference_view), only {view_ids}. Name one "
                "of these, or first."
            )
        per_view = zip(*([view.camera for view in sample.views] for sample in samples), strict=True)
        cameras = [
            mean_camera([camera.resized(image_size, image_size)[0] for camera in cs]) for cs in per_view
        ]
        start = 0 if reference == "first" else view_ids.index(reference)
        order = rig_order([camera.azimuth_deg for camera in cameras], start, clockwise)
        return cls("rig", tuple(view_ids[i] for i in order), tuple(cameras[i] for i in order))

    @classmethod
    def pose(
        cls, samples: Sequence[Sample], image_size: int, reference: int | Literal["first"] = "first"
    ) -> "Slots":
        """For a model that is told its cameras; see `rig`, always counter-clockwise.

        Raises:
            DataError: no such reference, or too few or too many views.
        """
        check_view_count(len(samples[0].views), str(samples[0].folder))
        return replace(cls.rig(samples, image_size, reference), mode="pose")

    @classmethod
    def load(cls, path: Path) -> "Slots":
        """Read `slots.json`.

        Raises:
            CheckpointError: missing or malformed.
        """
        content = read_json(path)
        try:
            size = int(content["image_size"])
            cameras = [
                Camera(np.asarray(c["K"], float), np.asarray(c["w2c"], float), size, size)
                for c in content["cameras"]
            ]
            view_ids = tuple(int(view) for view in content["view_ids"])
            mode = content["mode"]
            # Rows of slot models belong to the slots; files without the key say so too.
            azimuths = tuple(float(angle) for angle in content.get("prompt_azimuths_deg", ()))
        except (KeyError, TypeError, ValueError, CalibrationError) as error:
            raise CheckpointError(f"{path}: not a slots file ({error!r}).") from None
        if mode not in get_args(SlotMode) or not cameras or len(cameras) != len(view_ids):
            raise CheckpointError(
                f"{path}: mode {mode!r}, {len(cameras)} cameras, {len(view_ids)} view ids; expected "
                f"{', '.join(get_args(SlotMode))} and one id per camera."
            )
        if mode == "pose" and not azimuths:
            raise CheckpointError(
                f"{path}: mode pose without prompt_azimuths_deg, so nobody knows which view each prompt "
                "describes. Fetch or export the folder again."
            )
        return cls(mode, view_ids, tuple(cameras), azimuths)

    def save(self, path: Path) -> None:
        """Write `slots.json`."""
        cameras = [{"K": camera.K.tolist(), "w2c": camera.w2c.tolist()} for camera in self.cameras]
        content: dict[str, Any] = {
            "mode": self.mode,
            "names": self.names,
            "view_ids": self.view_ids,
            "image_size": self.image_size,
            "cameras": cameras,
            "prompt_azimuths_deg": self.prompt_azimuths_deg,
        }
        write_json(path, content)

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Check that samples can fill the slots: the views are there and stand where the slots say.

        Only azimuths relative to slot 0 count, since a rig may be turned as a whole.

        Raises:
            DataError: a view is missing, or off by more than AZIMUTH_TOLERANCE_DEG.
        """
        expected = _relative_deg(self.cameras)
        for sample in samples:
            by_id = {view.view_id: view.camera for view in sample.views}
            missing = [view for view in self.view_ids if view not in by_id]
            if missing:
                raise DataError(
                    f"{sample.folder}: has views {sorted(by_id)}, the slots need {list(self.view_ids)}."
                )
            found = _relative_deg([by_id[view] for view in self.view_ids])
            off = np.abs((found - expected + 180) % 360 - 180)
            worst = int(off.argmax())
            if off[worst] > AZIMUTH_TOLERANCE_DEG:
                raise DataError(
                    f"{sample.folder}: view {self.view_ids[worst]} stands {found[worst]:.0f} degrees from "
                    f"the reference, slot {worst} ({self.names[worst]}) means {expected[worst]:.0f}. "
                    "Use data.slots=rig for the cameras of a recording."
                )


def rig_order(azimuths_deg: Sequence[float], reference: int, clockwise: bool = False) -> list[int]:
    """Order cameras around the ring, starting at the reference.

    Args:
        azimuths_deg: Counter-clockwise from +x seen from above, per camera.
        reference: Index of the camera that comes first.
        clockwise: Go round clockwise instead of counter-clockwise.

    Returns:
        Indices of the cameras. At equal azimuths the reference comes first, then the lower index.
    """
    sign = -1 if clockwise else 1
    turns = [(sign * (azimuth - azimuths_deg[reference])) % 360 for azimuth in azimuths_deg]
    return sorted(range(len(turns)), key=lambda index: (index != reference, turns[index], index))


def mean_camera(cameras: Sequence[Camera]) -> Camera:
    """The mean of nearly equal cameras: mean centre and K, and the rotation nearest the mean matrix."""
    U, _, Vt = np.linalg.svd(np.mean([camera.R for camera in cameras], axis=0))
    R = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    center = np.mean([camera.center for camera in cameras], axis=0)
    K = np.mean([camera.K for camera in cameras], axis=0)
    return Camera.from_rt(K, R, -R @ center, cameras[0].width, cameras[0].height)


def _relative_deg(cameras: Sequence[Camera]) -> NDArray[np.float64]:
    """Azimuths from that of the first camera on, counter-clockwise, in [0, 360)."""
    azimuths = np.array([camera.azimuth_deg for camera in cameras])
    return (azimuths - azimuths[0]) % 360
