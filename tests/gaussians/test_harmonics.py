from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians.harmonics import SH_C0, harmonics, sh_colors, sh_degree


def sphere(count: int) -> Tensor:
    """Directions spread evenly (Fibonacci). [count, 3]"""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * i / count, i * torch.pi * (1 + 5**0.5)
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)


def test_harmonics_are_orthonormal_on_the_sphere():
    values = harmonics(sphere(20000), 3)
    gram = 4 * torch.pi * values.T @ values / len(values)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("degree", range(3))
def test_lower_degrees_are_the_beginning_of_higher_ones(degree: int):
    count = (degree + 1) ** 2
    assert harmonics(sphere(50), degree).equal(harmonics(sphere(50), 3)[:, :count])
    assert sh_degree(count) == degree


def test_number_of_coefficients_must_be_a_square():
    with pytest.raises(DataError, match="found 5 spherical harmonics"):
        sh_degree(5)


def test_colours_are_limited_below_only():
    sh = torch.tensor([-5.0, 0.0, 5.0]).expand(1, 3)
    color = sh_colors(sh, torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(color, torch.tensor([0.0, 0.5, 0.5 + 5 * SH_C0]))


@pytest.mark.parity
def test_published_values(shared: Path):
    published = load_file(shared / "fixtures/facelift/ply.safetensors")
    directions, coefficients = published["sh_dirs"][:, 0], published["sh_coeffs"]
    found = [key for key in published if key.startswith("eval_sh_deg")]
    assert found
    for key in found:
        degree = int(key.removeprefix("eval_sh_deg"))
        values = harmonics(directions, degree)
        expected = published[key]
        if degree == 0:
            values, expected = values[:1], expected[None]
        colors = torch.einsum("is,jcs->ijc", values, coefficients[..., : (degree + 1) ** 2])
        assert (colors - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parity
def test_published_colours_of_degree_zero(shared: Path):
    published = load_file(shared / "fixtures/facelift/ply.safetensors")
    features = published["features"]
    colors = sh_colors(features, F.normalize(torch.ones(len(features), 3), dim=-1))
    torch.testing.assert_close(colors, published["sh2rgb"][:, 0].clamp_min(0))
