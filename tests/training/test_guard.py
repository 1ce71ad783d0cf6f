"""Skipped steps: too many end the run with its state saved, and bad samples are told by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import run_in_two
from test_loop import Points, Toy, final_files, train
from torch import Tensor, nn

from mouse_facelift.errors import DataError, DivergedError
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.config import TrainingConfig
from mouse_facelift.training.guard import SkipWindow, suspects
from mouse_facelift.training.heartbeat import read_status
from mouse_facelift.training.logging import read_log
from mouse_facelift.training.update import Outcome, Pass

NAN = float("nan")


def window(size: int = 100, share: float = 0.05) -> SkipWindow:
    return SkipWindow(TrainingConfig(skip_window=size, max_skipped_share=share))


def test_more_than_the_share_of_the_window_is_too_many() -> None:
    steps = window()
    for number in range(5):
        steps.add("the loss is not finite", [f"sample_{number}"])
    assert not steps.check()
    for _ in range(20):
        steps.add()
    steps.add("the gradient is not finite", ["sample_0"])
    told = steps.check()
    assert told.startswith(
        "6 of the last 26 steps were skipped: the loss is not finite; the gradient is not finite"
    )
    assert "sample_0 (2 times), sample_1, sample_2" in told


def test_window_forgets() -> None:
    steps = window(size=10, share=0.3)
    for _ in range(3):
        steps.add("bad", ["a"])
        for _ in range(9):
            steps.add()
    assert not steps.check()
    for _ in range(4):
        steps.add("bad", ["a"])
    assert steps.check()


def test_one_or_two_early_skips_never_end_a_run() -> None:
    steps = window(size=10, share=0.0)
    for _ in range(2):
        steps.add("bad")
        assert not steps.check()
    steps.add("bad")
    assert "not known" in steps.check()


def test_run_that_never_updated_has_not_succeeded() -> None:
    steps = window()
    assert not steps.check(ending=True)
    steps.add("bad", ["a"])
    assert not steps.check() and steps.check(ending=True)
    steps.add()
    assert not steps.check(ending=True)


def test_many_names_are_cut_short() -> None:
    steps = window(size=100)
    for number in range(30):
        steps.add("bad", [f"sample_{number}"])
    assert "sample_19 and 10 more" in steps.check()


def test_samples_of_passes_with_a_good_loss_are_not_suspected() -> None:
    passes = [Pass({"loss": torch.tensor(1.0)}, ["good"]), Pass({"loss": torch.tensor(NAN)}, ["bad"])]
    assert suspects(passes, Outcome(NAN, NAN, "bad", by_loss=True)) == ["bad"]
    assert suspects(passes, Outcome(NAN, NAN, "bad", by_loss=False)) == ["good", "bad"]


class Poisoned(Toy):
    """Some samples give a loss that is not finite."""

    bad = ("point_2", "point_5")

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        terms = super().loss(module, batch, generator)
        poison = NAN if any(name in self.bad for name in batch["id"]) else 1.0
        return terms | {"loss": terms["loss"] * poison}


def test_run_with_too_many_bad_steps_ends_with_their_samples_named_and_its_state_saved(
    tmp_path: Path,
) -> None:
    with pytest.raises(DivergedError, match="3 of the last") as error:
        train(tmp_path / "run", Poisoned, steps=50, batch_size=1, skip_window=20)
    [checkpoint] = list_checkpoints(tmp_path / "run")
    assert f"The state is saved in {checkpoint.folder}" in str(error.value)
    named = re.findall(r"point_\d", str(error.value))
    assert named and set(named) <= set(Poisoned.bad)
    assert read_status(tmp_path / "run")["status"] == "diverged"
    told = [name for line in read_log(tmp_path / "run") for name in line.get("samples", [])]
    assert len(told) == 3 and set(told) <= set(Poisoned.bad)


def test_skipped_step_moves_neither_weights_nor_average_nor_the_count_of_updates(tmp_path: Path) -> None:
    """A run whose last step is skipped ends as one that has not made it."""
    shorter = final_files(train(tmp_path / "shorter", steps=3))
    longer = final_files(train(tmp_path / "longer", lambda: Toy(spoil_at=4), steps=4))
    for name, value in shorter.items():
        assert torch.equal(value, longer[name]), name
    for folder, step in (("shorter", 3), ("longer", 4)):
        state = torch.load(list_checkpoints(tmp_path / folder)[-1].state / "optimizer.pt", weights_only=True)
        assert (state["counters"]["updates"], state["averaged_updates"]) == (3, 3), step


def test_bad_step_of_one_pass_leaves_out_the_whole_update(tmp_path: Path) -> None:
    run = train(tmp_path / "run", lambda: Toy(spoil_at=3), steps=3, gradient_accumulation=2)
    assert [line["skipped"] for line in read_log(run) if "loss" in line] == [0, 1, 1]


class Broken(Points):
    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 4:
            raise DataError("point_4: alpha is 0 everywhere.\nSecond line.")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_sample_ends_the_run_with_its_name_and_nothing_takes_its_place(
    workers: int, tmp_path: Path
) -> None:
    task = Toy()
    task.dataset = Broken()
    with pytest.raises(DataError) as error:
        train(tmp_path / "run", lambda: task, steps=20, workers=workers)
    assert str(error.value) == "point_4: alpha is 0 everywhere.\nSecond line."
    assert read_status(tmp_path / "run")["status"] == "failed"


def test_skips_before_an_interruption_still_count_after_it(tmp_path: Path) -> None:
    """A run that is interrupted ever so often must not learn nothing for ever."""

    class Bad(Poisoned):
        bad = tuple(f"point_{number}" for number in range(7))

    keys = {"steps": 50, "skip_window": 50, "max_skipped_share": 0.1}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", lambda: Bad(interrupt_at=4), **keys)
    with pytest.raises(DivergedError, match=r"step 6: 6 of the last 6 steps were skipped") as error:
        train(tmp_path / "run", Bad, **keys)
    assert len(re.findall(r"point_\d", str(error.value))) >= 6


def test_run_that_diverged_begins_again_with_nothing_held_against_it(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        train(tmp_path / "run", Poisoned, steps=50, batch_size=1, skip_window=20)
    [checkpoint] = list_checkpoints(tmp_path / "run")
    # The samples have been repaired.
    train(tmp_path / "run", steps=checkpoint.step + 5, batch_size=1, skip_window=20)
    assert read_status(tmp_path / "run")["status"] == "finished"


TWO = """
import os
import sys
from pathlib import Path

from mouse_facelift.errors import DivergedError
from test_guard import Poisoned
from test_loop import train

folder = Path(sys.argv[1])
try:
    train(folder / "run", Poisoned, steps=40, batch_size=1, skip_window=20)
except DivergedError as error:
    (folder / f"told_{os.environ['RANK']}.txt").write_text(str(error))
"""


def test_processes_agree_on_skips_and_end_together(tmp_path: Path) -> None:
    run_in_two(TWO, tmp_path)
    first, second = ((tmp_path / f"told_{rank}.txt").read_text() for rank in (0, 1))
    assert first == second and "The state is saved in" in first
    assert set(re.findall(r"point_\d", first)) <= set(Poisoned.bad)
