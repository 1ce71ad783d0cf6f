"""The GS-LRM benchmark runs: every part, at every batch."""

from pathlib import Path

import pytest
from script_modules import run_benchmark


def test_tiny_benchmark_measures_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_benchmark("gslrm", monkeypatch, tmp_path / "figures.json")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == len(rows) + 2
    assert len({line.count("|") for line in table}) == 1
    measured = {(row["case"], row["batch"], row["coverage"]) for row in rows}
    for kind in ("forward", "training step"):
        for batch in (1, 4):
            assert {
                (f"{kind}, {design}", batch, 1.0) for design in ("published design", "ours, dense")
            } <= measured
            assert {(f"{kind}, ours, foreground", batch, coverage) for coverage in (0.1, 1.0)} <= measured
    assert ("rendering 8 views, with gradients", 1, None) in measured
    assert any(case.startswith("attention of one block, PyTorch") for case, _, _ in measured)
    assert all(row["ms"] > 0 for row in rows)
    wanted = {row["case"]: row["wanted"] for row in rows if row["coverage"] in (0.1, None)}
    assert wanted["training step, ours, foreground"] == 40 and wanted["rendering 8 views, forward"] == 6
