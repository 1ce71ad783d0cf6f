"""From MVDiffusion's pictures to a FaceLift sample: silhouettes, straight alpha, cameras, view ids."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..geometry import Camera
from ..inference.generation import BACKGROUND, SlotCameras
from ..inference.inputs import Views
from ..mvdiffusion.silhouettes import estimate_silhouettes
from ..samples.datasets import as_floats, load_picture, sample_cameras
from ..samples.format import SampleView
from .plan import Planned

GENERATED_ID = 100
"""Added to the number of a generated view that must not be taken for the rig's camera of that number."""


class NoAnimalError(DataError):
    """MVDiffusion made a picture without an animal: the sample cannot be used, others can."""


@dataclass(frozen=True)
class NewView:
    """A view of a new sample.

    Attributes:
        view_id: The rig's camera id where the view is from that very camera.
        image: Straight alpha, white under alpha 0. [S, S, 4]
        camera: Of exactly these pixels, model units.
    """

    view_id: int
    image: NDArray[np.uint8]
    camera: Camera


def shown_view(planned: Planned, size: int) -> Views:
    """The source as MVDiffusion needs it: all its cameras, but no picture except the reference's.

    Args:
        planned: The sample to be made.
        size: Side S of MVDiffusion's pictures.

    Raises:
        DataError: the reference's picture cannot be used.
    """
    source = planned.source
    cameras = sample_cameras(source, size)
    ids = tuple(view.view_id for view in source.views)
    rgba = torch.zeros(len(ids), 4, size, size)
    picture = torch.tensor(load_picture(planned.shown, size)).permute(2, 0, 1)
    rgba[ids.index(planned.reference)] = as_floats({"rgba": picture})["rgba"]
    return Views(rgba, ids, cameras["K"], cameras["w2c"])


def generated_views(planned: Planned, pictures: Tensor, cameras: SlotCameras, first_id: int) -> list[NewView]:
    """What MVDiffusion made, in the order of the ids, so that it is the same whatever the reference.

    Args:
        planned: The sample to be made; its reference may have to stay real.
        pictures: RGB on white, in [0, 1]. [V, 3, S, S]
        cameras: Theirs, the reference's first.
        first_id: Added to their numbers, see `GENERATED_ID`.

    Raises:
        NoAnimalError: there is none in a picture.
    """
    size = pictures.shape[-1]
    images = list(cut_out(pictures))
    placed = [
        Camera(K.double().numpy(), w2c.double().numpy(), size, size)
        for K, w2c in zip(cameras.K, cameras.w2c, strict=True)
    ]
    if planned.recipe["reference"] == "real":
        real = real_view(planned.shown, size)
        images[0], placed[0] = real.image, real.camera
    for view_id, image in zip(cameras.view_ids, images, strict=True):
        if not image[..., 3].any():
            raise NoAnimalError(f"the generated view {view_id} shows no animal")
    views = [
        NewView(first_id + view_id, image, camera)
        for view_id, image, camera in zip(cameras.view_ids, images, placed, strict=True)
    ]
    return sorted(views, key=lambda view: view.view_id)


def real_view(view: SampleView, size: int) -> NewView:
    """A view of the source at the size of the generated ones.

    Raises:
        DataError: its picture cannot be used.
    """
    return NewView(view.view_id, load_picture(view, size), view.camera.resized(size, size)[0])


def cut_out(pictures: Tensor) -> NDArray[np.uint8]:
    """Straight RGBA of pictures on white, with estimated silhouettes.

    On white they look as before wherever the animal is; the background becomes exactly white.

    Args:
        pictures: RGB in [0, 1]. [V, 3, S, S]

    Returns:
        [V, S, S, 4]
    """
    pictures = pictures.float().cpu().clamp(0, 1)
    # Rounded before the colours are taken apart, so that these belong to the alpha that is written.
    alpha = (estimate_silhouettes(pictures, BACKGROUND) * 255).round() / 255
    behind = BACKGROUND * (1 - alpha)
    straight = torch.where(alpha > 0, (pictures - behind) / alpha.clamp_min(1 / 255), BACKGROUND)
    rgba = torch.cat([straight.clamp(0, 1), alpha], dim=1)
    return (rgba * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
