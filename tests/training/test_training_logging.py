"""The figures of a run: whole lines in order after any crash, and the places where they are shown."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import Field

from mouse_facelift.config import Config
from mouse_facelift.errors import DependencyError
from mouse_facelift.training import logging as training_logging
from mouse_facelift.training.config import TrainingConfig
from mouse_facelift.training.logging import RunLog, check_loggers, read_log, set_aside


class ToyConfig(Config):
    width: int = Field(3, description="Size of the toy.")


def run_log(folder: Path, step: int = 0, **training: Any) -> RunLog:
    return RunLog(folder, TrainingConfig(**training), ToyConfig(), step)


def write(folder: Path, *steps: int, resumed_at: int = 0) -> None:
    with run_log(folder, resumed_at) as record:
        for step in steps:
            record.write(step, {"loss": 1.0 / step})


def steps_of(folder: Path) -> list[int]:
    return [line["step"] for line in read_log(folder)]


def test_figures_that_are_not_finite_become_null(tmp_path: Path) -> None:
    with run_log(tmp_path) as record:
        record.write(1, {"loss": float("nan"), "psnr": float("inf"), "views": "0 1"})
    [line] = read_log(tmp_path)
    assert (line["loss"], line["psnr"], line["views"]) == (None, None, "0 1")


def test_steps_that_are_done_again_are_there_once_and_the_old_lines_lie_aside(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5)
    write(tmp_path, 4, 5, 6, resumed_at=3)
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]
    aside = (tmp_path / "log.aside.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in aside] == [4, 5]


def test_run_that_starts_anew_moves_all_lines_aside(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    write(tmp_path, 1)
    assert steps_of(tmp_path) == [1]


@pytest.mark.parametrize("torn", ['{"step": 3, "los', '{"step"', '{"step": 3}{"st', "\0\0\0", "\xe9", "[3]"])
def test_torn_last_line_hurts_neither_reading_nor_going_on(torn: str, tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    with (tmp_path / "log.jsonl").open("a", encoding="latin-1") as file:
        file.write(torn)
    assert steps_of(tmp_path) == [1, 2]
    write(tmp_path, 3, resumed_at=2)
    assert steps_of(tmp_path) == [1, 2, 3]
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 3


def test_last_line_torn_just_before_its_end_is_kept(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    write(tmp_path, 3, resumed_at=2)
    assert steps_of(tmp_path) == [1, 2, 3]
    assert not (tmp_path / "log.aside.jsonl").exists()


def test_crash_at_any_byte_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    whole = (tmp_path / "log.jsonl").read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / "log.jsonl").write_bytes(whole[:length])
        done = len(read_log(tmp_path))
        set_aside(tmp_path, done)
        assert steps_of(tmp_path) == list(range(1, done + 1))
        write(tmp_path, done + 1, resumed_at=done)
        assert steps_of(tmp_path) == list(range(1, done + 2))


def test_full_disk_costs_a_line_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with run_log(tmp_path) as record:
        record._file.close()
        record._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
        record.write(7, {"loss": 1.0})
        record._file = (tmp_path / "log.jsonl").open("a", encoding="utf-8")
        record.write(8, {"loss": 1.0})
    assert steps_of(tmp_path) == [8]
    assert "step 7 is missing in /dev/full: No space left on device" in caplog.text


def test_log_that_cannot_be_closed_hides_no_other_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_log(tmp_path) as record:
        record._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
        record.write(7, {"loss": 1.0})
        raise ZeroDivisionError
    with run_log(tmp_path) as record:
        record._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
        record.write(7, {"loss": 1.0})


@pytest.mark.parametrize("place", ["_tensorboard", "_wandb"])
def test_service_that_fails_costs_its_figures_and_not_the_run(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Dead:
        def __getattr__(self, name: str) -> None:
            raise OSError(28, "No space left on device")

    with run_log(tmp_path) as record:
        setattr(record, place, Dead())
        record.write(1, {"loss": 1.0})
        record.write(2, {"loss": 0.5})
    assert [line["loss"] for line in read_log(tmp_path)] == [1.0, 0.5]
    told = [text for text in caplog.messages if "takes no more figures" in text]
    assert told == [f"{place[1:]} takes no more figures: [Errno 28] No space left on device"]


def test_missing_tensorboard_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_logging.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'mouse-facelift\[tensorboard\]'"):
        run_log(tmp_path / "run", tensorboard=True)
    with pytest.raises(DependencyError, match="wandb is not installed"):
        check_loggers(TrainingConfig(wandb="offline"))
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_each_step_once_after_a_crash(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed_at, steps in ((0, (1, 2, 3)), (1, (2, 3, 4))):
        with run_log(tmp_path, resumed_at, tensorboard=True) as record:
            for step in steps:
                record.write(step, {"loss": float(resumed_at), "views": "0 1"})
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [(1, 0.0), (2, 1.0), (3, 1.0), (4, 1.0)]


class FakeWandb(SimpleNamespace):
    """Remembers what it was started with and told."""

    def __init__(self) -> None:
        super().__init__(errors=SimpleNamespace(Error=ConnectionError), Image=lambda path: path)
        self.starts: list[dict[str, Any]] = []
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.ends: list[int] = []

    def init(self, **settings: Any) -> Any:
        self.starts.append(settings)
        return SimpleNamespace(
            log=lambda values, step: self.told.append((step, values)),
            finish=lambda exit_code: self.ends.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(training_logging.importlib.util, "find_spec", lambda name: object())
    return fake


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_resumed_run_is_the_same_run_for_wandb(mode: str, wandb: FakeWandb, tmp_path: Path) -> None:
    for resumed_at in (0, 1):
        with run_log(tmp_path, resumed_at, wandb=mode) as record:
            record.write(resumed_at + 1, {"loss": 1.0})
    first, second = wandb.starts
    assert first["id"] == second["id"] == (tmp_path / "wandb_id.txt").read_text().strip()
    assert (first["mode"], first["resume"], first["config"]) == (mode, "allow", {"width": 3})
    assert wandb.told == [(1, {"loss": 1.0}), (2, {"loss": 1.0})]
    assert wandb.ends == [0, 0]


def test_another_run_is_another_run_for_wandb(wandb: FakeWandb, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with run_log(tmp_path / name, wandb="offline"):
            pass
    assert wandb.starts[0]["id"] != wandb.starts[1]["id"]


def test_wandb_is_told_of_a_failed_run_and_shown_its_pictures(wandb: FakeWandb, tmp_path: Path) -> None:
    (tmp_path / "views_00.png").write_bytes(b"")
    with pytest.raises(KeyError), run_log(tmp_path, wandb="offline") as record:
        record.pictures(3, tmp_path)
        raise KeyError
    assert wandb.told == [(3, {"validation/views_00": str(tmp_path / "views_00.png")})]
    assert wandb.ends == [1]


def test_wandb_that_does_not_start_is_a_clear_error(
    wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("no API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(DependencyError, match=r"does not start: no API key configured\. Log in"):
        run_log(tmp_path, wandb="online")


def test_disabled_wandb_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    write(tmp_path, 1)
    assert not (tmp_path / "wandb_id.txt").exists()
