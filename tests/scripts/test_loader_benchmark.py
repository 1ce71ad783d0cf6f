"""The benchmarks of data loading and of several GPUs run."""

from pathlib import Path

import pytest
from script_modules import run_benchmark


def test_loader_is_measured_with_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_benchmark("loader", monkeypatch, tmp_path / "figures.json")
    measured = {(row["source"], row["workers"]) for row in rows}
    assert measured == {(s, w) for s in ("PNG files", "memory", "disk cache") for w in (0, 1)}
    assert all(row["rate"] > 0 for row in rows)
    assert "fastest training step: 41 samples/s; wanted: 122 samples/s" in capsys.readouterr().out


def test_scaling_is_measured_through_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--trainers", "gslrm", "--gpus", "2", "--steps", "40", "--workers", "0"]
    (row,) = run_benchmark("scaling", monkeypatch, tmp_path / "figures.json", *options)
    assert (row["trainer"], row["gpus"], row["samples"]) == ("gslrm", 2, 2)
    assert row["rate"] > 0
