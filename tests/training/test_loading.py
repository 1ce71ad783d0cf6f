"""Data loading processes end with the training, however it ends and whoever keeps the error."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from forgetful_toy import Forgetful, Points, train
from torch import Tensor

from mouse_facelift.errors import DataError


class Broken(Points):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 4:
            raise self.error
        return super().__getitem__(index)


class Failing(Forgetful):
    def loss(self, *args: Any) -> dict[str, Tensor]:
        raise DataError("the loss cannot be computed")


@pytest.mark.parametrize("error", [DataError("no animal"), OSError("no disk")], ids=["ours", "another"])
def test_no_process_outlives_a_sample_that_cannot_be_read(tmp_path: Path, error: Exception) -> None:
    task = Forgetful()
    task.dataset = Broken(error)
    with pytest.raises(type(error), match="no ") as kept:
        train(tmp_path / "run", task, steps=9, workers=2)
    assert kept.value.__traceback__ is not None
    assert multiprocessing.active_children() == []


def test_no_process_outlives_a_training_that_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be computed") as kept:
        train(tmp_path / "run", Failing(), steps=9, workers=2)
    assert kept.value.__traceback__ is not None
    assert multiprocessing.active_children() == []
