import json

import numpy as np
import pytest
import torch

from mouse_facelift.evaluation.gaps import COMMON, FIGURES, gather, measure_gap

SIZE = 64


def animal(views: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Textured squares on white, and their silhouettes."""
    alpha = torch.zeros(views, 1, SIZE, SIZE)
    alpha[..., 12:52, 12:52] = 1
    texture = 0.4 + 0.1 * torch.randn(views, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return (texture * alpha + 1 - alpha).clamp(0, 1), alpha


def frame(rgb: torch.Tensor, alpha: torch.Tensor, real: torch.Tensor) -> dict:
    own = {side: {"own_loss": 0.1, "own_psnr_db": 20.0} for side in ("real", "generated")}
    return {"views": json.loads(json.dumps(measure_gap(rgb, alpha, real, alpha))), "own": own}


def test_equal_views_have_no_gap():
    rgb, alpha = animal(2)
    gap = gather([frame(rgb, alpha, rgb)])
    assert gap.common["iou"] == [1, 1]
    assert gap.common["delta_e"] == pytest.approx([0, 0])
    assert gap.spectra["real"] == gap.spectra["generated"]
    for name in FIGURES:
        assert gap.figures[name]["real"] == pytest.approx(gap.figures[name]["generated"], abs=1e-4), name


def test_a_soft_reddish_copy_shows_where_it_differs():
    real, alpha = animal(2)
    soft = torch.nn.functional.avg_pool2d(real, 3, stride=1, padding=1, count_include_pad=False)
    tint = torch.tensor([0.15, 0.0, 0.0])[:, None, None]
    gap = gather([frame((soft + tint).clamp(0, 1), alpha, real)])
    assert np.mean(gap.figures["fine_db"]["generated"]) < -5
    assert np.mean(gap.figures["noise"]["generated"]) < np.mean(gap.figures["noise"]["real"])
    assert np.mean(gap.figures["lab_a"]["generated"]) > np.mean(gap.figures["lab_a"]["real"]) + 5
    assert min(gap.common["delta_e"]) > 5
    assert gap.spectra["generated"][-1] < gap.spectra["real"][-1] - 5


def test_a_view_without_an_animal_is_left_out_of_the_spectra_and_no_number():
    real, alpha = animal(2)
    entries = measure_gap(torch.ones_like(real), torch.zeros_like(alpha), real, alpha)
    assert entries[0]["generated"]["noise"] is None
    own = {side: {"own_loss": 0.1, "own_psnr_db": 20.0} for side in ("real", "generated")}
    gap = gather([{"views": entries, "own": own}])
    assert gap.spectra == {"real": [], "generated": []}
    assert np.isnan(gap.figures["noise"]["generated"]).all()
    assert set(gap.common) == set(COMMON)


def test_nothing_to_compare_is_no_gap():
    assert gather([]) is None
    assert gather([{"views": [], "own": None}]) is None
