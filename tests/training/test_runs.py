"""`mfl runs`: how training runs stand, judged from their folders alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_loop import Toy, train

from mouse_facelift import cli
from mouse_facelift.errors import ConfigError
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.heartbeat import STALE_S, Heartbeat, read_status
from mouse_facelift.training.lock import LOCK, locked
from mouse_facelift.training.runs import RunSummary, as_table, list_runs, summarize


def rewrite(folder: Path, **facts: Any) -> None:
    path = folder / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


class Scored(Toy):
    """Its validation gets better and then worse."""

    best_metric = "-error"

    def validate(self, module: Any, folder: Path) -> dict[str, float]:
        self.validations = getattr(self, "validations", 0) + 1
        return {"error": [0.5, 0.25, 0.75][self.validations - 1]}


def test_finished_run_tells_its_best_and_its_checkpoint(tmp_path: Path) -> None:
    run = train(tmp_path / "run", Scored, steps=6, validate_every=2)
    found = summarize(run)
    assert (found.command, found.status, found.step, found.steps) == ("toy", "finished", 6, 6)
    assert (found.metric, found.best, found.best_step) == ("error", 0.25, 4)
    assert found.checkpoint_step == 6 and 0 <= (found.checkpoint_age_s or 0) < 60
    assert found.size == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


def test_interrupted_and_diverged_and_failed_runs_say_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", lambda: Toy(interrupt_at=2), steps=9)
    assert summarize(tmp_path / "a").status == "interrupted"

    def fail() -> Toy:
        task = Toy()
        task.export = lambda module, folder: 1 / 0  # type: ignore[method-assign]
        return task

    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "b", fail, steps=2)
    assert summarize(tmp_path / "b").status == "failed, no checkpoint"


def test_running_is_believed_only_of_a_process_that_lives(tmp_path: Path) -> None:
    with Heartbeat(tmp_path, steps=10, step=3):
        assert read_status(tmp_path)["status"] == "running"
        rewrite(tmp_path, began=1.0)
        # Another process has this number now.
        assert read_status(tmp_path)["status"] == "killed"
        rewrite(tmp_path, pid=2**22 + 1)
        assert summarize(tmp_path).status == "killed, no checkpoint"


def test_run_elsewhere_is_believed_as_long_as_it_gives_signs(tmp_path: Path) -> None:
    with Heartbeat(tmp_path, steps=10, step=3):
        rewrite(tmp_path, host="another", pid=1)
        assert summarize(tmp_path).status == "running"
        rewrite(tmp_path, updated=time.time() - STALE_S - 1)
        assert summarize(tmp_path).status == "stale?, no checkpoint"


def test_process_that_was_killed_is_told_from_one_that_runs(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from mouse_facelift.training.heartbeat import Heartbeat\n"
        "with Heartbeat(Path(sys.argv[1]), 9, 1): print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    assert summarize(tmp_path).status == "running"
    process.kill()
    process.communicate()
    assert summarize(tmp_path).status == "killed, no checkpoint"


def test_folder_in_use_is_a_run_that_starts_or_runs_whatever_its_last_sign_says(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    with locked(run):
        assert summarize(run).status == "starting"
        rewrite(run, status="running", host="another", pid=1, updated=time.time() - STALE_S - 1)
        # It validates for long, and its lock is seen through the network disk.
        assert summarize(run).status == "running"
    assert summarize(run).status == "stale?"
    with locked(tmp_path / "new"):
        assert [run.status for run in list_runs([tmp_path / "new"])] == ["starting"]


def test_trainer_that_was_killed_before_its_first_sign_is_told_by_its_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("{}")
    assert [run.status for run in list_runs([tmp_path])] == ["killed, no checkpoint"]


def test_run_that_was_killed_after_its_last_save_has_finished(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    rewrite(run, status="running", began=1.0)
    assert summarize(run).status == "finished"
    rewrite(run, steps=3)
    assert summarize(run).status == "killed"


def test_runs_in_the_folders_of_other_runs_are_found(tmp_path: Path) -> None:
    outer = train(tmp_path / "outer", steps=1)
    inner = train(outer / "fine-tuned", steps=1)
    train(outer / "checkpoints" / "copy", steps=1)
    assert [run.folder for run in list_runs([tmp_path])] == [outer, inner]


def test_age_of_a_checkpoint_is_that_of_its_content_also_after_copying(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=1)
    [checkpoint] = list_checkpoints(run)
    manifest = checkpoint.folder / "manifest.json"
    manifest.write_text(json.dumps({**checkpoint.manifest, "time": time.time() - 7200}))
    assert summarize(run).checkpoint_age_s == pytest.approx(7200, abs=60)


def test_damaged_files_in_a_run_do_not_hide_it(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    (run / "status.json").write_text('{"status": "fin')
    (run / "run.json").write_text("[")
    found = summarize(run)
    assert (found.status, found.step, found.command) == ("unknown", 2, "")


def test_runs_are_found_under_folders_and_other_folders_are_not_runs(tmp_path: Path) -> None:
    for name in ("deep/er/one", "two"):
        train(tmp_path / name, steps=1)
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "run.json").write_text("{}")
    found = [run.folder for run in list_runs([tmp_path, tmp_path / "two"])]
    assert found == [tmp_path / "deep/er/one", tmp_path / "two"]


def test_missing_folders_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        list_runs([tmp_path / "nowhere"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="neither runs/ nor outputs/ exists here"):
        list_runs()
    (tmp_path / "outputs").mkdir()
    assert list_runs() == []


def mfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.app(list(arguments), prog_name="mfl")
    return int(exit_.value.code or 0)


def test_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "run", Scored, steps=2, validate_every=2)
    assert mfl("runs", str(tmp_path), "--json") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(run) and found["status"] == "finished" and found["best_step"] == 2
    assert found.keys() == set(RunSummary.__dataclass_fields__)
    assert mfl("runs", str(tmp_path)) == 0
    assert "finished" in capsys.readouterr().out
    assert mfl("runs", str(tmp_path / "nowhere")) == 2


def test_table_has_a_line_a_run(tmp_path: Path) -> None:
    from rich.console import Console

    train(tmp_path / "run", Scored, steps=2, validate_every=2)
    console = Console(width=300, file=open(os.devnull, "w"), record=True)  # noqa: PTH123, SIM115
    console.print(as_table(list_runs([tmp_path])))
    head, line = console.export_text().splitlines()
    assert head.split() == ["run", "command", "status", "step", "best", "checkpoint", "size"]
    assert "toy" in line and "2/2" in line and "error 0.5 at 2" in line and "ago" in line


def test_looking_changes_nothing(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    list_runs([tmp_path])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert list_checkpoints(run)
