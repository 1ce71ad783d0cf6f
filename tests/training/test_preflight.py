"""What no run can begin with is refused before anything is read or written."""

from pathlib import Path

import pytest
from test_loop import train

from mouse_facelift.errors import CheckpointError, ConfigError
from mouse_facelift.provenance import check_output
from mouse_facelift.training.checkpoints import checkpoint_folder, enclosing_run, list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.preflight import check_place, run_folder


def test_output_that_is_a_file_or_cannot_be_written_is_refused_first_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="file is a file, expected a folder"):
            check_output(output)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_output(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_output_among_checkpoints_is_refused_because_it_would_be_deleted_with_them(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    checkpoint = checkpoint_folder(run, 2)
    (tmp_path / "link").symlink_to(checkpoint)
    for output in (checkpoint, checkpoint / "again" / "run", run / "checkpoints", tmp_path / "link" / "new"):
        with pytest.raises(
            ConfigError, match=f"lies among the checkpoints of the run {run}, which are deleted"
        ):
            check_place(output)
    # Weights of other people may lie in a folder of that name.
    check_place(tmp_path / "checkpoints" / "run")
    check_place(run / "fine-tuned")
    assert enclosing_run(run) is None


def test_link_to_nowhere_is_told_before_the_model_is_built(tmp_path: Path) -> None:
    (tmp_path / "scratch").symlink_to(tmp_path / "unmounted")
    (tmp_path / "ring").symlink_to("ring")
    for output in (tmp_path / "scratch", tmp_path / "scratch" / "run", tmp_path / "ring" / "run"):
        with pytest.raises(ConfigError, match=r"output: .* is a link to .*, which does not exist"):
            check_output(output)


def enter(command: str, output: Path, dry_run: bool = False) -> None:
    with run_folder(command, OptimizerConfig(), TrainingConfig(), output, dry_run):
        pass


def test_run_of_the_other_trainer_is_refused_by_name(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    enter("toy", run)
    with pytest.raises(CheckpointError, match="was made by mfl toy, and this is mfl train-mvdiff"):
        enter("train-mvdiff", run)


def test_refused_run_leaves_the_folder_as_it_was_and_a_dry_run_makes_none(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError):
        enter("train-mvdiff", run)
    enter("toy", tmp_path / "new", dry_run=True)
    enter("toy", tmp_path / "new")
    assert sorted(tmp_path.rglob("*")) == before and list_checkpoints(run)
