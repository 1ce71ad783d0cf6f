"""The inference benchmark runs, measures every part and names the bottleneck."""

from pathlib import Path

import pytest
from script_modules import run_benchmark


def test_tiny_benchmark_measures_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_benchmark("inference", monkeypatch, tmp_path / "figures.json")
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith("|")]) == len(rows) + 2
    for part in (
        "direct, dense",
        "direct, foreground",
        "refine",
        "e2e",
        "sequence, decoding",
        "sequence, as mfl",
    ):
        assert any(row["case"].startswith(part) for row in rows), part
    assert all(row["ms"] > 0 for row in rows)
    assert "frames/s; bottleneck: sequence, " in printed
    assert "overlapped, as mfl infer runs it, " in printed
