"""What JPEG compression does to pictures, in torch, batched: nothing is written, nothing is differentiated.

Baseline JPEG (ITU-T T.81) without chroma subsampling: YCbCr, 8x8 cosine transform, quantisation by the tables
of its Annex K, scaled by quality as libjpeg does, and back.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""T.81, table K.1."""

CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""T.81, table K.2."""

TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
"""JFIF 1.02; chroma is centred on 0 here."""


@torch.no_grad()
def compress(rgb: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Args:
        rgb: In [0, 1]; what lies outside is cut off first. [B, V, 3, H, W]
        quality: 1 (worst) to 100, one per view; rounded to a whole number. [B, V]

    Returns:
        In [0, 1], in steps of 1/255. [B, V, 3, H, W]
    """
    height, width = rgb.shape[-2:]
    levels = (rgb.clamp(0, 1) * 255).round().flatten(0, 1)
    levels = F.pad(levels, (0, -width % 8, 0, -height % 8), mode="replicate")
    to_ycbcr = rgb.new_tensor(TO_YCBCR)
    ycbcr = torch.einsum("ij,njhw->nihw", to_ycbcr, levels)
    # The decoder gets whole numbers; chroma is stored with 128 added, which is taken off again.
    centred = ycbcr.round() - rgb.new_tensor([128.0, 0.0, 0.0])[:, None, None]
    # [N, 3, rows of blocks, 8, columns of blocks, 8]
    blocks = centred.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))
    cosine, tables = _cosine(rgb), _tables(quality.flatten())[:, :, None, :, None]
    spectrum = torch.einsum("ui,nchiwj,vj->nchuwv", cosine, blocks, cosine)
    kept = (spectrum / tables).round() * tables
    back = torch.einsum("ui,nchuwv,vj->nchiwj", cosine, kept, cosine)
    ycbcr = back.flatten(-2).flatten(-3, -2) + rgb.new_tensor([128.0, 0.0, 0.0])[:, None, None]
    decoded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(to_ycbcr.double()).to(rgb), ycbcr.round())
    return decoded[..., :height, :width].round().clamp(0, 255).reshape(rgb.shape) / 255


def _tables(quality: Tensor) -> Tensor:
    """Quantisation steps of Y, Cb and Cr, as libjpeg scales them. [N] -> [N, 3, 8, 8]"""
    quality = quality.round().clamp(1, 100)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    tables = quality.new_tensor([LUMA, CHROMA, CHROMA])
    return ((tables * scale[:, None, None, None] + 50) / 100).floor().clamp(1, 255)


def _cosine(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of 8 samples: rows are frequencies. [8, 8]"""
    sample = torch.arange(8, dtype=torch.float64)
    matrix = (math.pi / 8 * (sample + 0.5) * sample[:, None]).cos() / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)
