"""What `input` is: samples and pictures on disk, or a recording whose frames are prepared on the way."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from ..errors import ConfigError
from ..provenance import Run
from .config import InferConfig, RecordingConfig
from .inputs import Source, find_sources


class Inputs(Protocol):
    """Where samples come from."""

    @property
    def known(self) -> Sequence[Source]:
        """The samples that are known without any work."""
        ...

    @property
    def examples(self) -> Sequence[Source]:
        """What stands for all samples in checks of their cameras."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """For `run.json`, once the samples are known."""
        ...

    def find(self) -> AbstractContextManager[Sequence[Source]]:
        """The samples, known and readable while the block lasts."""
        ...

    def stream(self, sources: Sequence[Source]) -> Iterator[Source]:
        """Some of the samples, each ready to be read; those that turn out to be unusable are left out."""
        ...


class FileInput:
    """Samples and pictures on disk."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.known = self.examples = sources
        self.facts: dict[str, Any] = {}

    def find(self) -> AbstractContextManager[Sequence[Source]]:
        """They are known."""
        return nullcontext(self.known)

    def stream(self, sources: Sequence[Source]) -> Iterator[Source]:
        """They are ready."""
        return iter(sources)


def open_inputs(config: InferConfig, record: Run) -> Inputs:
    """Find out what the input is, and open it.

    Args:
        config: Names it.
        record: Gets the hashes of a recording's files.

    Raises:
        ConfigError: settings that this kind of input does not use.
        DataError: it cannot be used.
    """
    from .recordings import RecordingInput, is_recording

    if not is_recording(config):
        sources = find_sources(config.input, config.limit, config.mask)
        if config.preprocess != RecordingConfig():
            raise ConfigError(
                f"{config.input} is no recording (it has no folder {config.preprocess.input.videos}), so the "
                "settings under preprocess would do nothing. Remove them; limit takes the first N samples."
            )
        return FileInput(sources)
    if config.mask is not None:
        raise ConfigError(f"mask={config.mask} is for one picture, but {config.input} is a recording.")
    return RecordingInput(config, record)
