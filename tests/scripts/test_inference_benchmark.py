"""The inference benchmark runs, measures every part and names the bottleneck."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"


def test_tiny_benchmark_measures_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["inference.py", "--tiny", "--json", str(figures)])
    importlib.import_module("inference").main()
    rows = json.loads(figures.read_text())["rows"]
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith("|")]) == len(rows) + 2
    for part in ("direct, dense", "direct, foreground", "refine", "e2e", "sequence, decoding"):
        assert any(row["case"].startswith(part) for row in rows), part
    assert all(row["ms"] > 0 for row in rows)
    assert "frames/s; bottleneck: sequence, " in printed
