"""Group norm channel by channel: torch's numbers, in place of all norms of pictures."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from mouse_facelift.mvdiffusion.group_norm import ChannelwiseGroupNorm, norm_by_channel


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_is_torchs_group_norm(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(3, 12, 7, 5, generator=generator) + offset
    plain, ours = nn.GroupNorm(4, 12, eps=1e-5), ChannelwiseGroupNorm(4, 12, eps=1e-5)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.randn(12, generator=generator))
    ours.load_state_dict(plain.state_dict())
    expected = plain.double()(pictures.double()).float()
    torch.testing.assert_close(ours(pictures), expected, rtol=1e-4, atol=1e-5 + 3e-7 * offset)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(pictures), expected, rtol=1e-4, atol=1e-5 + 3e-7 * offset)
    assert ours(pictures.half()).dtype == torch.float16


def test_vae_with_it_makes_the_same_pictures() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()
    latents = torch.randn(2, 4, 6, 6)
    names, before = set(vae.state_dict()), sum(isinstance(part, nn.GroupNorm) for part in vae.modules())
    with torch.no_grad():
        expected = vae.decode(latents).sample
        norm_by_channel(vae)
        torch.testing.assert_close(vae.decode(latents).sample, expected, rtol=1e-4, atol=1e-5)
    assert set(vae.state_dict()) == names
    assert sum(isinstance(part, ChannelwiseGroupNorm) for part in vae.modules()) > before - 3 > 10
