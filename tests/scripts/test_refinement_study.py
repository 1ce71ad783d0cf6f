"""The study of refinement: one moment, two steps, two cases."""

from pathlib import Path

import pytest
from script_modules import import_script


def test_every_case_gets_a_row_and_the_defaults_are_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = import_script("studies", "refinement")
    script.main(["--quick", "--output", str(tmp_path / "out"), "rate_means=0,rate_colors=0"])
    lines = (tmp_path / "out" / "results.md").read_text().splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert list(rows) == ["settings", "the visual hull", "as by default", "rate_means=0,rate_colors=0"]
    steps = [row.split("|")[2].strip() for row in rows.values()]
    assert steps == ["steps", "0", "2", "2"]
    assert rows["as by default"] in capsys.readouterr().out
    assert "true outline in one colour" in lines[-1]
