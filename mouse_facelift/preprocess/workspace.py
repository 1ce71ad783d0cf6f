"""The output folder between runs: whose it is, what is finished, who is writing.

While a run is unfinished, `.work/` inside the output folder holds its identity (settings and the inputs'
hashes), what it knows of the recording, and the journals. It goes when the run is complete, and the manifest
then carries the identity.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import dump_config
from ..errors import ConfigError, DataError
from ..files import remove_leftovers, write_json
from ..provenance import check_maker, flattened
from ..samples.format import CAMERAS_FILE, read_sample
from .config import PreprocessConfig

MANIFEST = "manifest.json"
WORK, IDENTITY, OWNED = ".work", "identity.json", "owned.json"
LOCK = ".lock"
RESULTS = ("data_train.txt", "data_val.txt", "quality.csv", "quality.html", MANIFEST, "run.json")
WRITTEN = r"sample_\d{6}|data_train|data_val|quality|manifest|run"
"""Names of what a killed process may leave half-written."""
SHOWN_DIFFERENCES = 6
SOMETHING = "samples, lists or quality figures of unknown origin"
PNG_HEAD, PNG_TAIL = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"

Identity = Mapping[str, Any]


def identify(config: PreprocessConfig, hashes: Mapping[Path, str]) -> Identity:
    """What decides the output: the code's version, all settings that matter, and the inputs' bytes."""
    settings = dump_config(config)
    for key in ("output", "overwrite", "workers"):
        del settings[key]
    folder = config.input.recording
    settings["input"]["recording"] = folder.resolve().name
    inputs = {path.relative_to(folder).as_posix(): value for path, value in sorted(hashes.items())}
    return {"version": __version__, "settings": settings, "inputs": inputs}


class Workspace:
    """An output folder.

    Args:
        output: The folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.work = output / WORK

    def manifest(self) -> Mapping[str, Any] | None:
        """The manifest of a complete run; None where there is none.

        Raises:
            ConfigError: it is not a manifest.
        """
        return _read(self.output / MANIFEST)

    def check(self, identity: Identity, overwrite: bool) -> None:
        """Refuse to mix: samples of another run are replaced only if asked for, nothing else ever.

        Raises:
            ConfigError: the folder is of another command, or holds samples of other inputs or settings, or
                of unknown origin, and `overwrite` is off.
        """
        check_maker(self.output, "preprocess")
        self._check_work()
        manifest = self.manifest()
        owner = manifest.get("identity", {}) if manifest else self._owner()
        if owner in (None, identity):
            return
        for folder in self.folders():
            if not (folder / CAMERAS_FILE).is_file() and any(folder.iterdir()):
                raise ConfigError(f"{folder}: is in the way, and is no sample. Set another output.")
        if not overwrite:
            what = "samples made of other inputs or with other settings" if owner else SOMETHING
            raise ConfigError(
                f"{self.output}: holds {what}{_differences(owner, identity)}. Set another output, or give "
                "--overwrite to replace them."
            )

    def is_complete(self, identity: Identity) -> bool:
        """Whether a run of this identity has finished and all its samples are still there."""
        manifest = self.manifest()
        if not manifest or manifest.get("identity") != identity:
            return False
        if not all(self.is_finished(item["name"], item["frame"]) for item in manifest["samples"]):
            return False
        self.abandon()
        return True

    def is_merged(self) -> bool:
        """Whether a run has finished here and none is under way."""
        return self.manifest() is not None and _read(self.work / IDENTITY) is None

    def unfinished(self) -> Identity:
        """The run under way here.

        Raises:
            ConfigError: there is none.
        """
        identity = _read(self.work / IDENTITY)
        if identity is None:
            raise ConfigError(
                f"{self.output}: holds no run; expected one that shards have worked on. Check output."
            )
        return identity

    def begin(self, identity: Identity) -> None:
        """Make `.work/` this run's own; samples that are there stay until `take_over`.

        Raises:
            ConfigError: a process of another run is working here.
        """
        with self._alone():
            if _read(self.work / IDENTITY) != identity:
                with ExitStack() as held:
                    for path in self.work.glob("*.lock"):
                        held.enter_context(_locked(path, self._busy(path.stem)))
                    shutil.rmtree(self.work, ignore_errors=True)
                write_json(self.work / IDENTITY, identity)
            manifest = self.manifest()
            if manifest and manifest.get("identity") == identity:
                write_json(self.work / OWNED, True)

    def take_over(self) -> None:
        """Remove what another run left, once; from here on the samples in the folder are this run's."""
        with self._alone():
            if not (self.work / OWNED).exists():
                for folder in self.folders():
                    shutil.rmtree(folder)
            for name in RESULTS:
                (self.output / name).unlink(missing_ok=True)
            write_json(self.work / OWNED, True)

    def abandon(self) -> None:
        """Remove `.work/`, what is half-written, and the folder itself where nothing else is in it."""
        with self._alone():
            shutil.rmtree(self.work, ignore_errors=True)
            remove_leftovers(self.output, WRITTEN)
            (self.output / LOCK).unlink()
            with suppress(OSError):  # Something else is in it.
                self.output.rmdir()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Be process `name` of this run.

        Raises:
            ConfigError: another process is.
        """
        with _locked(self.work / f"{name}.lock", self._busy(name)):
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process is changing whose folder this is."""
        self.output.mkdir(parents=True, exist_ok=True)
        with _locked(self.output / LOCK, None):
            yield

    def _busy(self, name: str) -> str:
        return f"{self.output}: another process is writing here ({name}). Wait for it, or set another output."

    def folders(self) -> list[Path]:
        """Sample folders that are there, by name."""
        if not self.output.is_dir():
            return []
        return sorted(path for path in self.output.iterdir() if re.fullmatch(r"sample_\d{6}", path.name))

    def is_finished(self, name: str, frame: int) -> bool:
        """Whether that sample is there in full: written whole, and not cut off since."""
        try:
            sample = read_sample(self.output / name)
        except DataError:
            return False
        return sample.frame_index == frame and all(_is_whole_png(view.file) for view in sample.views)

    def _owner(self) -> Identity | None:
        """Whose unfinished samples are here: {} where that is not known, None where there are none."""
        if (self.work / OWNED).exists():
            return _read(self.work / IDENTITY)
        return {} if self.folders() or any((self.output / name).exists() for name in RESULTS) else None

    def _check_work(self) -> None:
        """Other commands keep what is unfinished under the same name."""
        if self.work.is_dir() and not (self.work / IDENTITY).is_file():
            found = sorted(path.name for path in self.work.iterdir() if not path.name.startswith("."))
            if found:
                raise ConfigError(
                    f"{self.work}: holds {found[0]}, the unfinished work of another command, which would be "
                    "lost. Set another output."
                )


@contextmanager
def _locked(path: Path, busy: str | None) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for it, or raises ConfigError(busy) at once."""
    descriptor = _acquire(path, busy)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, busy: str | None) -> int:
    while True:
        # For writing: NFS locks nothing else.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(busy) from None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        # Whoever held it has removed the file since: others lock a new one.
        os.close(descriptor)


def _is_whole_png(path: Path) -> bool:
    """By its first and last bytes: pictures are not decoded to find out what is left to do."""
    with path.open("rb") as file:
        head = file.read(len(PNG_HEAD))
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(PNG_TAIL)))
        return head == PNG_HEAD and file.read() == PNG_TAIL


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not written by `mfl preprocess`. Remove it, or set another output.")
    return content


def _differences(found: Identity | None, expected: Identity) -> str:
    """What differs, for people: changed keys with both values."""
    if not found:
        return ""
    before, after = flattened(found), flattened(expected)
    changed = [key for key in (after | before) if before.get(key) != after.get(key)]
    lines = []
    for key in changed[:SHOWN_DIFFERENCES]:
        values = f"{before.get(key)} there, {after.get(key)} now"
        lines.append(f"{key}: {'the file changed' if key.startswith('inputs.') else values}")
    more = len(changed) - len(lines)
    return f" ({'; '.join(lines)}{f'; and {more} more' if more > 0 else ''})"
