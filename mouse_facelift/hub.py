"""Files of a Hugging Face repository at one commit: from the local cache, or else from the network."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
            facts = huggingface_hub.HfApi().model_info(
                self.repo_id, revision=self.revision, timeout=LOOKUP_TIMEOUT_S, files_metadata=True
            )
            sizes = {file.rfilename: file.size or 0 for file in facts.siblings or []}
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

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell refusals from a missing network; what the disk refuses is neither."""
        from huggingface_hub import errors

        # The library underneath is requests, httpx or httpx2, by version; all its errors have these bases.
        # A proxy's own page in place of the Hub's answer is no JSON.
        failures: tuple[type[BaseException], ...] = (
            OSError,
            json.JSONDecodeError,
            errors.XetDownloadError,
            *errors.HfHubHTTPError.__bases__,
        )
        try:
            yield
        except errors.HFValidationError as error:
            raise CheckpointError(f"'{self.repo_id}' cannot be a repository: {_first_line(error)}.") from None
        except errors.HfHubHTTPError as error:
            response = getattr(error, "response", None)
            if response is None or response.status_code not in _NO_ACCESS:
                raise DependencyError(self._unreachable(error)) from None
            raise CheckpointError(self._refused(error)) from None
        except failures as error:
            on_disk = getattr(error, "errno", None) and not isinstance(error, ConnectionError | TimeoutError)
            if on_disk:
                raise
            raise DependencyError(self._unreachable(error)) from None

    def _unreachable(self, error: BaseException) -> str:
        return (
            f"{self.repo_id} at {self.revision}: not complete in the cache ({self.folder}), and the Hub "
            f"cannot be used ({type(error).__name__}: {_first_line(error)}). {self._by_hand()}"
        )

    def _refused(self, error: BaseException) -> str:
        return (
            f"{self.repo_id} at {self.revision}: the Hub refuses it ({_first_line(error)}). Check name and "
            f"revision; a gated or private repository needs HF_TOKEN. {self._by_hand()}"
        )

    def _by_hand(self) -> str:
        """Which files go where, and the command that fetches them on another machine."""
        home = Path("checkpoints") / self.repo_id.rpartition("/")[2]
        target = home / (self.subfolder or "")
        return (
            f"By hand: put {', '.join(self.needed)} into {target}/ and set {self.local_key}={target}. A "
            f"machine with a network fetches them with: hf download {self.repo_id} {' '.join(self.names)} "
            f"--revision {self.revision} --local-dir {home}"
        )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else "no reason given"
