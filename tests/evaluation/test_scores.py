"""Rows on disk, and what the documentation says of them."""

from pathlib import Path

import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.evaluation.leaks import VERDICTS
from mouse_facelift.evaluation.scores import (
    COLUMNS,
    DEFINITIONS,
    LOWER_IS_BETTER,
    Score,
    read_scores,
    write_scores,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def row(**values: float | None) -> Score:
    figures = dict.fromkeys(DEFINITIONS) | values
    return Score("direct", "novel", "sample_000012", 12, 7, "novel", "clean", figures)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [row(iou=1 / 3, psnr_animal_db=None), row(iou=1e-17)]
    write_scores(tmp_path / "scores.csv", rows)
    assert read_scores(tmp_path / "scores.csv") == rows
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_figures_that_are_not_finite_are_empty(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", [row(iou=float("nan"))])
    assert read_scores(tmp_path / "scores.csv")[0].values["iou"] is None


def test_a_frame_may_be_unknown(tmp_path: Path) -> None:
    nameless = Score("a", "novel", "x", None, 0, "novel", "unknown", dict.fromkeys(DEFINITIONS))
    write_scores(tmp_path / "scores.csv", [nameless])
    assert read_scores(tmp_path / "scores.csv") == [nameless]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"not a scores.csv"):
        read_scores(tmp_path / "scores.csv")
    with pytest.raises(DataError, match="no such file"):
        read_scores(tmp_path / "nothing.csv")


def test_lower_is_better_names_figures() -> None:
    assert set(LOWER_IS_BETTER) <= set(DEFINITIONS)


def test_the_page_has_every_definition_and_verdict_word_for_word() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, meaning in DEFINITIONS.items():
        assert f"| `{name}` | {meaning} |" in text
    for verdict, meaning in VERDICTS.items():
        assert f"| {verdict} | {meaning} |" in text
