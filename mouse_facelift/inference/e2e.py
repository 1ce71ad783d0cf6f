"""End-to-end mode: one view, MVDiffusion makes the others, GS-LRM reconstructs from all of them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..gaussians.filters import filter_gaussians
from ..gslrm import GSLRM
from ..mvdiffusion.silhouettes import estimate_silhouettes
from ..parallel import until_error
from .config import ReconstructionConfig
from .direct import reconstruct
from .generation import BACKGROUND, Request, ViewMaker, resized
from .inputs import Views
from .refine import refine
from .results import Reconstruction


class EndToEnd:
    """MVDiffusion followed by GS-LRM, as a function from views to a reconstruction.

    Args:
        config: Of the inference.
        model: GS-LRM.
        device: Where both compute.

    Raises:
        CheckpointError: the pipeline cannot be used.
    """

    def __init__(self, config: ReconstructionConfig, model: GSLRM, device: torch.device) -> None:
        assert config.mvdiffusion is not None
        self.config, self.model = config, model
        self.make_views = ViewMaker(config.mvdiffusion, config.diffusion, device, config.compile)

    @property
    def image_size(self) -> int:
        """Side of the pictures that MVDiffusion takes and makes."""
        return self.make_views.image_size

    def __call__(self, views: Views) -> Reconstruction:
        """Look at the reference view only; the other views serve the metrics alone."""
        return next(self.together([views]))

    def together(self, batch: Sequence[Views]) -> Iterator[Reconstruction]:
        """The same of several samples, of which MVDiffusion makes those with equally many views at once.

        A sample that cannot be asked for is an error in its place, after the results of those before it.
        """
        config = self.config
        errors: list[Exception] = []
        asked = (self.make_views.request(views, config.reference_view, config.seed) for views in batch)
        requests = list(until_error(asked, errors))
        for request, generated in zip(requests, self._generate(requests), strict=True):
            yield self._reconstruct(request, generated)
        if errors:
            raise errors[0]

    def _generate(self, requests: Sequence[Request]) -> list[Tensor]:
        return self.make_views(requests)

    def _reconstruct(self, request: Request, generated: Tensor) -> Reconstruction:
        size, cameras = self.config.image_size or self.image_size, request.cameras
        K = cameras.K.clone()
        K[:, :2] *= size / self.image_size
        # Silhouettes first: resizing mixes the animal into pixels around it, and all of them would count.
        pictures = torch.cat([generated, estimate_silhouettes(generated, BACKGROUND)], dim=1)
        seen = resized(pictures, size), K, cameras.w2c
        gaussians = reconstruct(self.model, *seen)
        filtered, report = filter_gaussians(gaussians, self.config.filter)
        refined, refinement = refine(filtered, *seen, BACKGROUND, self.config.refine)
        return Reconstruction(
            refined,
            report,
            (request.shown,),
            generated,
            cameras.view_ids,
            unfiltered=gaussians,
            refinement=refinement,
        )
