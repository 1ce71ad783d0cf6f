"""The files of one sample: PLY, pictures, turntable, page, metrics.

Any thread may write them, unless the turntable is still to be drawn: see `Results`.
"""

from pathlib import Path

from ..files import write_json
from ..pictures import encode_png
from ..videos import write_video
from ..viewer import Scene, pack, write_viewer
from .config import InferConfig
from .results import Results


def write_results(folder: Path, results: Results, config: InferConfig, name: str) -> None:
    """Fill a folder that is not in its place yet, so that a picture need not be whole or absent by itself.

    Args:
        folder: It is there, and empty.
        results: What is written.
        config: Whether there is a page; the video's speed.
        name: Of the sample, for warnings.

    Raises:
        DataError: values that are not finite.
    """
    results.stored.save_ply(folder / "gaussians.ply")
    for file, levels in results.pictures.items():
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(levels))
    if results.turntable_nbytes:
        write_video(folder / "turntable.mp4", results.turntable, config.turntable.fps)
    if config.page:
        frame = results.metrics["frame_index"]
        title = "Reconstruction" if frame is None else f"Frame {frame}"
        scene = Scene(title, [pack(results.gaussians, page=f"{name}: the page")])
        write_viewer(folder / "view.html", [scene], title, background=config.background)
    write_json(folder / "metrics.json", results.metrics)
