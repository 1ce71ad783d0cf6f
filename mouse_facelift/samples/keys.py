"""What identifies the pictures of samples: hashes of their content, computed once.

Reading every picture of a large data set takes minutes. A memo therefore holds each sample's key beside the
size, times and inode of its files; a file that was written to or replaced has another time of change, which,
unlike its time of modification, programs cannot set back.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..files import write_json
from ..progress import track
from ..provenance import sha256
from .format import Sample

MEMO_FILE = "pictures.json"

SETTLED_NS = 10 * 10**9
"""A file changed less than this ago may change again within the same tick of its disk's clock."""


class PictureKeys:
    """The keys of samples: equal for equal pictures of equal size, wherever they lie.

    Args:
        samples: Their pictures are read, unless the memo knows them.
        memo: A file that `save` wrote; may be absent or damaged.

    Attributes:
        keys: One for each sample: hexadecimal SHA-256 over its pictures, in the order of its views.
    """

    def __init__(self, samples: Sequence[Sample], memo: Path) -> None:
        self._memo = memo
        self._places = [str(sample.folder.resolve()) for sample in samples]
        self._entries = _read(memo)
        now = time.time_ns()
        with ThreadPoolExecutor() as pool:
            states = list(pool.map(_state, samples))
        known = [
            self._entries.get(place, ("", ""))[0] == state
            for place, (state, _) in zip(self._places, states, strict=True)
        ]
        missing = [sample for sample, is_known in zip(samples, known, strict=True) if not is_known]
        hashed = iter(_hash(missing))
        self.keys = [
            self._entries[place][1] if is_known else next(hashed)
            for place, is_known in zip(self._places, known, strict=True)
        ]
        self._new = {
            place: (state, key)
            for place, (state, changed), key, is_known in zip(
                self._places, states, self.keys, known, strict=True
            )
            if not is_known and now - changed > SETTLED_NS
        }

    def save(self) -> None:
        """Write the memo, if something has been added to it."""
        if self._new:
            write_json(self._memo, self._entries | self._new)


def _read(memo: Path) -> dict[str, tuple[str, str]]:
    try:
        content = json.loads(memo.read_text(encoding="utf-8"))
        return {place: (str(state), str(key)) for place, (state, key) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _state(sample: Sample) -> tuple[str, int]:
    """A hash of what the file system says about a sample's pictures, and when one of them last changed."""
    found = [view.file.stat() for view in sample.views]
    facts = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in found]
    sizes = [(view.file.name, view.camera.width, view.camera.height) for view in sample.views]
    digest = hashlib.sha256(json.dumps([facts, sizes]).encode()).hexdigest()
    return digest, max(max(s.st_mtime_ns, s.st_ctime_ns) for s in found)


def _hash(samples: Sequence[Sample]) -> list[str]:
    views = [view for sample in samples for view in sample.views]
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(sha256, [view.file for view in views])
        found = list(track(hashes, "hashing pictures", len(views)))
    parts = iter(
        f"{content} {view.camera.width}x{view.camera.height}\n"
        for content, view in zip(found, views, strict=True)
    )
    return [
        hashlib.sha256("".join(next(parts) for _ in sample.views).encode()).hexdigest() for sample in samples
    ]
