"""Files of a Hugging Face repository at one commit: from the local cache, or else from the network."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CheckpointError, DependencyError

log = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S = 5.0
"""A Hub that does not answer within this time is taken for unreachable."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_ACCESS = (401, 403, 404, 410)


def check_revision(revision: str) -> str:
    """Give back a full commit hash; a branch or a tag may mean other files tomorrow.

    Raises:
        ValueError: it is anything else.
    """
    if not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"revision '{revision}' is not a full commit hash (40 digits 0-9a-f); a branch, a tag or a short "
            "hash may come to mean other files. The repository's page lists its commits under History"
        )
    return revision


def fetch(
    repo_id: str, revision: str, subfolder: str | None, needed: Sequence[str], *, local_key: str
) -> Path:
    """Make sure that files of a repository are on this machine; nothing else of it is downloaded.

    A cache that has them all is used without touching the network. The cache is huggingface_hub's, and its
    variables (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) work as usual.

    Args:
        repo_id: "owner/name".
        revision: A full commit hash.
        subfolder: Folder inside the repository; None for its top.
        needed: File names below the subfolder, such as "unet/config.json".
        local_key: The configuration key that takes a local folder instead, for messages.

    Returns:
        The local folder that stands for the subfolder.

    Raises:
        ValueError: the revision is not a full commit hash.
        DependencyError: the files are not in the cache and the Hub cannot be reached.
        CheckpointError: the Hub does not give them: no such repository, commit or file, or no access.
    """
    request = _Request(repo_id, check_revision(revision), subfolder, tuple(needed), local_key)
    if request.missing():
        request.download()
    else:
        log.info("%s at %.8s: taken from the cache, %s", repo_id, revision, request.folder)
    return request.folder


@dataclass(frozen=True)
class _Request:
    """The arguments of `fetch`, and what to tell the user if they cannot be had."""

    repo_id: str
    revision: str
    subfolder: str | None
    needed: tuple[str, ...]
    local_key: str

    @property
    def folder(self) -> Path:
        """Where the cache keeps the subfolder; the layout is documented by huggingface_hub."""
        from huggingface_hub import constants

        repository = Path(constants.HF_HUB_CACHE) / f"models--{self.repo_id.replace('/', '--')}"
        return repository / "snapshots" / self.revision / (self.subfolder or "")

    @property
    def names(self) -> list[str]:
        """The needed files as the repository names them."""
        return [f"{self.subfolder}/{name}" if self.subfolder else name for name in self.needed]

    def missing(self) -> list[str]:
        """The needed files that the cache lacks."""
        return [name for name in self.needed if not (self.folder / name).is_file()]

    def download(self) -> None:
        """Bring the needed files into the cache."""
        import huggingface_hub

        with self._explained():
            # One question without retries comes first: the download itself would keep trying for minutes.
            sizes = {name: file.bytes for name, file in list_files(self.repo_id, self.revision).items()}
            if absent := [name for name in self.names if name not in sizes]:
                raise CheckpointError(
                    f"{self.repo_id} at {self.revision} has no {', '.join(absent)}. Check sub-folder and "
                    f"revision, or give a complete local folder as {self.local_key}."
                )
            total = sum(sizes[name] for name in self.names) / 1e9
            log.info("%s at %.8s: fetching %.2f GB", self.repo_id, self.revision, total)
            huggingface_hub.snapshot_download(self.repo_id, revision=self.revision, allow_patterns=self.names)
        if absent := self.missing():
            raise CheckpointError(
                f"{self.folder}: no {', '.join(absent)} after the download. {self._by_hand()}"
            )

    def _explained(self) -> AbstractContextManager[None]:
        where = f"the cache ({self.folder})"
        return explained(self.repo_id, self.revision, where, self._by_hand())

    def _by_hand(self) -> str:
        """Which files go where, and the command that fetches them on another machine."""
        home = Path("checkpoints") / self.repo_id.rpartition("/")[2]
        target = home / (self.subfolder or "")
        return (
            f"By hand: put {', '.join(self.needed)} into {target}/ and set {self.local_key}={target}. A "
            f"machine with a network fetches them with: hf download {self.repo_id} {' '.join(self.names)} "
            f"--revision {self.revision} --local-dir {home}"
        )


@dataclass(frozen=True)
class HubFile:
    """What the Hub says about one file of a repository.

    Attributes:
        name: Its path in the repository.
        bytes: Its size.
        sha256: Of its content, for large files; None for those that git itself keeps.
        git_blob: Git's SHA-1 of its content, for those.
    """

    name: str
    bytes: int
    sha256: str | None
    git_blob: str | None

    def is_content_of(self, path: Path) -> bool:
        """Whether a local file has this content, by size and checksum; without a checksum it has not."""
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        if self.sha256 is not None:
            return _digest(path, hashlib.sha256()) == self.sha256
        return (
            _digest(path, hashlib.sha1(f"blob {self.bytes}\0".encode(), usedforsecurity=False))
            == self.git_blob
        )


def list_files(repo_id: str, revision: str) -> dict[str, HubFile]:
    """All files of a repository at one commit, by name. One question to the Hub, for use in `explained`."""
    import huggingface_hub

    facts = huggingface_hub.HfApi().model_info(
        repo_id, revision=revision, timeout=LOOKUP_TIMEOUT_S, files_metadata=True
    )
    return {file.rfilename: _hub_file(file) for file in facts.siblings or []}


def download_file(repo_id: str, revision: str, name: str, folder: Path) -> Path:
    """Bring one file below a local folder, also the rest of one begun; for use in `explained`."""
    import huggingface_hub

    return Path(huggingface_hub.hf_hub_download(repo_id, name, revision=revision, local_dir=folder))


@contextmanager
def explained(repo_id: str, revision: str, where: str, by_hand: str) -> Iterator[None]:
    """Tell refusals of the Hub from a missing network; what the disk refuses is neither.

    Args:
        repo_id: "owner/name".
        revision: A full commit hash.
        where: Words for where the files should be.
        by_hand: What the user can do instead, ends the message.

    Raises:
        DependencyError: the Hub cannot be reached, or answers with nonsense.
        CheckpointError: the Hub does not give the files.
    """
    from huggingface_hub import errors

    # The library underneath is requests, httpx or httpx2, by version; all its errors have these bases.
    # A proxy's own page in place of the Hub's answer is no JSON.
    failures: tuple[type[BaseException], ...] = (
        OSError,
        json.JSONDecodeError,
        errors.XetDownloadError,
        *errors.HfHubHTTPError.__bases__,
    )

    def unreachable(error: BaseException) -> DependencyError:
        return DependencyError(
            f"{repo_id} at {revision}: not complete in {where}, and the Hub cannot be used "
            f"({type(error).__name__}: {_first_line(error)}). {by_hand}"
        )

    try:
        yield
    except errors.HFValidationError as error:
        raise CheckpointError(f"'{repo_id}' cannot be a repository: {_first_line(error)}.") from None
    except errors.HfHubHTTPError as error:
        response = getattr(error, "response", None)
        if response is None or response.status_code not in _NO_ACCESS:
            raise unreachable(error) from None
        raise CheckpointError(
            f"{repo_id} at {revision}: the Hub refuses it ({_first_line(error)}). Check name and "
            f"revision; a gated or private repository needs HF_TOKEN. {by_hand}"
        ) from None
    except failures as error:
        on_disk = getattr(error, "errno", None) and not isinstance(error, ConnectionError | TimeoutError)
        if on_disk:
            raise
        raise unreachable(error) from None


def _hub_file(file: Any) -> HubFile:
    large = getattr(file, "lfs", None)
    sha256 = large.sha256 if large is not None else None
    return HubFile(file.rfilename, file.size or 0, sha256, getattr(file, "blob_id", None))


def _digest(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return str(digest.hexdigest())


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else "no reason given"
