"""Pages in a Chromium without a window: what a reader would see, drawn by the processor."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Drawn by the processor, a large scene takes longer than a graphics card is allowed to be silent.
SOFTWARE_WEBGL = (
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--disable-gpu-watchdog",
)
NO_WEBGL = ("--disable-3d-apis",)


def screenshot(
    page: Path, width: int, height: int, webgl: Sequence[str] = SOFTWARE_WEBGL
) -> NDArray[np.uint8]:
    """The page as it looks after a while. [H, W, 3]"""
    picture = page.with_suffix(".png")
    _run(page, f"--screenshot={picture}", f"--window-size={width},{height}", "--hide-scrollbars", *webgl)
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def elements(page: Path, *options: str, webgl: Sequence[str] = SOFTWARE_WEBGL) -> str:
    """The page's elements after its scripts have run, as HTML."""
    return _run(page, "--dump-dom", *options, *webgl)


def console(page: Path, webgl: Sequence[str] = SOFTWARE_WEBGL) -> list[str]:
    """What scripts and the browser say about the page: errors, blocked loads."""
    return [
        line for line in _run(page, "--dump-dom", *webgl, stream="stderr").splitlines() if "CONSOLE" in line
    ]


def _run(page: Path, *options: str, stream: str = "stdout") -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on the path ({', '.join(NAMES)})")
    # Nothing of the network is there, so that a page which needs it shows it. Root has no sandbox.
    command = [
        *(found, "--headless=new", "--no-sandbox", "--disable-background-networking"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'browser'}"),
        *("--virtual-time-budget=4000", "--enable-logging=stderr", *options, page.resolve().as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout if stream == "stdout" else done.stderr
