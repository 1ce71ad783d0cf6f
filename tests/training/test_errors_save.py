"""An error ends a run, but costs no step of it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from forgetful_toy import Points
from forks import run_in_two
from test_loop import Toy, final_files, train
from test_validation_and_saving import Watched, scores

from mouse_facelift.errors import CheckpointError, ConfigError, DataError, DivergedError, Interrupted
from mouse_facelift.training import saving
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.logging import read_log
from mouse_facelift.training.loop import Trainer


class Damaged(Points):
    """Its n-th sample cannot be read, however often it is tried."""

    def __init__(self, at: int) -> None:
        self.at, self.read = at, 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read += 1
        if self.read >= self.at:
            raise DataError(f"point_{index}: damaged")
        return super().__getitem__(index)


class Spoiled(Toy):
    """Its n-th sample is damaged."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.dataset = Damaged(at)


def steps(run: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(run)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_sample_that_cannot_be_read_costs_no_step(accumulation: int, tmp_path: Path) -> None:
    keys = {"steps": 9, "gradient_accumulation": accumulation}
    in_the_sixth_step = 5 * 2 * accumulation + 2
    with pytest.raises(DataError, match=r"point_\d: damaged"):
        train(tmp_path / "run", lambda: Spoiled(in_the_sixth_step), **keys)
    assert steps(tmp_path / "run") == [5]
    whole, resumed = train(tmp_path / "whole", **keys), train(tmp_path / "run", **keys)
    for name, value in final_files(whole).items():
        assert torch.equal(value, final_files(resumed)[name]), name


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ZeroDivisionError()])
def test_validation_that_fails_where_no_save_is_due_costs_no_step(error: Exception, tmp_path: Path) -> None:
    keys = {"steps": 6, "validate_every": 3}
    with pytest.raises(type(error)):
        train(tmp_path / "run", lambda: Watched(1, error=error), **keys)
    assert scores(tmp_path / "run") == {3: None}
    run = train(tmp_path / "run", Watched, **keys)
    assert [line["step"] for line in read_log(run) if "validation/score" in line] == [3, 6]


def test_error_in_the_midst_of_an_update_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("half of the parameters are new")

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    with pytest.raises(RuntimeError, match="half of"):
        train(tmp_path / "run", steps=3)
    assert steps(tmp_path / "run") == []


def test_disk_that_refuses_the_rescue_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_saves(monkeypatch)
    with pytest.raises(DataError, match="damaged"):
        train(tmp_path / "run", lambda: Spoiled(6), steps=9)
    assert "step 2 could not be saved" in caplog.text


def refuse_saves(monkeypatch: pytest.MonkeyPatch, times: int = 10**6) -> list[int]:
    """Saves fail so often; returns the list of steps that were tried."""
    tried: list[int] = []
    write = saving.write_checkpoint

    def refused(run: Path, step: int, *rest: Any) -> Any:
        tried.append(step)
        if len(tried) <= times:
            raise OSError(28, "No space left on device")
        return write(run, step, *rest)

    monkeypatch.setattr(saving, "LAST_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(saving, "write_checkpoint", refused)
    return tried


def test_signal_after_a_failed_save_of_the_same_step_saves_it_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refuse_saves(monkeypatch, times=2)
    with pytest.raises(Interrupted):
        train(
            tmp_path / "run",
            lambda: Watched(1, signal.SIGTERM),
            steps=6,
            validate_every=3,
            checkpoint_every=3,
        )
    assert tried == [3, 3, 3] and steps(tmp_path / "run") == [3]


def test_signal_while_nothing_can_be_saved_is_no_clean_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_saves(monkeypatch)
    with pytest.raises(CheckpointError, match="all 3 steps would be lost"):
        train(tmp_path / "run", lambda: Watched(1, signal.SIGTERM), steps=6, validate_every=3)


def test_divergence_tries_to_the_last_and_says_what_became_of_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"steps": 300, "max_skipped_share": 0.05, "skip_window": 20}

    class Hopeless(Toy):
        def loss(self, *rest: Any) -> dict[str, torch.Tensor]:
            terms = super().loss(*rest)
            return {name: value * float("nan") for name, value in terms.items()}

    with monkeypatch.context() as patch:
        refuse_saves(patch, times=1)
        with pytest.raises(DivergedError, match=r"The state is saved in .*step_\d+"):
            train(tmp_path / "run", Hopeless, **keys)
    tried = refuse_saves(monkeypatch)
    with pytest.raises(DivergedError, match=r"The state could not be saved: .*would be lost"):
        train(tmp_path / "full", Hopeless, **keys)
    assert len(tried) == 3, "and no further attempts on the way out"


TWO = """
import json
import sys
from pathlib import Path

import torch
from two_processes import Numbers, Plain, train

from mouse_facelift.errors import MflError
from mouse_facelift.training.process import this_process

rank, folder = this_process().process_index, Path(sys.argv[1])


class Damaged(Numbers):
    def __init__(self):
        self.read = 0

    def __getitem__(self, index):
        self.read += 1
        if rank == 1 and self.read > 6:
            raise OSError(5, "Input/output error")
        return super().__getitem__(index)


class Broken(Plain):
    def __init__(self):
        super().__init__()
        self.dataset = Damaged()


class Unmeasured(Plain):
    def validate(self, module, folder):
        raise RuntimeError("CUDA out of memory")


told = []
for name, task in (("data", Broken), ("validation", Unmeasured)):
    try:
        train(folder / name, task=task, steps=9, validate_every=5, checkpoint_every=100)
    except (MflError, OSError, RuntimeError) as error:
        told.append(f"{type(error).__name__}: {error}")
train(folder / "data", steps=5, validate_every=100, checkpoint_every=100)
train(folder / "whole", steps=5, validate_every=100, checkpoint_every=100)
(folder / f"told_{rank}.json").write_text(json.dumps(told))
"""


def test_two_processes_save_what_one_of_them_cannot_go_on_from(tmp_path: Path) -> None:
    run_in_two(TWO, tmp_path)
    first, second = (json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in (0, 1))
    assert first == [
        "DataError: another process could not read its next samples; its own message says more.",
        "RuntimeError: CUDA out of memory",
    ]
    assert second == [
        "OSError: [Errno 5] Input/output error",
        "DataError: another process failed in its validation; its own message says more.",
    ]
    assert steps(tmp_path / "data") == [3, 5] and steps(tmp_path / "validation") == [5]
    whole, resumed = final_weights(tmp_path / "whole"), final_weights(tmp_path / "data")
    assert whole == resumed


def final_weights(run: Path) -> bytes:
    return (list_checkpoints(run)[-1].state / "model.safetensors").read_bytes()


def test_settings_of_the_optimizer_are_those_that_a_named_resume_asks_for(tmp_path: Path) -> None:
    from mouse_facelift.config import Config
    from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
    from mouse_facelift.training.state import SETTINGS

    def trainer(name: str, resume: str = "auto", **optimizer: Any) -> Trainer:
        training = TrainingConfig(steps=2, batch_size=2, workers=0, resume=resume, ema_decay=0.9)
        rule = OptimizerConfig.model_validate(optimizer)
        return Trainer(Toy(), rule, training, tmp_path / name, "toy", Config())

    first = trainer("a", weight_decay=0.05)
    first.resume()
    first.train()
    wanted = {"betas": (0.5, 0.6), "weight_decay": 0.5}
    second = trainer("b", resume=str(tmp_path / "a"), **wanted)
    second.resume()
    for group in second.optimizer.param_groups:
        assert {"betas", "weight_decay"} < set(SETTINGS)
        assert tuple(group["betas"]) == (0.5, 0.6)
        assert group["weight_decay"] in (0.0, 0.5)
    assert any(group["weight_decay"] == 0.5 for group in second.optimizer.param_groups)
    assert second.step == 2 and all(second.optimizer.state.values())


def test_branch_goes_on_where_it_was_though_its_parent_has_gone_on_too(tmp_path: Path) -> None:
    keys = {"checkpoint_every": 2, "keep_checkpoints": 9}
    parent = train(tmp_path / "a", steps=4, **keys)
    begins = {"resume": str(parent)} | keys
    with pytest.raises(Interrupted):
        train(tmp_path / "b", lambda: Toy(interrupt_at=3), steps=12, **begins)
    assert steps(tmp_path / "b") == [6, 7]
    train(parent, steps=9, **keys)
    branch = train(tmp_path / "b", steps=12, **begins)
    assert steps(branch) == [6, 7, 8, 10, 12]
    assert [line["step"] for line in read_log(branch) if "loss" in line] == [*range(5, 13)]
    # Another place to begin at would drop what the branch has learned.
    other = {"resume": str(parent / "checkpoints" / "step_00000009")} | keys
    with pytest.raises(ConfigError, match="holds a checkpoint of step 12"):
        train(tmp_path / "b", steps=20, **other)


def test_accelerates_own_accumulation_and_sharding_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tmp_path / "plain", steps=3)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    told = train(tmp_path / "told", steps=3)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    norms = [[line["grad_norm"] for line in read_log(run) if "loss" in line] for run in (plain, told)]
    assert norms[0] == norms[1]
