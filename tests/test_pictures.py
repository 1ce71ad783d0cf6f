from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mouse_facelift.pictures import contact_sheet, encode_png, label, to_uint8, write_png


def test_eight_bit_values_are_clamped_and_rounded():
    rgb = torch.tensor([-1.0, 0.5, 7.0])[:, None, None].expand(3, 2, 4)
    assert to_uint8(rgb).shape == (2, 4, 3)
    assert to_uint8(rgb)[0, 0].tolist() == [0, 128, 255]


def test_pictures_come_back_from_png_files_to_the_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (7, 9, 3))
    cases = noise.astype(np.uint8), noise[..., 0].astype(np.uint8), noise[..., 0].astype(np.uint16)
    for levels in cases:
        (tmp_path / "picture.png").write_bytes(encode_png(levels))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "picture.png")), levels)


def test_several_pictures_become_8_bits_at_once() -> None:
    rgb = torch.rand(2, 3, 4, 5)
    assert np.array_equal(to_uint8(rgb), np.stack([to_uint8(picture) for picture in rgb]))


def test_contact_sheet_has_a_row_for_each_stack_and_a_column_for_each_picture(tmp_path: Path) -> None:
    upper, lower = torch.full((2, 3, 4, 5), 0.8), torch.full((2, 3, 4, 5), 0.2)
    lower[1] = 1.7
    write_png(tmp_path / "new" / "grid.png", contact_sheet(upper, lower))
    grid = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    assert grid.shape == (8, 10, 3)
    assert [grid[row, column, 0] for row in (0, 4) for column in (0, 5)] == [204, 204, 51, 255]


def test_label_is_centred_and_fits() -> None:
    for text in ("a", "a long caption of a small picture", "two\nlines"):
        picture = label(text, 24, 90)
        assert picture.shape == (3, 24, 90)
        rows, columns = (picture[0] < 0.9).nonzero().T
        assert len(rows)
        assert abs(columns.min() - (89 - columns.max())) <= 4
        assert columns.min() > 0
        assert rows.min() > 0
        assert rows.max() < 23
