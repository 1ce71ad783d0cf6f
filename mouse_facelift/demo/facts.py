"""What all in a demo's folder rests on: settings and weights. Others' results would be taken for its own."""

import json
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from ..config import Config, describe, dump_config
from ..errors import ConfigError
from ..files import write_json
from ..provenance import sha256
from .places import Places
from .shipped import DemoWeights

Facts = Mapping[str, Any]
"""JSON-ready, by a key as the command line takes it or by a file's name."""

COSTS_ALONE = ("threads", "workers", "device", "compile", "gradient_checkpointing")
"""Settings, by how their keys end, that change time and memory, but no result."""
SHOWN = 3
"""So many differences are told."""


def facts_of(settings: Mapping[str, Config], weights: DemoWeights) -> Facts:
    """Every setting that matters but for places, and every file of the weights.

    Args:
        settings: By what their keys shall begin with.
        weights: Of the demo.
    """
    facts: dict[str, Any] = {}
    for name, config in settings.items():
        values = dump_config(config)
        for field in describe(type(config)):
            parts = field.key.split(".")
            if "Path" not in field.type and parts[-1] not in COSTS_ALONE:
                facts[f"{name}.{field.key}"] = reduce(getitem, parts, values)
    for file in _files(weights.gslrm, weights.mvdiffusion):
        facts[f"weights/{file.relative_to(weights.folder).as_posix()}"] = sha256(file)
    return facts


def keep_facts(places: Places, facts: Facts, dry_run: bool = False) -> None:
    """Write the facts of a new demo's folder; those of an earlier demo there must be the same.

    Args:
        places: Of the demo.
        facts: See `facts_of`.
        dry_run: Write nothing.

    Raises:
        ConfigError: they differ, or the folder holds something else.
    """
    if not places.marker.is_file():
        taken = [place.name for place in places.of_stages if place.exists()]
        if taken:
            raise ConfigError(
                f"output: {places.root} holds {', '.join(taken)}, but no {places.marker.name} that says of "
                "which demo. Choose another output."
            )
        if not dry_run:
            write_json(places.marker, facts)
        return
    then = _read(places.marker)
    changed = [key for key in sorted({*then, *facts}) if then.get(key) != facts.get(key)]
    if changed:
        told = [_change(key, then, facts) for key in changed[:SHOWN]]
        more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise ConfigError(
            f"output: {places.root} holds another demo ({'; '.join(told)}{more}). Choose another output, or "
            "remove that folder to make it anew."
        )


def _files(*folders: Path) -> Iterable[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())


def _change(key: str, then: Facts, now: Facts) -> str:
    if key.startswith("weights/"):
        return f"other {key}"
    return f"{key}: then {then.get(key)}, now {now.get(key)}"


def _read(marker: Path) -> Facts:
    try:
        facts = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{marker}: cannot be read ({error}). Choose another output.") from None
    if not isinstance(facts, dict):
        raise ConfigError(f"{marker}: found a {type(facts).__name__}, expected facts. Choose another output.")
    return facts
