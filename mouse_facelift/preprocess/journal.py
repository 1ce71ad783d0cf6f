"""Records that survive a kill: appended one by one, checked on reading; a torn last one is dropped.

Each process of a run appends to a file of its own and reads those of all, so job arrays share what they did
without locks.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ..files import naming

HEADER = struct.Struct("<II")
"""Length and CRC-32 of what follows."""
SUFFIX = ".journal"


@dataclass(frozen=True)
class Record:
    """One entry; its blobs stay on disk until asked for.

    Attributes:
        content: JSON values.
        path: The file that holds the blobs.
        offset: Where the first of them begins.
        sizes: Their lengths in bytes.
    """

    content: Mapping[str, Any]
    path: Path
    offset: int
    sizes: tuple[int, ...]

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + sum(self.sizes)

    def blobs(self) -> list[bytes]:
        """Read the blobs."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return [file.read(size) for size in self.sizes]


class Journal:
    """A folder of record files, one of which this process appends to.

    Args:
        folder: Where the files lie; made if absent.
        name: This process's own file, without suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._own = folder / f"{name}{SUFFIX}"
        self._read: dict[Path, int] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = self._own.open("ab")
        self._file.truncate(max((record.end for record in _records(self._own, 0)), default=0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def append(self, content: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Add a record; it is in the operating system's hands when this returns."""
        assert self._file is not None, "the journal is not open"
        head = json.dumps([content, [len(blob) for blob in blobs]]).encode()
        body = b"".join((struct.pack("<I", len(head)), head, *blobs))
        with naming(self._own):
            self._file.write(HEADER.pack(len(body), zlib.crc32(body)) + body)
            self._file.flush()

    def news(self) -> Iterator[Record]:
        """All whole records, of every process, that were not given before."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            for record in _records(path, self._read.get(path, 0)):
                self._read[path] = record.end
                yield record


def _records(path: Path, start: int) -> Iterator[Record]:
    """Whole records from byte `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        while len(frame := file.read(HEADER.size)) == HEADER.size:
            length, checksum = HEADER.unpack(frame)
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != checksum:
                return
            (head,) = struct.unpack_from("<I", body)
            content, sizes = json.loads(body[4 : 4 + head])
            yield Record(content, path, file.tell() - length + 4 + head, tuple(sizes))
