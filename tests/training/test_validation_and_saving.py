"""A validation may be long and may fail: what was learned is saved first, and it can be left at any time."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import run_in_two
from test_loop import Toy, final_files, train
from torch import nn

from mouse_facelift.errors import Interrupted
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.heartbeat import read_status
from mouse_facelift.training.logging import read_log
from mouse_facelift.training.runs import summarize


class Watched(Toy):
    """Something happens in the midst of its n-th validation, and nothing after it."""

    best_metric = "score"

    def __init__(self, at: int = -1, *signals: signal.Signals, error: Exception | None = None) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.at, self.signals, self.error = at, signals, error
        self.begun = self.ended = 0

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        self.begun += 1
        if self.begun == self.at:
            for number in self.signals:
                os.kill(os.getpid(), number)
            if self.error is not None:
                raise self.error
        torch.rand(3)
        self.ended += 1
        return {"score": float(module.weight.sum())}


def validations(run: Path) -> list[int]:
    return [line["step"] for line in read_log(run) if "validation/score" in line]


def scores(run: Path) -> dict[int, Any]:
    return {checkpoint.step: checkpoint.manifest["metrics"] for checkpoint in list_checkpoints(run)}


KEYS = {"validate_every": 3, "checkpoint_every": 3, "keep_checkpoints": 9, "steps": 6}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize(("at", "step"), [(1, 3), (2, 6)], ids=["first", "last"])
def test_signal_leaves_a_validation_at_once_and_a_resumed_run_makes_it_up(
    at: int, step: int, number: signal.Signals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path / "whole", Watched, **KEYS)
    task = Watched(at, number)
    with pytest.raises(Interrupted) as ended:
        train(tmp_path / "run", lambda: task, **KEYS)
    assert ended.value.exit_code == (130 if number == signal.SIGINT else 143)
    assert (task.begun, task.ended) == (at, at - 1)
    assert f"{number.name}: leaving the validation, then saving" in caplog.text
    assert read_status(tmp_path / "run")["status"] == "interrupted"
    assert max(scores(tmp_path / "run")) == step and scores(tmp_path / "run")[step] is None
    run = train(tmp_path / "run", Watched, **KEYS)
    assert validations(run) == [3, 6] and scores(run) == scores(whole)
    for name, value in final_files(whole).items():
        assert torch.equal(value, final_files(run)[name]), name


def test_validation_that_is_left_where_no_save_is_due_saves_its_step(tmp_path: Path) -> None:
    keys = KEYS | {"checkpoint_every": 4}
    with pytest.raises(Interrupted):
        train(tmp_path / "run", lambda: Watched(1, signal.SIGTERM), **keys)
    assert list(scores(tmp_path / "run")) == [3]
    run = train(tmp_path / "run", Watched, **keys)
    assert validations(run) == [3, 6] and scores(run)[3] is not None


def test_second_signal_in_a_validation_ends_at_once_without_saving(tmp_path: Path) -> None:
    class Insisting(Watched):
        def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
            try:
                return super().validate(module, folder)
            finally:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", lambda: Insisting(1, signal.SIGINT), **(KEYS | {"checkpoint_every": 4}))
    assert scores(tmp_path / "run") == {}


def test_failing_validation_costs_no_step(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run", lambda: Watched(1, error=ZeroDivisionError()), **KEYS)
    assert list(scores(tmp_path / "run")) == [3] and summarize(tmp_path / "run").status == "failed"
    run = train(tmp_path / "run", Watched, **KEYS)
    assert validations(run) == [3, 6]


def test_run_that_was_killed_in_its_last_validation_makes_up_for_it_and_only_once(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run", lambda: Watched(2, error=ZeroDivisionError()), **KEYS)
    again, third = Watched(), Watched()
    run = train(tmp_path / "run", lambda: again, **KEYS)
    assert (again.begun, again.calls) == (1, 0) and validations(run) == [3, 6]
    train(tmp_path / "run", lambda: third, **KEYS)
    assert (third.begun, third.calls) == (0, 0)


def test_full_disk_costs_the_note_on_a_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mouse_facelift.training.saving.amend_checkpoint", full)
    run = train(tmp_path / "run", Watched, **KEYS)
    assert scores(run) == {3: None, 6: None} and validations(run) == [3, 6]
    assert "step 3: the checkpoint does not know its validation" in caplog.text


TWO = """
import os
import signal
import sys
from pathlib import Path

from test_loop import train
from test_validation_and_saving import KEYS, Watched

folder = Path(sys.argv[1])
try:
    # Only the first process validates, and only it is asked to stop.
    train(folder / "run", lambda: Watched(1, signal.SIGTERM), **KEYS)
except KeyboardInterrupt:
    train(folder / "run", Watched, **KEYS)
    train(folder / "whole", Watched, **KEYS)
"""


def test_two_processes_leave_the_first_ones_validation_together(tmp_path: Path) -> None:
    run_in_two(TWO, tmp_path)
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert validations(run) == validations(whole) == [3, 6] and scores(run) == scores(whole)
    for name, value in final_files(whole).items():
        assert torch.equal(value, final_files(run)[name]), name
