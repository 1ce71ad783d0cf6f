"""The doctor as a whole: order, exit code, JSON, paths as arguments, weights and checkpoints."""

import errno
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.doctor import run as doctor
from mouse_facelift.doctor import weights
from mouse_facelift.doctor.config import DoctorConfig
from mouse_facelift.doctor.findings import Finding, ok, problem, warning
from mouse_facelift.training import checkpoints
from mouse_facelift.training.checkpoints import checkpoint_folder, write_checkpoint
from mouse_facelift.weights.published import FACELIFT, PIPELINE
from mouse_facelift.weights.record import Record, RecordedFile
from mouse_facelift.weights.verify import published_folders


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What all checks together find, in place of the real ones."""
    found = [ok("disk", "much room")]
    monkeypatch.setattr(doctor, "CHECKS", ("one:check",))
    monkeypatch.setattr(doctor, "perform", lambda place, subject: iter(found))
    return found


def test_exit_code_is_2_only_where_something_is_a_problem(findings: list[Finding]) -> None:
    assert call().exit_code == 0
    findings.append(warning("cores", "one", "Get more."))
    assert call().exit_code == 0
    findings.append(problem("gsplat", "broken", "Mend it."))
    done = call()
    assert done.exit_code == 2 and done.stderr == ""


def test_a_line_of_what_was_found_and_one_of_what_to_do(findings: list[Finding]) -> None:
    findings.append(problem("gsplat", "broken " * 30, "Mend it."))
    lines = call().stdout.splitlines()
    assert lines[0] == "ok       disk    much room"
    assert lines[1].startswith("problem  gsplat  broken") and lines[2].endswith("→ Mend it.")
    assert lines[3] == "1 ok, 0 warning, 1 problem"


def test_json_holds_the_same(findings: list[Finding]) -> None:
    findings.append(problem("gsplat", "broken", "Mend it."))
    done = call("--json")
    assert done.exit_code == 2
    content = json.loads(done.stdout)
    assert content["well"] is False
    assert content["findings"][1] == {
        "subject": "gsplat",
        "level": "problem",
        "found": "broken",
        "fix": "Mend it.",
    }


def test_whole_examination_is_fast() -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mouse_facelift", "doctor", "--json"], capture_output=True, text=True
    )
    assert time.monotonic() - begin < 10
    content = json.loads(done.stdout)
    assert done.returncode == (0 if content["well"] else 2)
    subjects = [finding["subject"] for finding in content["findings"]]
    assert {"python", "libraries", "torch", "rendering", "video", "opencv", "disk", "cores"} <= set(subjects)


def test_every_check_exists() -> None:
    for place in (*doctor.CHECKS, *doctor.DATA_CHECKS):
        assert doctor._load(place).__doc__


@pytest.mark.parametrize("error", [ImportError("No module named 'av'"), OSError("libav.so: cannot open")])
def test_library_that_cannot_be_imported_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(place: str) -> Any:
        raise error

    monkeypatch.setattr(doctor, "_load", broken)
    (found,) = doctor.perform("software:check_video", DoctorConfig())
    assert (found.subject, found.level) == ("video", "problem") and str(error) in found.found
    (found,) = doctor._of_data(DoctorConfig(data=Path()))
    assert (found.subject, found.level) == ("data", "problem")


def test_place_that_may_not_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: DoctorConfig) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "runs")

    monkeypatch.setattr(doctor, "_load", lambda place: refuse)
    (found,) = doctor.perform("weights:check_runs", DoctorConfig())
    assert (found.subject, found.level) == ("runs", "problem") and "permissions" in found.fix


def test_path_that_does_not_exist_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "perform", lambda *_: pytest.fail("looked at the machine first"))
    done = call(str(tmp_path / "none"))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}: no such file or folder")


def test_paths_are_told_apart_by_what_lies_in_them(tmp_path: Path) -> None:
    (tmp_path / "facelift" / PIPELINE).mkdir(parents=True)
    (tmp_path / "trainings" / "one").mkdir(parents=True)
    (tmp_path / "trainings" / "one" / "log.jsonl").touch()
    places = [tmp_path / "facelift", tmp_path / "trainings", tmp_path / "samples"]
    assert doctor.settings([*map(str, places), "pictures=3"]) == [
        f"weights={places[0]}",
        f'runs=["{places[1]}"]',
        f"data={places[2]}",
        "pictures=3",
    ]


def test_several_runs_are_looked_at_together_and_only_one_data_set(tmp_path: Path) -> None:
    for name in ("a=1", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").touch()
    one, two = str(tmp_path / "a=1"), str(tmp_path / "b")
    assert doctor.settings([one, two]) == [f"runs={json.dumps([one, two])}"]
    for name in ("train", "val"):
        (tmp_path / f"data_{name}.txt").touch()
    done = call(str(tmp_path / "data_train.txt"), str(tmp_path / "data_val.txt"))
    assert done.exit_code == 2 and "are both taken for data" in done.stderr


def write_run(run: Path, steps: tuple[int, ...] = (10, 20)) -> None:
    def fill(folder: Path) -> None:
        (folder / "weights").mkdir()
        (folder / "weights" / "model.bin").write_bytes(b"weights" * 100)

    for step in steps:
        write_checkpoint(run, step, fill, {})


def look_at_runs(tmp_path: Path, **settings: Any) -> Finding:
    config = DoctorConfig(runs=(tmp_path,), weights=tmp_path / "none", **settings)
    (found,) = weights.check_runs(config)
    return found


def test_checkpoints_of_runs_are_compared_with_their_manifests(tmp_path: Path) -> None:
    assert look_at_runs(tmp_path).found.startswith("none in")
    write_run(tmp_path / "run")
    assert look_at_runs(tmp_path).found == "2 complete checkpoints in 1 run; content compared of 1"


def test_checkpoint_that_is_damaged_or_incomplete(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (checkpoint_folder(tmp_path / "run", 10) / "weights" / "model.bin").unlink()
    found = look_at_runs(tmp_path)
    assert found.level == "problem" and "step_00000010" in found.found and "is missing" in found.found
    newest = checkpoint_folder(tmp_path / "run", 20) / "weights" / "model.bin"
    newest.write_bytes(b"WEIGHTS" * 100)
    assert "damaged" in look_at_runs(tmp_path).found
    assert "damaged" not in look_at_runs(tmp_path, hash_gb=0).found


def test_checkpoint_that_a_training_at_work_deletes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    read = checkpoints.read_checkpoint

    def delete_then_read(folder: Path) -> checkpoints.Checkpoint:
        if folder.name == "step_00000010":
            shutil.rmtree(folder)
        return read(folder)

    def delete_then_verify(checkpoint: checkpoints.Checkpoint) -> None:
        shutil.rmtree(checkpoint.folder)
        checkpoint.weights.stat()

    monkeypatch.setattr(checkpoints, "read_checkpoint", delete_then_read)
    monkeypatch.setattr(checkpoints, "verify_checkpoint", delete_then_verify)
    found = look_at_runs(tmp_path)
    assert found.level == "ok" and found.found.startswith("1 complete checkpoint in 1 run")


def write_weights(folder: Path, content: bytes = b"x" * 1000) -> None:
    from mouse_facelift.provenance import sha256
    from mouse_facelift.weights.published import needed_files

    names = [name.replace("*", "0000000000000001") for name in needed_files(FACELIFT)]
    files = {}
    for name in [*names, "mvdiffusion/prompt_embeds.safetensors"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[name] = RecordedFile(len(content), sha256(path), name, "sha256")
    Record("facelift", FACELIFT.repo_id, FACELIFT.revision, FACELIFT.licence, "now", files).write(folder)


def look_at_weights(home: Path, **settings: Any) -> Finding:
    (found,) = weights.check_published(DoctorConfig(weights=home, **settings))
    return found


def test_published_weights_by_their_checksums(tmp_path: Path) -> None:
    found = look_at_weights(tmp_path)
    assert found.level == "warning" and "mfl weights pull --to" in found.fix
    write_weights(tmp_path / "facelift")
    assert look_at_weights(tmp_path).level == "ok"
    assert "0 of them with the recorded checksum" in look_at_weights(tmp_path, hash_gb=0).found
    damaged = tmp_path / "facelift" / "mvdiffusion" / "vae" / "config.json"
    damaged.write_bytes(b"y" * 1000)
    found = look_at_weights(tmp_path)
    assert found.level == "problem" and "vae/config.json is damaged" in found.found


def test_weights_whose_checksums_nobody_knows_are_a_warning(tmp_path: Path) -> None:
    write_weights(tmp_path / "facelift")
    (tmp_path / "facelift" / "weights.json").unlink()
    assert look_at_weights(tmp_path).level == "problem"
    for path in (tmp_path / "facelift").rglob("*.*"):
        if path.suffix == ".safetensors":
            header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
            path.write_bytes(len(header).to_bytes(8, "little") + header + b"1")
        elif path.suffix == ".pt":
            import zipfile

            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("data", "x")
    found = look_at_weights(tmp_path)
    assert found.level == "warning" and "checksums are unknown" in found.found


def test_weights_elsewhere_are_known_by_their_record(tmp_path: Path) -> None:
    write_weights(tmp_path / "anywhere")
    assert [(p.name, folder) for p, folder in published_folders(tmp_path)] == [
        ("facelift", tmp_path / "anywhere")
    ]
    (tmp_path / "anywhere" / "weights.json").write_text("{")
    assert look_at_weights(tmp_path).level == "problem"
