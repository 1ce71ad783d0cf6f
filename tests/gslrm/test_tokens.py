"""The order of patches and of the values in them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.errors import DataError
from mouse_facelift.gslrm.tokens import patchify, posed_images, unpatchify


def test_channel_runs_fastest_then_column_then_row_then_patch_then_view() -> None:
    B, V, C, H, W, p = 1, 2, 3, 4, 6, 2
    images = torch.arange(B * V * C * H * W).reshape(B, V, C, H, W)
    tokens = patchify(images, p)
    assert tokens.shape == (1, V * 2 * 3, p * p * C)
    view, patch_row, patch_column, row, column, channel = 1, 1, 2, 0, 1, 2
    token = (view * 2 + patch_row) * 3 + patch_column
    value = (row * p + column) * C + channel
    assert tokens[0, token, value] == images[0, view, channel, patch_row * p + row, patch_column * p + column]


@settings(max_examples=30, deadline=None)
@given(
    p=st.integers(1, 4),
    shape=st.tuples(
        st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)
    ),
)
def test_unpatchify_undoes_patchify(p: int, shape: tuple[int, int, int, int, int]) -> None:
    B, V, C, rows, columns = shape
    images = torch.rand(B, V, C, rows * p, columns * p)
    assert torch.equal(unpatchify(patchify(images, p), p, rows * p, columns * p), images)


def test_nearest_point_does_not_depend_on_where_along_the_ray_the_camera_stands() -> None:
    directions = torch.nn.functional.normalize(torch.randn(1, 1, 3, 2, 2), dim=2)
    origins = torch.randn(1, 1, 3, 2, 2)
    rgb = torch.rand(1, 1, 3, 2, 2)
    posed = posed_images(rgb, origins, directions)
    assert posed.shape == (1, 1, 9, 2, 2)
    torch.testing.assert_close((posed[:, :, 3:6] * posed[:, :, 6:]).sum(2), torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(posed_images(rgb, origins + 2.5 * directions, directions), posed)


def test_images_that_patches_do_not_tile_are_refused() -> None:
    with pytest.raises(DataError, match=r"20x12 pixels.*multiples of the patch size 8"):
        patchify(torch.zeros(1, 1, 3, 12, 20), 8)
