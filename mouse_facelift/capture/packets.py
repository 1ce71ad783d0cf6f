"""The order of a video's packets: which frame each holds, where decoding may start, what damage reaches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class Packet:
    """What a container says about one coded picture; hidden ones (edit list) are decoded, never shown."""

    pts: int | None
    key: bool
    hidden: bool


class PacketTable:
    """Frames of a video, numbered by the rank of their timestamps among all shown packets.

    Attributes:
        packets: In the file's order, which is the order of decoding.
        frame_count: Packets that are shown.
        exact: Every shown packet has a timestamp of its own, so that a timestamp is a frame number.
        all_key: No frame needs another one.
        keyframes: Frames that decoding may start with, increasing; 0 stands for the start of the file.
    """

    def __init__(self, packets: Sequence[Packet]) -> None:
        self.packets = packets
        shown = [packet for packet in packets if not packet.hidden]
        times = sorted(packet.pts for packet in shown if packet.pts is not None)
        self._frame = {pts: frame for frame, pts in enumerate(times)}
        self.frame_count = len(shown)
        self.exact = len(self._frame) == len(shown)
        self.all_key = all(packet.key for packet in packets)
        self.keyframes = [0]
        if self.exact:
            self._number()

    def _number(self) -> None:
        frames = [-1 if packet.hidden else self._frame[packet.pts] for packet in self.packets]  # type: ignore[index]
        self._rank = {frame: rank for rank, frame in enumerate(frames) if frame >= 0}
        self._latest = list(accumulate(frames, max))
        self._group = list(accumulate((packet.key for packet in self.packets), initial=0))[1:]
        keys = (rank for rank, packet in enumerate(self.packets) if packet.key)
        self._key = {self._group[rank]: frames[rank] for rank in keys}
        self.keyframes = sorted({0, *(frame for frame in self._key.values() if frame >= 0)})

    def frame(self, pts: int | None) -> int | None:
        """Number of the frame with this timestamp; None where no shown packet has it."""
        return None if pts is None else self._frame.get(pts)

    def rank(self, frame: int) -> int:
        """A frame's place in the order of decoding."""
        return self._rank[frame]

    def last_before(self, frame: int) -> int:
        """The latest of the frames that are decoded before this one, or itself.

        Once that one has arrived, all that a frame may be predicted from is known to be whole or not.
        """
        return self._latest[self._rank[frame]]

    def group(self, rank: int) -> int:
        """Number of the keyframe at or before this place in the order of decoding."""
        return self._group[rank]

    def is_leading(self, frame: int) -> bool:
        """Whether a frame is shown before the keyframe that is decoded before it (open GOP)."""
        return frame < self._key.get(self._group[self._rank[frame]], 0)


class Arrivals:
    """Frames on their way out of a decoder, held until it is known whether they are whole.

    Damage spreads from a packet to all that follow it in the order of decoding, up to the next keyframe, and
    to that keyframe's leading frames, since any of them may be predicted from it. A frame that is shown early
    may depend on one that is shown, and so found to be damaged, later.
    """

    def __init__(self, table: PacketTable, first: int) -> None:
        self._table, self._next = table, first
        self._waiting: list[tuple[int, Any]] = []
        self._damage: dict[int, int] = {}
        self._reported: set[int] = set()

    def damaged(self, rank: int) -> None:
        """The decoder said that a packet is not whole. Named by its place in the order of decoding."""
        self._reported.add(self._table.group(rank))
        self._spread(rank)

    def arrive(self, frame: int, picture: Any, skipped: set[int]) -> bool:
        """Take a picture; False where its number is not later than all before, so that numbers are wrong.

        After a damaged keyframe decoders do lose the order; what comes too late then counts as lost.

        Args:
            frame: Its number.
            picture: What is handed on.
            skipped: Frames that the decoder was told not to give; others between are lost.
        """
        if frame < self._next:
            group = self._table.group(self._table.rank(frame))
            return not self._reported.isdisjoint((group - 1, group, group + 1))
        self._lose(range(self._next, frame), skipped)
        self._waiting.append((frame, picture))
        self._next = frame + 1
        return True

    def settled(self) -> Iterator[tuple[int, Any]]:
        """Frames whose state is known by now, in order; None in place of a picture that is not whole."""
        known = 0
        while known < len(self._waiting) and self._table.last_before(self._waiting[known][0]) < self._next:
            known += 1
        ready, self._waiting = self._waiting[:known], self._waiting[known:]
        for frame, picture in ready:
            yield frame, picture if picture is not None and self._whole(frame) else None

    def finish(self, skipped: set[int]) -> Iterator[tuple[int, Any]]:
        """All that are left, after the decoder's last one."""
        self._lose(range(self._next, self._table.frame_count), skipped)
        self._next = self._table.frame_count
        return self.settled()

    def _lose(self, frames: range, skipped: set[int]) -> None:
        for frame in frames:
            if frame not in skipped:
                self._spread(self._table.rank(frame))
                self._waiting.append((frame, None))

    def _spread(self, rank: int) -> None:
        group = self._table.group(rank)
        self._damage[group] = min(rank, self._damage.get(group, rank))

    def _whole(self, frame: int) -> bool:
        rank = self._table.rank(frame)
        group = self._table.group(rank)
        if rank >= self._damage.get(group, len(self._table.packets)):
            return False
        return not (self._table.is_leading(frame) and group - 1 in self._damage)
