import numpy as np
import pytest
from PIL import Image

from mouse_facelift.capture.image_folder import ImageFolder
from mouse_facelift.errors import DataError

LEVELS = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (16, 1))


def save(folder, array, mode=None, number=0):
    folder.mkdir(exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / f"{number:04d}.png")
    return ImageFolder(folder)


def test_frames_are_in_numeric_order_and_position_counts(tmp_path, numbered_frame, read_number):
    for number in range(8, 13):
        Image.fromarray(numbered_frame(number, 80, 48)).save(tmp_path / f"{number}.png")
    folder = ImageFolder(tmp_path)
    assert (folder.frame_count, folder.width, folder.height, folder.first_number) == (5, 80, 48, 8)
    assert [path.name for path in folder.files] == ["8.png", "9.png", "10.png", "11.png", "12.png"]
    assert [(index, read_number(picture)) for index, picture in folder.frames([0, 2, 4])] == [
        (0, 8),
        (2, 10),
        (4, 12),
    ]


def test_names_may_have_a_common_beginning(tmp_path, numbered_frame, read_number):
    for number in range(3):
        Image.fromarray(numbered_frame(number, 80, 48)).save(tmp_path / f"cam2_{number:03d}.png")
    assert [read_number(picture) for _, picture in ImageFolder(tmp_path).frames([0, 1, 2], "gray")] == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "1", "3", "6"], r"frames 2, 4, 5 are missing between 0\.png and 6\.png"),
        (["0", "20"], r"frames 1, 2, 3, 4, 5, 6 and 13 more are missing"),
        (["0", "1", "01"], r"01\.png and 1\.png have the same number"),
        (["a_0", "b_1"], r"a_0\.png and b_1\.png, expected frames that differ by their number only"),
        (["mask"], "no PNG frames named by a number"),
        ([], "no PNG frames named by a number"),
    ],
)
def test_broken_numbering_is_named(tmp_path, names, message):
    for name in names:
        Image.fromarray(LEVELS).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=message):
        ImageFolder(tmp_path)


def test_grey_rgb_and_rgba_files(tmp_path):
    color = np.dstack([LEVELS, LEVELS[:, ::-1], np.full_like(LEVELS, 7)])
    gray = save(tmp_path / "L", LEVELS)
    np.testing.assert_array_equal(next(gray.frames([0], "gray"))[1], LEVELS)
    np.testing.assert_array_equal(next(gray.frames([0]))[1], np.dstack([LEVELS] * 3))
    rgb = save(tmp_path / "RGB", color)
    np.testing.assert_array_equal(next(rgb.frames([0]))[1], color)
    rgba = save(tmp_path / "RGBA", np.dstack([color, LEVELS]))
    assert rgba.has_alpha
    np.testing.assert_array_equal(next(rgba.frames([0], "alpha"))[1], LEVELS)
    np.testing.assert_array_equal(next(rgba.frames([0]))[1], color)


def test_binary_palette_and_16_bit_masks(tmp_path):
    mask = 255 * (LEVELS > 100).astype(np.uint8)
    for folder in (
        save(tmp_path / "1", mask, "1"),
        save(tmp_path / "P", mask, "P"),
        save(tmp_path / "I;16", mask.astype(np.uint16) * 257),
    ):
        np.testing.assert_array_equal(next(folder.frames([0], "gray"))[1], mask)
        np.testing.assert_array_equal(next(folder.frames([0]))[1], np.dstack([mask] * 3))


def test_alpha_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"no alpha channel.*input\.masks"):
        next(save(tmp_path / "L", LEVELS).frames([0], "alpha"))
    folder = save(tmp_path / "mixed", np.dstack([LEVELS] * 4))
    folder = save(tmp_path / "mixed", LEVELS, number=1)
    with pytest.raises(DataError, match=r"0001\.png: has no alpha channel \(mode L\)"):
        list(folder.frames([0, 1], "alpha"))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_file_is_missing_and_the_next_one_is_read(
    tmp_path, write_numbered_folder, read_number, damage
):
    folder = ImageFolder(write_numbered_folder(tmp_path / "0", 4))
    content = bytearray(folder.files[2].read_bytes())
    middle = len(content) // 2
    if damage == "noise":
        content[middle : middle + 8] = b"\x5a" * 8
    folder.files[2].write_bytes({"cut": content[:middle], "noise": content, "empty": b""}[damage])
    found = [(index, picture) for index, picture in folder.frames(range(4))]
    assert [picture is None for _, picture in found] == [False, False, True, False]
    assert read_number(found[3][1]) == 3


def test_damaged_first_file_is_named_at_once(tmp_path, write_numbered_folder):
    path = write_numbered_folder(tmp_path / "0", 2)
    (path / "000000.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"000000\.png: not a readable PNG"):
        ImageFolder(path)


def test_other_size_is_refused(tmp_path):
    save(tmp_path / "0", LEVELS)
    folder = save(tmp_path / "0", LEVELS[:8], number=1)
    with pytest.raises(DataError, match=r"0001\.png: is 30x8, the frames before it 30x16"):
        list(folder.frames([0, 1]))


def test_watching_sees_every_frame_between(tmp_path, write_numbered_folder):
    folder, seen = ImageFolder(write_numbered_folder(tmp_path / "0", 9)), {}
    asked = dict(folder.frames([2, 6], "gray", watch=seen.__setitem__))
    assert list(asked) == [2, 6]
    assert list(seen) == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(seen[6], asked[6][::8, ::8])


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [-1], [3]])
def test_impossible_frame_numbers_are_refused(tmp_path, write_numbered_folder, indices):
    with pytest.raises(DataError, match="frame"):
        list(ImageFolder(write_numbered_folder(tmp_path / "0", 3)).frames(indices))
