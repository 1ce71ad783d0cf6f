"""A synthetic mouse in a synthetic rig, with exact ground truth: what the demo and the tests run on."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .animal import MousePose, MouseShape
    from .config import RecordingConfig
    from .motion import poses
    from .mouse import Mesh, mouse_mesh
    from .raster import Render, rasterize, render_mesh
    from .recording import write_recording
    from .rig import held_out_rig, mammal_rig

__all__ = [
    "Mesh",
    "MousePose",
    "MouseShape",
    "RecordingConfig",
    "Render",
    "held_out_rig",
    "mammal_rig",
    "mouse_mesh",
    "poses",
    "rasterize",
    "render_mesh",
    "write_recording",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Mesh": "mouse",
        "MousePose": "animal",
        "MouseShape": "animal",
        "RecordingConfig": "config",
        "Render": "raster",
        "held_out_rig": "rig",
        "mammal_rig": "rig",
        "mouse_mesh": "mouse",
        "poses": "motion",
        "rasterize": "raster",
        "render_mesh": "raster",
        "write_recording": "recording",
    },
)
