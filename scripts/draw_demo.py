"""Draw docs/images/demo.png from what `mfl demo` has made: what its models make of one moment.

Rows: what six cameras saw; direct, from all six views, at these cameras; the same from six named sides; e2e,
from the first view alone, at the six cameras.

    python scripts/draw_demo.py [--demo outputs/demo] [--sample NAME] [--output docs/images/demo.png]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians.turntable import NAMED_VIEWS


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--sample", help="one of those that the demo reconstructs; by default its first")
    parser.add_argument("--output", type=Path, default=Path("docs/images/demo.png"))
    options = parser.parse_args()
    sample = options.sample or sorted(path.name for path in (options.demo / "direct").glob("sample_*"))[0]
    picture(options.demo, sample).save(options.output, optimize=True)


def picture(demo: Path, sample: str) -> Image.Image:
    """The rows below one another, all as wide as the first.

    Raises:
        DataError: the demo has no such results.
    """
    direct, e2e = (demo / mode / sample for mode in ("direct", "e2e"))
    shown, rendered = halves(direct / "comparison.png")
    sides = np.concatenate([pixels(direct / f"novel_{name}.png") for name in NAMED_VIEWS], axis=1)
    rows = [shown, rendered, sides, halves(e2e / "comparison.png")[1]]
    width = shown.shape[1]
    images = [fitted(Image.fromarray(row), width) for row in rows]
    whole = Image.new("RGB", (width, sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole


def fitted(image: Image.Image, width: int) -> Image.Image:
    """The same picture, so wide."""
    return image.resize((width, image.height * width // image.width), Image.Resampling.LANCZOS)


def halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The true views and the renderings of a comparison, each a row of pictures."""
    both = pixels(path)
    return both[: len(both) // 2], both[len(both) // 2 :]


def pixels(path: Path) -> np.ndarray:
    """A picture of the demo. [H, W, 3], uint8

    Raises:
        DataError: it is not there.
    """
    if not path.is_file():
        raise DataError(f"{path}: not there; `mfl demo` writes it. Give its folder with --demo.")
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


if __name__ == "__main__":
    main()
