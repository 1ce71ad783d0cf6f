"""The order of patches and of the values in them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mouse_facelift.errors import DataError
from mouse_facelift.gslrm.tokens import foreground_patches, patchify, posed_images


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
def test_patchify_keeps_every_value_once(p: int, shape: tuple[int, int, int, int, int]) -> None:
    B, V, C, rows, columns = shape
    images = torch.arange(B * V * C * rows * p * columns * p).view(B, V, C, rows * p, columns * p)
    assert torch.equal(patchify(images, p).flatten(1).sort().values, images.flatten(1))


def disk(radius: float, center: tuple[float, float] = (16, 16), size: int = 32) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((x + 0.5 - center[0]) ** 2 + (y + 0.5 - center[1]) ** 2 < radius**2).float()


def test_kept_patches_are_those_of_the_animal_and_a_margin() -> None:
    alpha = disk(3.9)[None, None]
    assert foreground_patches(alpha, 4, 0, 1).tolist() == [[27, 28, 35, 36]]
    ring = foreground_patches(alpha, 4, 1, 1)[0]
    assert ring.tolist() == [row * 8 + column for row in range(2, 6) for column in range(2, 6)]


def test_count_is_the_largest_need_rounded_up_and_filled_with_the_nearest_patches() -> None:
    alpha = torch.stack([disk(3.9), disk(5)])[:, None]
    kept = foreground_patches(alpha, 4, 0, 5)
    assert kept.shape == (2, 15)
    assert all(len(set(row)) == 15 for row in kept.tolist())
    nearest = {(patch // 8, patch % 8) for patch in kept[0].tolist()}
    assert {(3, 3), (3, 4), (4, 3), (4, 4)} <= nearest
    assert {max(3 - y, y - 4, 0) + max(3 - x, x - 4, 0) for y, x in nearest} <= {0, 1, 2}
    assert sum(max(3 - y, y - 4, 0) + max(3 - x, x - 4, 0) == 1 for y, x in nearest) == 8


def test_views_share_the_budget_and_a_view_without_animal_gets_none() -> None:
    alpha = torch.stack([torch.zeros(32, 32), disk(3.9)])[None]
    assert foreground_patches(alpha, 4, 0, 1).tolist() == [[64 + index for index in (27, 28, 35, 36)]]


def test_all_patches_are_kept_when_rounding_asks_for_more_than_there_are() -> None:
    assert foreground_patches(disk(3.9)[None, None], 4, 0, 1000).tolist() == [list(range(64))]


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
