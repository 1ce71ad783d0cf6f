"""The benchmarks of data loading and of several GPUs run."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"


def run(name: str, monkeypatch: pytest.MonkeyPatch, figures: Path, *options: str) -> list[dict]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--tiny", "--json", str(figures), *options])
    importlib.import_module(name).main()
    return json.loads(figures.read_text())["rows"]


def test_loader_is_measured_with_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run("loader", monkeypatch, tmp_path / "figures.json")
    measured = {(row["source"], row["workers"]) for row in rows}
    assert measured == {(s, w) for s in ("PNG files", "memory", "disk cache") for w in (0, 1)}
    assert all(row["rate"] > 0 for row in rows)
    assert "fastest training step: 32 samples/s; wanted: 97 samples/s" in capsys.readouterr().out


def test_scaling_is_measured_through_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--trainers", "gslrm", "--gpus", "2", "--steps", "40", "--workers", "0"]
    (row,) = run("scaling", monkeypatch, tmp_path / "figures.json", *options)
    assert (row["trainer"], row["gpus"], row["samples"]) == ("gslrm", 2, 2)
    assert row["rate"] > 0
