"""The output folder of `mfl infer`: what it holds already, and whether new results may join it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import dump_config
from ..errors import ConfigError, DataError
from ..files import remove_leftovers
from ..provenance import Run, flattened
from .config import InferConfig
from .inputs import Source
from .moments import FOLDER
from .sequence import remove_sequence

MATTERS_NOT = (
    *("gslrm", "mvdiffusion", "input", "mask", "limit", "output", "overwrite", "device", "compile"),
    *("workers", "preprocess.workers"),
)
"""Configuration that finished samples of an earlier run may have otherwise; hashes tell of files."""


class OutputFolder:
    """Results of one configuration and one set of weights, one folder a sample, told by `run.json`.

    Args:
        config: Of this run.
        weights: SHA-256 by weights file.
        sources: What this run shall reconstruct.

    Raises:
        ConfigError: the folder holds results of another configuration, of other weights or of other inputs,
            or is where the inputs lie.
        DataError: its `run.json` is not one.
    """

    def __init__(self, config: InferConfig, weights: Mapping[str, str], sources: Sequence[Source]) -> None:
        self.path = config.output
        self._overwrite, self._begun = config.overwrite, False
        self._made_with = {
            "weights": dict(weights),
            "inputs": {source.place: source.fingerprint for source in sources},
            "samples": {source.name: source.place for source in sources},
        }
        for source in sources:
            if self.folder(source).resolve() == source.path.resolve():
                raise ConfigError(f"{source.path}: results would replace the input. Choose another output.")
        if not config.overwrite:
            earlier = self._earlier(dump_config(config))
            for source in sources:
                self._check_same_input(source, earlier)
            for part, now in self._made_with.items():
                self._made_with[part] = {**earlier[part], **now}

    def folder(self, source: Source) -> Path:
        """Where a sample's results go."""
        return self.path / source.name

    def is_finished(self, source: Source) -> bool:
        """Whether a sample's results are there and are to be kept."""
        return self.folder(source).is_dir() and not self._overwrite

    def finished_means(self, source: Source) -> dict[str, float]:
        """The mean metrics of a finished sample; empty where it had no real views.

        Raises:
            DataError: its `metrics.json` is not one.
        """
        path = self.folder(source) / "metrics.json"
        return dict(_read(path, ("mean",))["mean"]) if path.is_file() else {}

    def clear(self) -> None:
        """Delete what killed runs left half-written of these samples."""
        names = (*self._made_with["samples"], FOLDER)
        remove_leftovers(self.path, "|".join(map(re.escape, names)))

    def begin(self, record: Run, facts: Mapping[str, Any]) -> None:
        """Write `run.json` before the first results, so that a later run can tell what is here.

        What fails before there are any leaves nothing. What earlier results were together goes first, where
        they are to be replaced.
        """
        if self._begun:
            return
        if self._overwrite:
            (self.path / "metrics.json").unlink(missing_ok=True)
            remove_sequence(self.path)
        self.write(record, facts)

    def write(self, record: Run, facts: Mapping[str, Any]) -> None:
        """Write `run.json`, with further facts."""
        self._begun = True
        self.path.mkdir(parents=True, exist_ok=True)
        inputs = {**record.facts["inputs"], **self._made_with["inputs"]}
        record.write(self.path, {**facts, **self._made_with, "inputs": inputs})

    def _earlier(self, now: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """What the results in this folder were made with; configuration and weights must be as now."""
        path = self.path / "run.json"
        nothing: dict[str, dict[str, str]] = {part: {} for part in self._made_with}
        if not path.is_file():
            return nothing
        content = _read(path, ("config", *self._made_with))
        if not any((self.path / name).exists() for name in content["samples"]):
            return nothing  # That run failed before its first sample.
        then, now = flattened(content["config"]), flattened(now)
        differing = [key for key in now if not _matters_not(key) and then.get(key) != now[key]]
        if differing:
            changes = "; ".join(f"{key}: then {then.get(key)}, now {now[key]}" for key in differing)
            raise ConfigError(
                f"{self.path} holds results of another configuration ({changes}). "
                "Choose another output, or overwrite=true."
            )
        if content["weights"] != self._made_with["weights"]:
            raise ConfigError(
                f"{self.path} holds results of other weights: their hashes in {path} are not those of "
                f"{', '.join(self._made_with['weights'])}. Choose another output, or overwrite=true."
            )
        return {part: content[part] for part in self._made_with}

    def _check_same_input(self, source: Source, earlier: Mapping[str, Mapping[str, str]]) -> None:
        if not self.folder(source).exists():
            return
        then, now = earlier["samples"].get(source.name), self._made_with["samples"][source.name]
        if then != now:
            found = f"made from {then}" if then else "made by something else (run.json does not list it)"
        elif earlier["inputs"].get(now) != self._made_with["inputs"][now]:
            found = "made before that file changed"
        else:
            return
        raise ConfigError(
            f"{self.folder(source)} is in the way of the results of {now}: it was {found}. "
            "Choose another output, or overwrite=true."
        )


def _matters_not(key: str) -> bool:
    """A sequence is made anew where its settings change, from the samples that are there."""
    return key in MATTERS_NOT or key.startswith("sequence.")


def _read(path: Path, sections: Sequence[str]) -> dict[str, Any]:
    """Read a JSON object with these sections, each an object."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = all(isinstance(content[section], dict) for section in sections)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        found = False
    if not found:
        raise DataError(
            f"{path}: expected a JSON object with {', '.join(sections)}, as written by `mfl infer`. "
            "Choose another output, or remove the file."
        )
    return content
