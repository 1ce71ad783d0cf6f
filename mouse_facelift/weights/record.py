"""`weights.json`: what a folder of published weights holds, as the Hub described it when it was pulled."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..files import write_json

RECORD = "weights.json"


@dataclass(frozen=True)
class RecordedFile:
    """A file that was fetched, or made from fetched ones.

    Attributes:
        bytes: Its size.
        sha256: Of its content.
        source: Its name in the repository; None where it was made here.
        checked_by: The Hub's checksum that it agreed with: sha256, git blob, or none for a file made here.
    """

    bytes: int
    sha256: str
    source: str | None
    checked_by: str


@dataclass(frozen=True)
class Record:
    """Where a folder's weights are from.

    Attributes:
        name: Of the publication.
        repository: "owner/name" on the Hub.
        revision: Its commit.
        licence: Under which they are.
        accepted: When the user accepted it, UTC.
        files: By their place below the folder.
    """

    name: str
    repository: str
    revision: str
    licence: str
    accepted: str
    files: dict[str, RecordedFile]

    def write(self, folder: Path) -> None:
        """Write `weights.json`."""
        write_json(folder / RECORD, asdict(self))


def read_record(folder: Path) -> Record | None:
    """Read a folder's `weights.json`; None where there is none.

    Raises:
        CheckpointError: it is garbled, or names files outside the folder.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): RecordedFile(**entry) for name, entry in content.pop("files").items()}
        record = Record(**content, files=files)
        if not (isinstance(record.name, str) and all(type(file.bytes) is int for file in files.values())):
            raise TypeError("name is no text, or a size no whole number")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a record of `mfl weights pull` ({error!r}). Delete it and pull again: what lies "
            "there already is compared with the Hub and kept."
        ) from None
    if outside := [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise CheckpointError(f"{path}: names {outside[0]}, which is not inside {folder}.")
    return record
