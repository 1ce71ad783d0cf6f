"""What an evaluation has done so far, by method and sample, so that a killed one goes on where it was."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, cat

from ..config import dump_config
from ..errors import ConfigError, DataError
from ..files import remove_leftovers, write_json
from ..inference.config import ReconstructionConfig
from ..pictures import write_png
from ..provenance import check_maker, check_output
from .config import EvaluateConfig
from .scores import Score
from .subjects import Subject

WORK = ".work"
MEANT_OTHERWISE = ("gslrm", "mvdiffusion", "device", "compile")
"""Settings that finished scores may have otherwise."""


class KeptScores:
    """Finished scores in an output folder, one file for each method and sample.

    Args:
        config: Of this evaluation.
        weights: SHA-256 by weights file, by method.

    Raises:
        ConfigError: the folder cannot be written, belongs to another command, or holds scores of other
            settings or weights under a method's name.
    """

    def __init__(self, config: EvaluateConfig, weights: Mapping[str, Mapping[str, str]]) -> None:
        check_output(config.output)
        check_maker(config.output, "evaluate")
        self.folder = config.output / WORK
        self._identities: dict[str, dict[str, Any]] = {
            name: {
                "protocols": list(config.protocols),
                "lpips": config.lpips_weights is not None,
                "truth": config.truth is not None,
                "measured_size": config.image_size,
                "settings": _settings(settings),
                "weights": sorted(weights[name].values()),
            }
            for name, settings in config.resolved_methods.items()
        }
        for name in self._identities:
            self._check(name)

    def begin(self, method: str) -> None:
        """Write down whose the scores are, before the first of a method."""
        folder = self.folder / method
        remove_leftovers(folder, r".*")
        write_json(folder / "identity.json", self._identities[method])

    def read(self, method: str, subject: Subject) -> list[Score] | None:
        """Finished scores; None if there are none.

        Raises:
            ConfigError: the sample's cameras have changed since.
            DataError: the file is damaged.
        """
        path = self._path(method, subject)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = [Score(**score) for score in content["scores"]]
            then = content["cameras_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error!r}). Remove it to measure this sample again.") from None
        if then != subject.fingerprint:
            raise ConfigError(
                f"{path}: was measured before the cameras of {subject.sample.folder} or of its truth "
                "changed. Choose another output."
            )
        return scores

    def write(self, method: str, subject: Subject, scores: Sequence[Score]) -> None:
        """Keep what is finished."""
        content = {"cameras_sha256": subject.fingerprint, "scores": [asdict(score) for score in scores]}
        write_json(self._path(method, subject), content)

    def strip(self, protocol: str, subject: Subject, method: str, truth: bool) -> Path:
        """Where pictures of a method lie side by side, or the truth that they were measured against."""
        kind = "truth" if truth else "rendered"
        return self.folder / method / "pictures" / protocol / f"{subject.name}_{kind}.png"

    def lacks_strips(self, scores: Sequence[Score], subject: Subject, method: str) -> bool:
        """Whether pictures of something that was measured are missing."""
        protocols = {score.protocol for score in scores}
        return not all(
            self.strip(protocol, subject, method, truth).is_file()
            for protocol in protocols
            for truth in (True, False)
        )

    def write_strips(
        self, protocol: str, subject: Subject, method: str, truth: Tensor, rendered: Tensor
    ) -> None:
        """Keep pictures of a method and their truth. [V, 3, H, W] each"""
        for pictures, is_truth in ((truth, True), (rendered, False)):
            write_png(self.strip(protocol, subject, method, is_truth), cat(list(pictures), dim=-1))

    def _path(self, method: str, subject: Subject) -> Path:
        return self.folder / method / f"{subject.name}.json"

    def _check(self, method: str) -> None:
        path, now = self.folder / method / "identity.json", self._identities[method]
        if not path.is_file():
            return
        try:
            then: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            changes = list(_changes(then, now))
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{path}: damaged ({error!r}). Choose another output.") from None
        if changes:
            raise ConfigError(
                f"{path.parent} holds scores of another '{method}' ({'; '.join(changes)}). Choose another "
                "output, or another name for the method."
            )


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs, a key each; sections are gone through."""
    for key, value in now.items():
        earlier = then.get(key)
        if key == "weights" and earlier != value:
            yield "the weights are other ones"
        elif isinstance(value, dict) and isinstance(earlier, dict):
            yield from (
                change if key == "settings" else f"{key}.{change}" for change in _changes(earlier, value)
            )
        elif earlier != value:
            yield f"{key}: then {earlier}, now {value}"


def _settings(method: ReconstructionConfig) -> dict[str, Any]:
    """All but paths, whose meaning is in the hashes, and where it computes."""
    return {key: value for key, value in dump_config(method).items() if key not in MEANT_OTHERWISE}
