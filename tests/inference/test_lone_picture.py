from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.inputs import find_sources
from mouse_facelift.inference.lone_picture import read_cutout
from mouse_facelift.inference.run import run

Make = Callable[..., InferConfig]
HEIGHT, WIDTH = 40, 50


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "mouse.png")
    return tmp_path / "mouse.png"


def grey(inside: int = 255, outside: int = 0) -> np.ndarray:
    levels = np.full((HEIGHT, WIDTH), outside, np.uint8)
    levels[10:30, 15:40] = inside
    return levels


def save(path: Path, levels: np.ndarray) -> Path:
    Image.fromarray(levels).save(path)
    return path


def test_mask_becomes_alpha_and_colours_stay(picture: Path, tmp_path: Path) -> None:
    rgba = read_cutout(picture, save(tmp_path / "mask.png", grey()))
    assert np.array_equal(rgba[..., 3], grey())
    assert np.array_equal(rgba[..., :3], np.asarray(Image.open(picture)))


def test_mask_is_the_animal_above_127(picture: Path, tmp_path: Path) -> None:
    levels = grey(128, 127)
    rgba = read_cutout(picture, save(tmp_path / "mask.png", levels))
    assert np.array_equal(rgba[..., 3] > 0, levels == 128)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_mask_may_be_stored_in_any_8_bit_mode(picture: Path, tmp_path: Path, mode: str) -> None:
    Image.fromarray(grey()).convert(mode).save(tmp_path / "mask.png")
    assert np.array_equal(read_cutout(picture, tmp_path / "mask.png")[..., 3], grey())


def test_mask_gives_the_same_as_the_alpha_that_it_stands_for(picture: Path, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.png", grey())
    rgba = np.dstack([np.asarray(Image.open(picture)), grey()])
    Image.fromarray(rgba).save(tmp_path / "cutout.png")
    (masked,), (cut,) = find_sources(picture, mask=mask), find_sources(tmp_path / "cutout.png")
    assert masked.read(32, 0.6).rgba.equal(cut.read(32, 0.6).rgba)
    assert masked.fingerprint != find_sources(picture)[0].fingerprint


def test_wrong_masks_say_what_is_wrong(picture: Path, tmp_path: Path) -> None:
    cases = [
        (grey(0), "mask is empty: no grey level is above 127 .the largest is 0.*white"),
        (grey(1), "the largest is 1"),
        (grey(0, 255), r"white along 100% of the picture's border, .* invert it"),
        (np.full((HEIGHT, WIDTH), 255, np.uint8), "white along 100%"),
        (grey()[:20], r"mask is 50x20 pixels, the picture is 50x40. Export the mask"),
        (grey().astype(np.uint16) * 200, "mode I;16, expected an 8-bit grey"),
    ]
    for levels, message in cases:
        with pytest.raises(DataError, match=message):
            read_cutout(picture, save(tmp_path / "mask.png", levels))
    with pytest.raises(DataError, match=r"none\.png: no such picture"):
        read_cutout(picture, tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png: not a readable picture"):
        read_cutout(picture, tmp_path / "text.png")


def test_picture_of_16_bits_is_not_taken_for_a_white_one(tmp_path: Path) -> None:
    picture = save(tmp_path / "deep.png", grey().astype(np.uint16) * 200)
    with pytest.raises(DataError, match=r"deep\.png: has mode I;16, expected an 8-bit"):
        read_cutout(picture, save(tmp_path / "mask.png", grey()))


def test_picture_of_a_turned_camera_stands_upright(tmp_path: Path) -> None:
    upright = np.dstack([3 * [grey(90)]]).transpose(1, 2, 0) + np.arange(WIDTH, dtype=np.uint8)[:, None]
    image = Image.fromarray(np.rot90(upright).copy())
    tags = image.getexif()
    tags[0x0112] = 6  # The viewer shall turn it clockwise.
    image.save(tmp_path / "turned.png", exif=tags)
    cut = read_cutout(tmp_path / "turned.png", save(tmp_path / "mask.png", grey()))
    assert np.array_equal(cut[..., :3], upright)


def test_alpha_and_a_mask_are_one_too_many(tmp_path: Path) -> None:
    rgba = np.dstack([*3 * [grey()], grey()])
    cutout, mask = save(tmp_path / "cutout.png", rgba), save(tmp_path / "mask.png", grey())
    with pytest.raises(ConfigError, match="alpha of its own"):
        read_cutout(cutout, mask)
    rgba[..., 3] = 255
    assert read_cutout(save(tmp_path / "opaque.png", rgba), mask)[..., 3].any()


def test_mask_of_something_else_than_a_picture_is_refused(
    config: Make, balls: Path, rig_pipeline: Path, tmp_path: Path
) -> None:
    mask = save(tmp_path / "mask.png", grey())
    with pytest.raises(ConfigError, match="mode direct does not use mask"):
        config(f"input={balls}", f"mask={mask}")
    with pytest.raises(DataError, match="is for one picture"):
        run(config("mode=e2e", f"mvdiffusion={rig_pipeline}", f"input={balls}", f"mask={mask}"))


def test_picture_with_a_mask_is_reconstructed(
    config: Make, picture: Path, facelift_pipeline: Path, tmp_path: Path
) -> None:
    mask = save(tmp_path / "mask.png", grey())
    settings = ("mode=e2e", f"mvdiffusion={facelift_pipeline}", f"input={picture}", f"mask={mask}")
    out = run(config(*settings))
    assert (out / "mouse" / "gaussians.ply").is_file()
    save(mask, np.roll(grey(), 3))
    with pytest.raises(ConfigError, match="made before that file changed"):
        run(config(*settings))


def test_several_pictures_with_masks_may_share_a_folder_of_results(
    config: Make, picture: Path, facelift_pipeline: Path, tmp_path: Path
) -> None:
    other = save(tmp_path / "other.png", np.asarray(Image.open(picture))[::-1].copy())
    for path in (picture, other):
        mask = save(tmp_path / f"{path.stem}_mask.png", grey())
        settings = ("mode=e2e", f"mvdiffusion={facelift_pipeline}", f"input={path}", f"mask={mask}")
        out = run(config(*settings, "named_views=false", "turntable.frames=0", "page=false"))
    assert {path.name for path in out.iterdir()} == {"mouse", "other", "run.json"}
