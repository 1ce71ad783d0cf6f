"""The MVDiffusion benchmark runs, and its fast cases compute what the published design does."""

from pathlib import Path

import pytest
from script_modules import run_benchmark


def test_tiny_benchmark_measures_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_benchmark("mvdiffusion", monkeypatch, tmp_path / "figures.json")
    table = capsys.readouterr().out.splitlines()
    assert len([line for line in table if line.startswith("|")]) == len(rows) + 2
    for part in ("evaluation, published", "evaluation, + constants", "6 views, ours", "training step, ours"):
        assert any(row["case"].startswith(part) for row in rows), part
    assert all(row["ms"] > 0 for row in rows)
    differences = [row["difference"] for row in rows if "difference" in row]
    assert len(differences) > 5 and max(differences) < 1e-4
