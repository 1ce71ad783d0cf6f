"""`run.json`: what made an output folder (config, versions, code, inputs, seed, times)."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__
from .config import Config, dump_config
from .errors import ConfigError
from .files import nearest_existing, write_json
from .progress import track

LIBRARIES = ("torch", "numpy", "diffusers", "transformers", "accelerate", "gsplat", "av")


def check_output(output: Path) -> None:
    """Refuse an output folder that cannot be made or written, before the long work.

    Raises:
        ConfigError: it is or lies in a file, leads through a dangling link, or is not writable.
    """
    existing, absolute = nearest_existing(output), output.absolute()
    for place in (absolute, *absolute.parents):
        if place.is_symlink() and not place.exists():
            raise ConfigError(
                f"output: {place} is a link to {place.readlink()}, which does not exist. Make that folder, "
                "or choose another output."
            )
    if not existing.is_dir():
        raise ConfigError(
            f"output: {existing} is a file, expected a folder or nothing. Choose another output."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"output: {existing} cannot be written to. Check its permissions, or choose another."
        )


def check_maker(output: Path, command: str) -> None:
    """Refuse the output folder of another command, whose `run.json` would be lost.

    Raises:
        ConfigError: it is one, or its `run.json` cannot be read.
    """
    path = output / "run.json"
    if not path.is_file():
        return
    try:
        maker = json.loads(path.read_text(encoding="utf-8"))["command"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a run.json of mfl ({error!r}). Choose another output.") from None
    if maker != command:
        raise ConfigError(
            f"output: {output} belongs to `mfl {maker}`, whose run.json would be lost. Choose another folder."
        )


class Run:
    """Collects the facts of one command and writes them into its output folder.

    Args:
        command: The subcommand.
        config: Its resolved configuration.
    """

    def __init__(self, command: str, config: Config) -> None:
        self._started = time.time()
        self._lap = time.perf_counter()
        self._timings: dict[str, float] = {}
        self._facts: dict[str, Any] = {
            "command": command,
            "config": dump_config(config),
            "versions": _versions(),
            "git_revision": _git_revision(),
            "inputs": {},
        }

    def lap(self, name: str) -> None:
        """Record the seconds since the last lap (or the start) under `name`."""
        now = time.perf_counter()
        self._timings[name] = round(now - self._lap, 3)
        self._lap = now

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known so far: `command`, `config`, `versions`, `git_revision`, `inputs`."""
        return self._facts

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.time() - self._started

    def add_inputs(self, files: Iterable[Path]) -> dict[Path, str]:
        """Record SHA-256 hashes of input files, and return them."""
        paths = list(files)
        with ThreadPoolExecutor() as pool:
            hashes = dict(zip(paths, track(pool.map(sha256, paths), "hashing", len(paths)), strict=True))
        self.add_hashes({str(path): value for path, value in hashes.items()})
        return hashes

    def add_hashes(self, hashes: Mapping[str, str]) -> None:
        """Record input files whose SHA-256 hashes are known."""
        self._facts["inputs"].update(hashes)

    def write(self, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write `run.json` into `folder`, with further JSON-ready facts."""
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started))
        content = {**self._facts, "started": started, "seconds": self._timings, **(facts or {})}
        write_json(folder / "run.json", content)


def noted(path: Path) -> dict[str, Any]:
    """What an earlier command noted in a JSON file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as they are written on the command line: `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= flattened(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return flat


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"mouse-facelift": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _git_revision() -> str | None:
    """The code's commit, with a mark if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        # Installed somewhere: a repository around it would be another project's.
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
