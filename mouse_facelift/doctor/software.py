"""Python, the libraries against this package's own bounds, and what of them must really work."""

import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ..errors import MflError
from .config import DoctorConfig
from .findings import Finding, ok, problem, some, warning

PACKAGE = "mouse-facelift"
TEST_EXTRA = "test"
"""Its libraries are for developers; nobody misses them."""
RIVALS = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Builds that write the same files as the one needed."""


def check_python(config: DoctorConfig) -> Iterator[Finding]:
    """The interpreter against the package's bound."""
    found = platform.python_version()
    try:
        wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    except metadata.PackageNotFoundError:
        wanted = None
    if wanted and not SpecifierSet(wanted).contains(found, prereleases=True):
        yield problem("python", f"{found}, needed {wanted}", "Make the environment with a newer Python.")
    else:
        yield ok("python", f"{found} on {platform.system()} {platform.machine()}")


def check_libraries(config: DoctorConfig) -> Iterator[Finding]:
    """Every library that the package names, against the bounds that it names."""
    try:
        requirements = [Requirement(line) for line in metadata.requires(PACKAGE) or []]
    except metadata.PackageNotFoundError:
        yield warning(
            "libraries", f"{PACKAGE} is not installed, so its bounds are unknown", "pip install -e ."
        )
        return
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    faults = [fault for requirement in needed if (fault := _fault(requirement, optional=False))]
    if faults:
        fix = "pip install " + " ".join(f"'{r.name}{r.specifier}'" for r in needed if _fault(r, False))
        yield problem("libraries", some(faults, 20), fix)
    else:
        yield ok("libraries", f"all {len(needed)} within the package's bounds")
    yield from _extras([r for r in requirements if r not in needed])


def check_video(config: DoctorConfig) -> Iterator[Finding]:
    """PyAV writes and reads H.264."""
    import av
    import numpy as np

    from ..videos import write_video

    frames = [np.full((16, 16, 3), level, np.uint8) for level in (40, 200)]
    fix = (
        "Install the wheel from PyPI, which has FFmpeg with libx264 inside: pip install --force-reinstall av"
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "test.mp4"
            write_video(path, frames)
            with av.open(str(path)) as container:
                levels = [
                    float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)
                ]
    except (MflError, av.FFmpegError, OSError) as error:
        yield problem("video", f"H.264 cannot be written and read back ({error})", fix)
        return
    if len(levels) != 2 or abs(levels[0] - 40) > 5 or abs(levels[1] - 200) > 5:
        yield problem("video", f"H.264 comes back changed: grey 40, 200 became {levels}", fix)
    else:
        yield ok("video", f"PyAV {av.__version__} writes and reads H.264")


def check_opencv(config: DoctorConfig) -> Iterator[Finding]:
    """OpenCV keeps a picture with alpha as it is, and there is one build of it."""
    import cv2
    import numpy as np

    picture = np.arange(4 * 4 * 4, dtype=np.uint8).reshape(4, 4, 4)
    written, content = cv2.imencode(".png", picture)
    back = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if written else None
    rivals = [name for name in RIVALS if _version(name) is not None]
    if back is None or not np.array_equal(back, picture):
        fix = "pip install --force-reinstall opencv-python-headless"
        yield problem("opencv", f"OpenCV {cv2.__version__} does not give a PNG with alpha back", fix)
    elif rivals:
        fix = f"pip uninstall {' '.join(rivals)}; pip install --force-reinstall opencv-python-headless"
        yield warning("opencv", f"{', '.join(rivals)} beside the headless build: same files, one wins", fix)
    else:
        yield ok("opencv", f"OpenCV {cv2.__version__} writes and reads PNG with alpha")


def _extras(requirements: list[Requirement]) -> Iterator[Finding]:
    """Optional libraries: those that are there must be new enough."""
    chosen = [r for r in requirements if f'"{TEST_EXTRA}"' not in str(r.marker)]
    faults = {r.name: fault for r in chosen if (fault := _fault(r, optional=True))}
    there = sorted({r.name for r in chosen if _version(r.name) is not None})
    absent = sorted({r.name for r in chosen} - set(there))
    if faults:
        fix = "pip install " + " ".join(f"'{r.name}{r.specifier}'" for r in chosen if r.name in faults)
        yield warning("optional libraries", some(list(faults.values())), fix)
    else:
        words = f"{', '.join(there) or 'none'} installed"
        yield ok("optional libraries", words + (f"; not: {', '.join(absent)}" if absent else ""))


def _fault(requirement: Requirement, optional: bool) -> str | None:
    found = _version(requirement.name)
    if found is None:
        return None if optional else f"{requirement.name} is not installed, needed {requirement.specifier}"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found}, needed {requirement.specifier}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
