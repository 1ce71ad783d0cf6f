"""Temporal flicker: how much pixels of the animal jump between frames, in renderings and in real pictures."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from ..gaussians import Gaussians, render
from ..samples.datasets import composite
from .inputs import Views

DEFINITION = (
    "mean absolute second difference over time, |x(t-1) - 2 x(t) + x(t+1)|, of colours in [0, 1], over "
    "pixels whose real alpha is above 0.5 in all three frames, seen by the samples' own cameras"
)


class Flicker:
    """Collects the figure moment by moment; holds three moments at a time.

    Cameras that are re-aimed at the animal move with it, for renderings and real pictures alike, so the two
    figures can be compared with each other, but not with those of cameras that stand still.

    Args:
        step: Recorded frames from one moment to the next; three moments with a gap are not compared.
        background: Grey level behind the animal.
    """

    def __init__(self, step: int, background: float) -> None:
        self._step, self._background = step, background
        self._last: deque[tuple[int, dict[int, Tensor], dict[int, Tensor]]] = deque(maxlen=3)
        # They stay on the device: fetching them would make every moment wait for it.
        self._sums: dict[int, Tensor] = {}
        self._triples = 0

    @torch.no_grad()
    def add(self, frame_index: int, views: Views, gaussians: Gaussians) -> None:
        """The next moment: its real views and its Gaussians, in model units."""
        assert views.K is not None and views.w2c is not None
        device, size = gaussians.means.device, views.rgba.shape[-1]
        rgba = views.rgba.to(device)
        drawn = render(gaussians, views.K.to(device), views.w2c.to(device), size, size, self._background)
        # Real and drawn side by side along the channels. [V, 6, S, S]
        colors = torch.cat([composite(rgba, self._background), drawn.rgb.clamp(0, 1)], dim=1)
        inside = rgba[:, 3:] > 0.5
        self._last.append(
            (
                frame_index,
                dict(zip(views.view_ids, colors, strict=True)),
                dict(zip(views.view_ids, inside, strict=True)),
            )
        )
        if len(self._last) == 3:
            self._compare()

    def _compare(self) -> None:
        (before, *a), (now, *b), (after, *c) = self._last
        if now - before != self._step or after - now != self._step:
            return
        self._triples += 1
        for view_id in a[0].keys() & b[0].keys() & c[0].keys():
            shapes = {colors[view_id].shape for colors, _ in (a, b, c)}
            if len(shapes) > 1:
                continue
            jump = (a[0][view_id] - 2 * b[0][view_id] + c[0][view_id]).abs()
            common = (a[1][view_id] & b[1][view_id] & c[1][view_id]).to(jump)
            real, drawn = (jump * common).sum((1, 2)).double().view(2, 3).mean(1)
            sums = torch.stack([real, drawn, common.sum().double()])
            self._sums[view_id] = self._sums.get(view_id, torch.zeros_like(sums)) + sums

    def result(self) -> dict[str, Any]:
        """JSON-ready; the figures are null where nothing could be compared."""
        sums = {view_id: self._sums[view_id].cpu() for view_id in sorted(self._sums)}
        views = [{"view_id": view_id, **_figures(values)} for view_id, values in sums.items()]
        total = torch.stack(list(sums.values())).sum(0) if sums else torch.zeros(3)
        return {"definition": DEFINITION, "triples": self._triples, **_figures(total), "views": views}


def _figures(sums: Tensor) -> dict[str, float | None]:
    real, drawn, pixels = sums.tolist()
    if pixels == 0:
        return {"rendered": None, "real": None, "ratio": None}
    ratio = drawn / real if real > 0 else None
    return {"rendered": drawn / pixels, "real": real / pixels, "ratio": ratio}
