"""A synthetic mouse in a synthetic rig, with exact ground truth: what the demo and the tests run on."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .config import RecordingConfig
    from .recording import write_recording

__all__ = ["RecordingConfig", "write_recording"]

__getattr__ = lazy_exports(__name__, {"RecordingConfig": "config", "write_recording": "recording"})
