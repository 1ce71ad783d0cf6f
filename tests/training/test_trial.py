"""`--dry-run`: one real step, what the run will need, and nothing left behind."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import Points, Toy, ToyConfig, train
from torch import Tensor, nn

from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.trial import Trial, trial


def attempt(output: Path, task: Toy | None = None, width: int = 3, **training: Any) -> Trial:
    settings = TrainingConfig(batch_size=2, workers=0, ema_decay=0.9, **training)
    config = ToyConfig(width=width, training=settings)
    return trial(
        task or Toy(), OptimizerConfig(lr=0.05), settings, output, "toy", config, validation_samples=4
    )


def test_trial_steps_validates_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    seen: list[Path] = []

    class Watched(Toy):
        def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
            seen.append(folder)
            return super().validate(module, folder)

    task = Watched()
    before = task.module.weight.detach().clone()
    result = attempt(tmp_path / "run", task, steps=100, validate_every=30)
    assert task.calls == 2 and not torch.equal(task.module.weight, before)
    assert len(seen) == 1 and seen[0].is_relative_to(scratch)
    assert not seen[0].exists() and not (tmp_path / "run").exists()
    assert (result.steps, result.validations, result.skipped) == (100, 4, "")


def test_forecast_adds_up(tmp_path: Path) -> None:
    result = attempt(tmp_path / "run", steps=100, validate_every=30, checkpoint_every=10)
    assert result.total_s == pytest.approx(100 * result.step_s + 4 * result.validation_s)
    # Three newest, one best, and the one being written.
    assert result.checkpoints == 5 and result.disk_bytes == 5 * result.checkpoint_bytes
    assert result.peak_bytes > 50e6 and result.free_bytes > 0
    told = result.lines()
    assert [line.partition(":")[0] for line in told] == ["one step", "memory", "time", "disk"]
    assert "100 steps and 4 validations take about" in told[2]


def test_size_of_a_checkpoint_is_foretold(tmp_path: Path) -> None:
    class Wide(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Linear(3, 20000), nn.Linear(20000, 1))

        def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
            return {"zero": 0.0}

    told = attempt(tmp_path / "trial", Wide(), steps=2).checkpoint_bytes
    [checkpoint] = list_checkpoints(train(tmp_path / "run", Wide, steps=2))
    written = sum(path.stat().st_size for path in checkpoint.folder.rglob("*") if path.is_file())
    assert told == pytest.approx(written, rel=0.05)


def test_run_in_progress_is_left_as_it_is_and_counted_from_where_it_stands(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=4)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")}
    assert attempt(run, steps=10).steps == 6
    assert attempt(run, steps=4).steps == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")} == before
    with pytest.raises(CheckpointError, match="width: then 3, now 4"):
        attempt(run, width=4, steps=10)


def test_step_without_an_update_is_told(tmp_path: Path) -> None:
    result = attempt(tmp_path / "run", Toy(spoil_at=2), steps=5)
    assert result.lines()[0] == "one step: loss nan, no update: the loss is not finite."


def test_too_little_disk_is_told(tmp_path: Path) -> None:
    result = attempt(tmp_path / "run", steps=5)
    assert "too little" not in result.lines()[3]
    full = Trial(**{**vars(result), "free_bytes": 0})
    assert full.lines()[3].endswith("That is too little!")


def test_too_little_gpu_memory_is_a_clear_error(tmp_path: Path) -> None:
    class Huge(Toy):
        def loss(self, module: nn.Module, batch: dict[str, Any], generator: Any) -> dict[str, Tensor]:
            raise torch.OutOfMemoryError

    with pytest.raises(ConfigError, match=r"more memory than the GPU has.*training\.batch_size"):
        attempt(tmp_path / "run", Huge(), steps=5)


def test_bad_sample_is_found(tmp_path: Path) -> None:
    class Broken(Points):
        def __getitem__(self, index: int) -> dict[str, Any]:
            raise DataError(f"point_{index}: broken")

    task = Toy()
    task.dataset = Broken()
    with pytest.raises(DataError, match="point_"):
        attempt(tmp_path / "run", task, steps=5)
