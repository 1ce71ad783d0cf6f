"""Shared fixtures: where the optional reference data lies."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, so that a failure belongs to the change that caused it;
# `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data and parity fixtures; tests that need it skip without it."""
    folder = Path(os.environ.get("MFL_SHARED", ROOT.parent / "shared"))
    if not (folder / "fixtures").is_dir():
        pytest.skip(f"no reference data at {folder} (set MFL_SHARED)")
    return folder
