"""Scripts as modules, and benchmarks run as from the command line, tiny."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def import_script(folder: str, name: str) -> ModuleType:
    """The script `scripts/<folder>/<name>.py`; its neighbours can be imported by it."""
    place = str(SCRIPTS / folder)
    sys.path.insert(0, place)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(place)


def run_benchmark(
    name: str, monkeypatch: pytest.MonkeyPatch, figures: Path, *options: str
) -> list[dict[str, Any]]:
    """Its rows."""
    monkeypatch.syspath_prepend(SCRIPTS / "benchmarks")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--tiny", "--json", str(figures), *options])
    import_script("benchmarks", name).main()
    rows: list[dict[str, Any]] = json.loads(figures.read_text())["rows"]
    return rows
