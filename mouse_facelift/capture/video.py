"""Frame-exact video reading: frames are numbered in presentation order, by count and by timestamp.

Containers' own random access is never trusted: a seek is taken only where the timestamps of all packets are
known and unique, and the frame that arrives must carry the timestamp that was asked for.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

MIN_SEEK_FRAMES = 8
"""Skipping fewer frames than this is quicker by decoding than by seeking."""


class VideoReader:
    """One video file.

    Attributes:
        path: The file.
        width: Picture width in pixels.
        height: Picture height in pixels.
        frame_count: Frames that are really there, counted by reading all packets.
        fps: Average frame rate in 1/s; 0 where the file does not say.

    Raises:
        DataError: the file is missing, empty, not a video, or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such video.")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes). Copy or export the video again.")
        with self._open() as container:
            stream = self._stream(container)
            self.width, self.height = int(stream.width), int(stream.height)
            self.fps = float(stream.average_rate or stream.base_rate or 0)
            announced = int(stream.frames)
            packets = self._packets(container, stream)
        shown = [packet for packet in packets if not packet[2]]
        self._pts = sorted(pts for pts, _, _ in shown if pts is not None)
        self._index = {pts: index for index, pts in enumerate(self._pts)}
        self._exact = len(self._index) == len(shown)
        keys = [self._index[pts] for pts, key, _ in shown if key and pts is not None] if self._exact else []
        self._keyframes = sorted({0, *keys})
        if len(packets) < announced:
            raise DataError(
                f"{path}: announces {announced} frames, only {self._decodable()} can be decoded: the file is "
                "cut off. Copy or export the video again."
            )
        self.frame_count = len(shown) if self._exact else self._decodable()
        if self.frame_count == 0:
            raise DataError(f"{path}: holds no frames. Export the video again.")

    def frames(
        self, indices: Sequence[int], pixels: Literal["rgb24", "gray"] = "rgb24"
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode some frames; the others are skipped without colour conversion.

        Args:
            indices: Frame numbers in presentation order, strictly increasing.
            pixels: `rgb24` gives [H, W, 3], `gray` gives [H, W].

        Yields:
            Frame number and picture, in the order of `indices`.

        Raises:
            DataError: a number is out of range or order, or a frame cannot be decoded.
        """
        self._check_indices(indices)
        with self._open() as container:
            stream = self._stream(container)
            stream.thread_type = "AUTO"
            decoded, position = self._decode(container, 0), 0
            for target in indices:
                keyframe = self._keyframes[bisect_right(self._keyframes, target) - 1]
                if keyframe - position >= MIN_SEEK_FRAMES:
                    decoded = self._decode_from(container, keyframe)
                frame = next((frame for index, frame in decoded if index == target), None)
                if frame is None:
                    raise DataError(f"{self.path}: ends before frame {target}. Export the video again.")
                position = target + 1
                yield target, self._picture(target, frame, pixels)

    def _open(self) -> Any:
        try:
            return av.open(str(self.path))
        except PermissionError:
            raise DataError(f"{self.path}: may not be read. Give yourself permission to read it.") from None
        except (av.FFmpegError, OSError) as error:
            raise DataError(
                f"{self.path}: not a readable video ({error.strerror}); a file that was cut off while being "
                "written lacks its index. Copy or export the video again."
            ) from None

    def _stream(self, container: Any) -> Any:
        if not container.streams.video:
            raise DataError(f"{self.path}: holds no video stream.")
        return container.streams.video[0]

    def _packets(self, container: Any, stream: Any) -> list[tuple[int | None, bool, bool]]:
        """(presentation timestamp, is a keyframe, is never shown) of all whole packets."""
        try:
            return [
                (packet.pts, bool(packet.is_keyframe), bool(packet.is_discard))
                for packet in container.demux(stream)
                if packet.size and not packet.is_corrupt
            ]
        except av.FFmpegError as error:
            raise DataError(f"{self.path}: cannot be read to its end ({error.strerror}).") from None

    def _decodable(self) -> int:
        count = 0
        with self._open() as container:
            try:
                for _ in container.decode(self._stream(container)):
                    count += 1
            except av.FFmpegError:
                return count
        return count

    def _decode(self, container: Any, first: int) -> Iterator[tuple[int, Any]]:
        """Number the frames that the decoder gives, from `first` on; timestamps must agree with the count."""
        index = first
        try:
            for frame in container.decode(self._stream(container)):
                if self._exact and self._index.get(frame.pts) != index:
                    raise DataError(
                        f"{self.path}: frame {index} has timestamp {frame.pts}, expected {self._pts[index]}: "
                        "a frame before it cannot be decoded. Export the video again."
                    )
                yield index, frame
                index += 1
        except av.FFmpegError as error:
            raise DataError(
                f"{self.path}: frame {index} of {self.frame_count} cannot be decoded ({error.strerror}). "
                "Copy or export the video again."
            ) from None

    def _decode_from(self, container: Any, keyframe: int) -> Iterator[tuple[int, Any]]:
        """Seek to a keyframe and number frames from it; from the start where the seek lands elsewhere."""
        stream = self._stream(container)
        for index in (keyframe, 0):
            container.seek(self._pts[index], stream=stream)
            first = next(container.decode(stream), None)
            container.seek(self._pts[index], stream=stream)
            if first is not None and self._index.get(first.pts) == index:
                return self._decode(container, index)
        raise DataError(f"{self.path}: cannot seek to its first frame. Export the video again.")

    def _picture(self, index: int, frame: Any, pixels: str) -> NDArray[np.uint8]:
        if (frame.width, frame.height) != (self.width, self.height):
            raise DataError(
                f"{self.path}: frame {index} is {frame.width}x{frame.height}, "
                f"the video {self.width}x{self.height}."
            )
        return frame.to_ndarray(format=pixels)

    def _check_indices(self, indices: Sequence[int]) -> None:
        if any(later <= earlier for earlier, later in pairwise(indices)):
            raise DataError(f"{self.path}: frame numbers must be strictly increasing.")
        if len(indices) and not (indices[0] >= 0 and indices[-1] < self.frame_count):
            raise DataError(
                f"{self.path}: frames {indices[0]} to {indices[-1]} were asked for, the video has "
                f"{self.frame_count} (0 to {self.frame_count - 1})."
            )
