"""`mfl weights verify`: whether published weights on this machine are all there and as they were fetched."""

import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..progress import track
from ..provenance import sha256
from .published import (
    FACELIFT,
    GSLRM,
    PIPELINE,
    PROMPTS_SHA256,
    PUBLISHED,
    Published,
    local_files,
    missing_files,
)
from .record import RECORD, RecordedFile, read_record

_DAMAGED_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError),
)
"""What reading an archive with flipped bits comes to."""
HEADER_LIMIT = 100_000_000
"""A safetensors header beyond this is not one (the format's own limit)."""


@dataclass(frozen=True)
class Verdict:
    """What was found of weights without fault.

    Attributes:
        files: How many there are.
        hashed: How many of them were compared with a checksum.
        bytes: Their size.
        recorded: Whether `weights.json` says what they should be; else only their form was looked at.
    """

    files: int
    hashed: int
    bytes: int
    recorded: bool

    def __str__(self) -> str:
        if not self.recorded:
            return (
                f"{self.files} files, all that are needed, none cut off; their checksums are unknown (no "
                f"{RECORD})"
            )
        if self.hashed < self.files:
            return f"{self.files} files of the right size, {self.hashed} of them with the recorded checksum"
        return f"{self.files} files with the recorded checksums"


def verify(published: Published, folder: Path, hash_bytes: float | None = None) -> Verdict:
    """Compare a folder with its record, or without one with what is needed.

    Args:
        published: Which weights.
        folder: Where they lie.
        hash_bytes: Compare the checksums of so many bytes at most, small files first; None of all.

    Raises:
        CheckpointError: files are missing, cut off or damaged; every one is named.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder. Fetch the weights: mfl weights pull {published.name} --to {folder}"
        )
    there = set(local_files(folder))
    faults = [f"{name} is missing" for name in missing_files(published, there)]
    if published.style is not None and not _has_prompts(there):
        faults.append(
            f"prompt embeddings are missing (mfl prompts text={folder / PIPELINE} output={folder / PIPELINE})"
        )
    record = read_record(folder)
    if record is None:
        faults += [f"{name} {fault}" for name in sorted(there) if (fault := _fault_of_form(folder / name))]
        hashed = 0
    else:
        chosen = _affordable(record.files, hash_bytes)
        faults += _faults(record.files, folder, chosen)
        hashed = len(chosen)
    if faults:
        raise CheckpointError(
            f"{folder}: {'; '.join(faults)}. Fetch them again: mfl weights pull {published.name} "
            f"--to {folder}"
        )
    names = there if record is None else record.files
    size = sum((folder / name).stat().st_size for name in names)
    return Verdict(len(names), hashed, size, record is not None)


def _has_prompts(there: set[str]) -> bool:
    from ..mvdiffusion.prompts import PROMPTS_FILE

    return any(f"{PIPELINE}/{name}" in there for name in (PROMPTS_FILE, *PROMPTS_SHA256))


def _affordable(files: Mapping[str, RecordedFile], limit: float | None) -> set[str]:
    chosen, total = set(), 0
    for name, entry in sorted(files.items(), key=lambda item: item[1].bytes):
        total += entry.bytes
        if limit is None or total <= limit:
            chosen.add(name)
    return chosen


def _faults(files: Mapping[str, RecordedFile], folder: Path, hashed: set[str]) -> Iterator[str]:
    for name, entry in track(files.items(), "verifying", len(files)):
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != entry.bytes:
            yield f"{name} has {path.stat().st_size} bytes, {RECORD} says {entry.bytes}"
        elif name in hashed and sha256(path) != entry.sha256:
            yield f"{name} is damaged: its content differs from {RECORD}"


def _fault_of_form(path: Path) -> str | None:
    """What is wrong with a file, as far as it shows without knowing what it should hold."""
    if path.name in PROMPTS_SHA256:
        return None if sha256(path) == PROMPTS_SHA256[path.name] else "is not the published file (SHA-256)"
    if path.suffix == ".safetensors":
        return _fault_of_safetensors(path)
    if path.suffix in (".pt", ".bin"):
        return _fault_of_archive(path)
    return None if path.stat().st_size else "is empty"


def _fault_of_safetensors(path: Path) -> str | None:
    """The header says how long the file is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(HEADER_LIMIT, size - 8):
            return "is cut off or no safetensors file"
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return "has a damaged header"
    return None if size == expected else f"has {size} bytes, its header says {expected}: cut off?"


def _fault_of_archive(path: Path) -> str | None:
    """What torch writes is a ZIP archive with checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _DAMAGED_ARCHIVE as error:
        return f"is cut off, damaged or no file of torch.save ({error})"
    return f"is damaged at {damaged}" if damaged else None


def published_folders(home: Path) -> Iterator[tuple[Published, Path]]:
    """Published weights at or right below a folder, by their record or by the folder's name."""
    for folder in (home, *sorted(path for path in home.glob("*") if path.is_dir())):
        named = PUBLISHED.get(folder.name)
        parts = any((folder / place).is_dir() for place in (GSLRM, PIPELINE))
        if (folder / RECORD).is_file():
            yield named or _recorded_publication(folder), folder
        elif named is not None and parts:
            yield named, folder


def _recorded_publication(folder: Path) -> Published:
    try:
        record = read_record(folder)
    except CheckpointError:
        # `verify` will say so.
        record = None
    return PUBLISHED.get(record.name if record else "", FACELIFT)
