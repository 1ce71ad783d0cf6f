"""Shared fixtures: where the optional reference data lies."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data and parity fixtures; tests that need it skip without it."""
    folder = Path(os.environ.get("MFL_SHARED", ROOT.parent / "shared"))
    if not (folder / "fixtures").is_dir():
        pytest.skip(f"no reference data at {folder} (set MFL_SHARED)")
    return folder
