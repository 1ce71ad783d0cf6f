"""A recording's frames prepared in memory, by the same stages that write samples.

Only what the first pass has seen is kept on disk, in the workspace's hidden folder, while the work is under
way; so an interrupted run does not look at the masks again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..capture.recording import Recording
from ..errors import MflError
from .first_stages import first_stages
from .journal import Journal
from .opening import Opened
from .plan import Plan, PlannedSample
from .second_pass import Lost, Prepared, SecondPass
from .shard import SINGLE
from .workspace import Workspace

HIDDEN = ".frames"
"""Where what was seen is kept; apart from the `.work` of a `mfl preprocess` that is under way there."""


@dataclass(frozen=True, eq=False)
class PlannedFrames:
    """The frames that become samples.

    Attributes:
        plan: Names, frames and geometry, the same as those of `mfl preprocess`.
    """

    plan: Plan
    _recording: Recording
    _second_pass: SecondPass

    @property
    def samples(self) -> list[PlannedSample]:
        """In time order, without those that are known to be lost."""
        return [sample for sample in self.plan.samples if sample.frame not in self.lost]

    @property
    def lost(self) -> Mapping[int, str]:
        """Planned frames whose pictures turned out to be unusable so far, and why."""
        return self._second_pass.first_pass.lost

    def prepare(self, samples: Sequence[PlannedSample]) -> Iterator[tuple[PlannedSample, Prepared | Lost]]:
        """Make some of them, in time order, a few ahead of the caller: as many as there are threads.

        Raises:
            DataError: a stream cannot be read on, or a figure is beyond a limit that stops.
        """
        return self._second_pass.prepare(self._recording, samples)


@contextmanager
def planned_frames(opened: Opened, folder: Path) -> Iterator[PlannedFrames]:
    """Choose the frames and their geometry.

    Args:
        opened: The recording.
        folder: Whose hidden sub-folder holds what was seen. It goes at the end of the block and after an
            error of ours; it stays where the process was interrupted.

    Raises:
        ConfigError: another process is working there.
        DataError: no frame is usable, or a figure is beyond a limit that stops.
        CalibrationError: the masks contradict the calibration.
    """
    workspace = Workspace(folder / HIDDEN)
    workspace.begin(opened.identity)
    # Where another process holds the lock, what is there is that one's, and stays.
    with workspace.lock(SINGLE.name):
        try:
            with Journal(workspace.work, SINGLE.name) as journal:
                facts, plan, first_pass = first_stages(opened, workspace, journal, SINGLE)
                second_pass = SecondPass(opened.config, facts, plan, first_pass)
                yield PlannedFrames(plan, opened.recording, second_pass)
        except MflError:
            _leave(workspace, folder)
            raise
        _leave(workspace, folder)


def _leave(workspace: Workspace, folder: Path) -> None:
    workspace.abandon()
    with suppress(OSError):  # Results are in it.
        folder.rmdir()
