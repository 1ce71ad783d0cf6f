"""Configurations and pages name the one place that weights are pulled to."""

import re
from pathlib import Path

import pytest

from mouse_facelift.weights.published import FACELIFT, GSLRM, PIPELINE, PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *sorted((ROOT / "configs").glob("*.yaml")),
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMED = re.compile(r"checkpoints/[\w/.-]*?(?:gslrm|mvdiffusion)\b")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_weights_are_looked_for_where_pull_puts_them(file: Path) -> None:
    places = {
        (published.home / part).as_posix() for published in PUBLISHED.values() for part in (GSLRM, PIPELINE)
    }
    assert set(NAMED.findall(file.read_text(encoding="utf-8"))) <= places


def test_what_is_named_most_is_found_at_all() -> None:
    text = (ROOT / "configs" / "infer.yaml").read_text(encoding="utf-8")
    assert NAMED.findall(text) == [(FACELIFT.home / GSLRM).as_posix()]
