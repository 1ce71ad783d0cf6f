"""The progress line of a training, and what goes on in spite of a full disk."""

import errno
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_loop import Toy, train
from torch import Tensor, nn

from mouse_facelift import progress
from mouse_facelift.errors import DependencyError
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.heartbeat import read_status
from mouse_facelift.training.logging import read_log


class Seen(Toy):
    """Tells a PSNR besides its loss."""

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: Any) -> dict[str, Tensor]:
        terms = super().loss(module, batch, generator)
        return terms | {"psnr": -10 * terms["loss"].detach().log10()}


def test_line_shows_steps_loss_psnr_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=160)
    monkeypatch.setattr(progress, "console", console)
    run = train(tmp_path / "run", Seen, steps=3)
    shown = screen.getvalue()
    last = [line for line in read_log(run) if "loss" in line][-1]
    assert "toy" in shown and "3/3" in shown
    assert f"loss {last['loss']:.4f}" in shown
    assert "dB" in shown and "samples/s" in shown


def test_line_shows_the_validated_psnr_of_a_training_whose_steps_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Measured(Toy):
        def validate(self, module: nn.Module, folder: Path) -> dict[str, float | str]:
            return {"views": "0 1", "psnr_animal": 12.34, "iou": 0.5}

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=160)
    monkeypatch.setattr(progress, "console", console)
    train(tmp_path / "run", Measured, steps=6, validate_every=2, log_every=1)
    assert "validated PSNR 12.34 dB" in screen.getvalue()


def test_run_whose_logs_cannot_be_opened_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise DependencyError("not logged in")

    monkeypatch.setattr("mouse_facelift.training.reporter.RunLog", refused)
    with pytest.raises(DependencyError):
        train(tmp_path / "run", Seen, steps=3)
    assert read_status(tmp_path / "run")["status"] == "failed"


def test_figures_are_written_every_so_many_steps_and_at_both_ends(tmp_path: Path) -> None:
    lines = [line for line in read_log(train(tmp_path / "run", Seen, steps=8, log_every=3)) if "loss" in line]
    assert [line["step"] for line in lines] == [1, 3, 6, 8]
    assert all(
        {"psnr", "error", "grad_norm", "lr", "skipped", "samples_per_s"} <= line.keys() for line in lines
    )
    assert all(line["samples_per_s"] > 0 for line in lines)


def test_full_disk_costs_a_validation_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Toy):
        def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    run = train(tmp_path / "run", Full, steps=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [2]
    assert "step 2 is not validated, No space left on device" in caplog.text


def test_other_errors_of_the_disk_end_the_run(tmp_path: Path) -> None:
    class Lost(Toy):
        def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
            raise FileNotFoundError(errno.ENOENT, "No such file", "picture.png")

    with pytest.raises(FileNotFoundError):
        train(tmp_path / "run", Lost, steps=2)
