"""Frame-exact video reading: frames are numbered in presentation order, by count and by timestamp.

Containers' own random access is never trusted: a seek is taken only where the timestamps of all packets are
known and unique, and the packet and the frame that arrive must carry the timestamps that were asked for.
Decoders are not trusted to complain either: H.264 hides damage by copying from neighbours, and only marks it.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .packets import Arrivals, Packet, PacketTable
from .sources import Pixels, Watch, check_request, shrink

MIN_SEEK_FRAMES = 8
"""Skipping fewer frames than this is quicker by decoding than by seeking."""

LUMA_FORMATS = {"gray", "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "nv12"}
"""Pixel formats whose first plane is 8-bit luma: grey levels without a conversion."""

FULL_RANGE = 2
"""FFmpeg's number of 0..255 luma; all else in YUV is 16..235."""

EXPAND = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
"""Luma 16..235 -> grey 0..255, to the bit what FFmpeg's own conversion gives."""

Settled = Iterator[tuple[int, Any]]
"""Frame number and libav's frame, or None where that is damaged; in the order of time."""


class VideoReader:
    """One video file; a `FrameSource`.

    Each call of `frames` decodes in the thread that iterates: cameras are read side by side instead, and an
    error then belongs to the packet that was handed in.

    Attributes:
        path, files, width, height, frame_count, fps, has_alpha, first_number, keyframes: See `FrameSource`.

    Raises:
        DataError: the file is missing, empty, not a video, or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, [path]
        self.first_number = 0
        if not path.is_file():
            raise DataError(f"{path}: no such video.")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes). Copy or export the video again.")
        with self._open() as container:
            stream = container.streams.video[0]
            self.width, self.height = int(stream.width), int(stream.height)
            self.fps = float(stream.average_rate or stream.base_rate or 0)
            pixel_format = stream.codec_context.format
            # A file without a decodable frame has no format; what is wrong with it is told below.
            components = pixel_format.components if pixel_format else ()
            self.has_alpha = any(component.is_alpha for component in components)
            self._may_skip = stream.codec_context.name == "h264"
            self._table = PacketTable(self._packets(container))
            self._check_whole(stream)
            # AVI stores no presentation times; those that libav makes up are wrong for reordered frames.
            invented = container.format.name == "avi" and not self._table.all_key
        self._exact = self._table.exact and not invented
        self.keyframes: Sequence[int] = self._table.keyframes if self._exact else [0]
        self.frame_count = self._table.frame_count if self._exact else self._decodable()
        if self.frame_count == 0:
            raise DataError(f"{path}: holds no frames. Export the video again.")

    def frames(
        self,
        indices: Sequence[int],
        pixels: Pixels = "rgb24",
        watch: Watch | None = None,
        stop: Event | None = None,
    ) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Decode some frames; see `FrameSource.frames`. Others are skipped without colour conversion."""
        check_request(self, indices, pixels)
        wanted = set(indices) if watch is None and self._may_skip else None
        with self._open() as container:
            settled = self._decode(container.demux(container.streams.video[0]), 0, wanted)
            position = 0
            for target in indices:
                ahead = self._keyframe(target) - position
                if ahead >= MIN_SEEK_FRAMES and (watch is None or position == 0):
                    settled = self._decode_from(container, target, wanted)
                for index, frame in settled:
                    if stop is not None and stop.is_set():
                        return
                    if watch is not None and frame is not None:
                        watch(index, self._small(index, frame, pixels))
                    if index == target:
                        break
                else:
                    raise DataError(f"{self.path}: ends before frame {target}. Export the video again.")
                position = target + 1
                yield target, None if frame is None else self._picture(target, frame, pixels)

    def _open(self, options: dict[str, str] | None = None) -> Any:
        try:
            container = av.open(str(self.path), options=options)
        except PermissionError:
            raise DataError(f"{self.path}: may not be read. Give yourself permission to read it.") from None
        except (av.FFmpegError, OSError) as error:
            raise DataError(
                f"{self.path}: not a readable video ({error.strerror}); a file that was cut off while being "
                "written lacks its index. Copy or export the video again."
            ) from None
        if not container.streams.video:
            container.close()
            raise DataError(f"{self.path}: holds no video stream.")
        container.streams.video[0].codec_context.thread_count = 1
        return container

    def _packets(self, container: Any) -> list[Packet]:
        """All whole packets in the order of the file."""
        try:
            return [
                Packet(packet.pts, bool(packet.is_keyframe), bool(packet.is_discard))
                for packet in container.demux(container.streams.video[0])
                if packet.size and not packet.is_corrupt
            ]
        except av.FFmpegError as error:
            raise DataError(f"{self.path}: cannot be read to its end ({error.strerror}).") from None

    def _check_whole(self, stream: Any) -> None:
        """Compare what is there with what the file announces."""
        announced, found = int(stream.frames), len(self._table.packets)
        if found < announced:  # An edit list may have cut frames off at the end.
            with self._open({"ignore_editlist": "1"}) as container:
                found = len(self._packets(container))
        if found < announced:
            raise DataError(
                f"{self.path}: announces {announced} frames, only {self._decodable()} can be decoded: the "
                "file is cut off. Copy or export the video again."
            )
        announced_s = _seconds(stream.metadata.get("DURATION", ""))
        times = [packet.pts for packet in self._table.packets if packet.pts is not None]
        found_s = float(max(times, default=0) * stream.time_base)
        if not announced and self.fps and found_s < 0.99 * announced_s - 3 / self.fps:
            raise DataError(
                f"{self.path}: announces {announced_s:.2f} s, only {found_s:.2f} s are there: the file is "
                "cut off. Copy or export the video again."
            )

    def _decodable(self) -> int:
        count = 0
        with self._open() as container:
            try:
                for _ in container.decode(container.streams.video[0]):
                    count += 1
            except av.FFmpegError:
                return count
        return count

    def _keyframe(self, frame: int) -> int:
        """The keyframe at or before a frame."""
        return self.keyframes[bisect_right(self.keyframes, frame) - 1]

    def _decode_from(self, container: Any, target: int, wanted: set[int] | None) -> Settled:
        """Frames from a keyframe at or before `target` on; keyframes that turn out useless are forgotten."""
        while True:
            keyframe = self._keyframe(target)
            packets = self._seek(container, keyframe)
            settled = self._decode(packets, keyframe, wanted)
            if keyframe == 0:
                return settled
            first = next(settled, None)
            if first is not None and first[0] == keyframe and first[1] is not None:
                return chain([first], settled)
            self.keyframes = [known for known in self.keyframes if known != keyframe]

    def _seek(self, container: Any, keyframe: int) -> Iterator[Any]:
        """Packets from a keyframe's on, or from the first on; none where the container cannot find them."""
        rank = self._table.rank(keyframe) if keyframe else 0
        sought = self._table.packets[rank].pts
        stream = container.streams.video[0]
        container.seek(sought, stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            if packet.pts == sought:
                return chain([packet], packets)
            index = self._table.frame(packet.pts)
            if index is not None and self._table.rank(index) > rank:
                break
        if keyframe == 0:
            raise DataError(f"{self.path}: cannot seek to its first frame. Export the video again.")
        return iter(())

    def _decode(self, packets: Iterator[Any], first: int, wanted: set[int] | None) -> Settled:
        """Frames from `first` on; `packets` start with the one that holds it, or with the file.

        Args:
            packets: In the order of decoding, as the container gives them.
            first: Frame that a keyframe holds, or 0.
            wanted: Others are left out where no frame needs them; None for all.
        """
        if not self._exact:
            yield from self._count(packets)
            return
        arrivals, skipped = Arrivals(self._table, first), set[int]()
        rank = self._table.rank(first) if first else 0
        for packet in packets:
            if (packet.size and packet.is_corrupt) or (not packet.size and packet.dts is not None):
                continue
            index = self._table.frame(packet.pts)
            if index is None or index >= first:  # Others lead an open GOP and need what was not decoded.
                discard = "DEFAULT"
                if index is not None and wanted is not None and index not in wanted:
                    discard = "NONREF"
                    skipped.add(index)
                packet.stream.codec_context.skip_frame = discard
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    frames = []
                    arrivals.damaged(rank)
                self._arrive(arrivals, frames, skipped)
                yield from arrivals.settled()
            rank += 1
        yield from arrivals.finish(skipped)

    def _arrive(self, arrivals: Arrivals, frames: Sequence[Any], skipped: set[int]) -> None:
        for frame in frames:
            index = self._table.frame(frame.pts)
            if index is None or not arrivals.arrive(index, frame, skipped):
                raise DataError(
                    f"{self.path}: a frame with timestamp {frame.pts} arrives out of order, so frames cannot "
                    "be numbered. Export the video again."
                )
            if frame.is_corrupt:
                arrivals.damaged(self._table.rank(index))

    def _count(self, packets: Iterator[Any]) -> Settled:
        """All frames, numbered by counting: nothing may be lost or out of place."""
        index = 0
        try:
            for packet in packets:
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise av.InvalidDataError(0, "damaged")
                    yield index, frame
                    index += 1
        except av.FFmpegError as error:
            raise DataError(
                f"{self.path}: frame {index} of {self.frame_count} cannot be decoded ({error.strerror}), and "
                "the file has no timestamps to number the frames after it. Copy or export the video again."
            ) from None

    def _picture(self, index: int, frame: Any, pixels: Pixels) -> NDArray[np.uint8]:
        self._check_size(index, frame)
        if pixels == "rgb24":
            return frame.to_ndarray(format="rgb24")
        if pixels == "alpha":
            return np.ascontiguousarray(frame.to_ndarray(format="rgba")[..., 3])
        luma = _luma(frame)
        if luma is None:
            return frame.to_ndarray(format="gray")
        return luma.copy() if _is_full_range(frame) else cv2.LUT(luma, EXPAND)

    def _small(self, index: int, frame: Any, pixels: Pixels) -> NDArray[np.uint8]:
        """`shrink` of the grey or alpha picture, made of few pixels where that is possible."""
        luma = _luma(frame)
        if pixels == "alpha" or luma is None:
            return shrink(self._picture(index, frame, "alpha" if pixels == "alpha" else "gray"))
        self._check_size(index, frame)
        return shrink(luma) if _is_full_range(frame) else EXPAND[shrink(luma)]

    def _check_size(self, index: int, frame: Any) -> None:
        if (frame.width, frame.height) != (self.width, self.height):
            raise DataError(
                f"{self.path}: frame {index} is {frame.width}x{frame.height}, the video {self.width}x"
                f"{self.height}. Export the video again with one size."
            )


def _luma(frame: Any) -> NDArray[np.uint8] | None:
    """A view of the first plane where that is 8-bit luma. [H, W]"""
    if frame.format.name not in LUMA_FORMATS:
        return None
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


def _is_full_range(frame: Any) -> bool:
    name = frame.format.name
    return name == "gray" or name.startswith("yuvj") or frame.color_range == FULL_RANGE


def _seconds(text: str) -> float:
    """Matroska's duration of a track, 00:00:02.333000000; 0 where it is not one."""
    hours, _, rest = text.partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0
