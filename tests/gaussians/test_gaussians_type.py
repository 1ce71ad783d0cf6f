from dataclasses import replace

import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians.gaussians import SH_C0, Gaussians


def scene(*lead: int) -> Gaussians:
    return Gaussians(
        torch.rand(*lead, 3),
        torch.rand(*lead, 4),
        torch.rand(*lead, 3),
        torch.rand(*lead),
        torch.rand(*lead, 1, 3),
    )


def test_shapes_must_agree():
    with pytest.raises(DataError, match=r"Gaussians\.opacities has shape \(5, 1\), expected \(5,\)"):
        Gaussians(torch.rand(5, 3), torch.rand(5, 4), torch.rand(5, 3), torch.rand(5, 1), torch.rand(5, 1, 3))


def test_length_is_the_number_of_gaussians_and_indexing_takes_the_first_axis():
    batch = scene(2, 7)
    assert len(batch) == len(batch[1]) == 7
    torch.testing.assert_close(batch[1].means, batch.means[1])
    mask = torch.arange(7) > 3
    assert len(batch[0][mask]) == 3
    assert batch[0][None].sh0.shape == (1, 7, 1, 3)


def test_colours_are_degree_zero_harmonics_clamped_below_only():
    gaussians = scene(3)
    sh0 = torch.tensor([-5.0, 0.0, 5.0])[:, None, None].expand(3, 1, 3)
    rgb = Gaussians(gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, sh0).rgb
    torch.testing.assert_close(rgb[:, 0], torch.tensor([0.0, 0.5, 0.5 + 5 * SH_C0]))


def test_stored_values_are_inverse_activations():
    gaussians = scene(100)
    torch.testing.assert_close(gaussians.log_scales.exp(), gaussians.scales)
    torch.testing.assert_close(gaussians.logit_opacities.sigmoid(), gaussians.opacities)


def test_casting_and_detaching_act_on_every_tensor():
    gaussians = scene(3)
    gaussians.means.requires_grad_()
    other = gaussians.detach().to(torch.float64)
    assert not other.means.requires_grad
    assert {t.dtype for t in (other.means, other.quats, other.scales, other.opacities, other.sh0)} == {
        torch.float64
    }


def test_colours_may_depend_on_the_view():
    plain = scene(2, 7)
    assert plain.sh_degree == 0
    assert plain.sh is plain.sh0
    rest = torch.rand(2, 7, 8, 3)
    gaussians = replace(plain, sh_rest=rest)
    assert gaussians.sh_degree == 2
    assert gaussians.sh.shape == (2, 7, 9, 3)
    assert gaussians[1].to(torch.float64).detach().sh_rest.dtype == torch.float64
    assert gaussians[1][torch.arange(7) > 3].sh_rest.equal(rest[1, 4:])


@pytest.mark.parametrize("shape", [(7, 4, 3), (7, 3, 1), (6, 3, 3), (3,)])
def test_harmonics_must_fit_the_gaussians(shape: tuple[int, ...]):
    with pytest.raises(DataError, match=r"Gaussians\.sh_rest has shape"):
        replace(scene(7), sh_rest=torch.rand(shape))
