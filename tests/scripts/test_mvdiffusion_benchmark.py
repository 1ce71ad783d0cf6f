"""The MVDiffusion benchmark runs, and its fast cases compute what the published design does."""

from pathlib import Path

import pytest
from script_modules import run_benchmark


def test_tiny_benchmark_measures_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_benchmark("mvdiffusion", monkeypatch, tmp_path / "figures.json")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cases = [(row["part"], row["case"]) for row in rows]
    assert len(table) == len(rows) + 2 * len({part for part, _ in cases})
    for case in (
        ("evaluation", "published design"),
        ("evaluation", "ours, eager"),
        ("views", "ours, eager, 2 steps of unipc"),
        ("training", "ours, pictures encoded in every step"),
        ("training", "ours, cached latents"),
    ):
        assert case in cases
    assert all(row["ms"] > 0 for row in rows)
    differences = [row["difference"] for row in rows if "difference" in row]
    assert len(differences) > 5 and max(differences) < 1e-4
    assert [row["times"] for row in rows if row["case"] == "published loop"] == [1.0]
    assert {row.get("wanted") for row in rows} == {None, "at most 26", "at least 1.5"}
