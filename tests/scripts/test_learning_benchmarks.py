"""The benchmarks that train on the synthetic recording run: overfitting one sample, dense and foreground."""

import re
import sys
from pathlib import Path

import pytest
from script_modules import import_script

from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording


def test_overfitting_is_measured_at_input_views_and_new_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "recording", RecordingConfig(frames=6, width=144, height=128))
    monkeypatch.setattr(sys, "argv", ["overfit.py", "--output", str(tmp_path), "--steps", "2"])
    import_script("benchmarks", "overfit").main()
    printed = capsys.readouterr().out
    assert "2 steps in " in printed
    for place in ("input views", "four new cameras"):
        assert re.search(rf"{place}: +-?[\d.]+ dB, IoU [\d.]+", printed), printed
    assert re.search(r"true outline in one colour there: [\d.]+ dB", printed)


def test_dense_and_foreground_tokens_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tiny", "--output", str(tmp_path), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["tokens.py", *options])
    import_script("benchmarks", "tokens").main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows] == ["tokens", "---", "dense", "foreground"]
    assert all(len(row) == len(rows[0]) for row in rows)
    assert all(0 <= float(row[column]) <= 1 for row in rows[2:] for column in (3, 5))
