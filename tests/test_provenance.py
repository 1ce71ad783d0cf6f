import hashlib
import json
import platform
import re
from importlib import metadata
from pathlib import Path

import pytest
from pydantic import Field

from mouse_facelift import __version__, provenance
from mouse_facelift.config import Config
from mouse_facelift.errors import ConfigError
from mouse_facelift.provenance import LIBRARIES, Run, check_maker, sha256


class ToyConfig(Config):
    folder: Path = Field(Path("a/b"), description="Where.")
    seed: int = Field(4, description="Seed.")


def written(run: Run, folder: Path, **facts: object) -> dict:
    run.write(folder, facts)
    return json.loads((folder / "run.json").read_text())


def test_run_json_holds_config_versions_and_time(tmp_path: Path) -> None:
    record = written(Run("infer", ToyConfig()), tmp_path)
    assert record["command"] == "infer"
    assert record["config"] == {"folder": "a/b", "seed": 4}
    assert record["versions"]["mouse-facelift"] == __version__
    assert record["versions"]["python"] == platform.python_version()
    assert set(LIBRARIES) < set(record["versions"])
    assert record["versions"]["torch"] == metadata.version("torch")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["started"])


def test_library_that_is_not_installed_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LIBRARIES", ("torch", "no-such-library"))
    assert written(Run("x", ToyConfig()), tmp_path)["versions"]["no-such-library"] == "absent"


def test_laps_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 13.0])
    monkeypatch.setattr(provenance.time, "perf_counter", lambda: next(clock))
    run = Run("x", ToyConfig())
    run.lap("loading")
    run.lap("work")
    assert written(run, tmp_path)["seconds"] == {"loading": 2.5, "work": 0.5}


def test_inputs_are_hashed(tmp_path: Path) -> None:
    file = tmp_path / "input.bin"
    file.write_bytes(b"mouse" * 100_000)
    run = Run("x", ToyConfig())
    run.add_inputs([file])
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert sha256(file) == expected
    assert written(run, tmp_path)["inputs"] == {str(file): expected}


def test_further_facts_are_added_and_may_be_written_again(tmp_path: Path) -> None:
    run = Run("x", ToyConfig())
    assert written(run, tmp_path, samples=[1])["samples"] == [1]
    assert written(run, tmp_path, samples=[1, 2])["samples"] == [1, 2]


def test_revision_of_a_checkout_is_a_commit() -> None:
    if not (Path(provenance.__file__).parents[1] / ".git").exists():
        pytest.skip("not a git checkout")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", str(provenance._git_revision()))


def test_installed_package_does_not_report_the_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages" / "m" / "provenance.py"))
    assert provenance._git_revision() is None


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance._git_revision() is None


def test_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    check_maker(tmp_path / "absent", "train-gslrm")
    check_maker(tmp_path, "train-gslrm")
    (tmp_path / "run.json").write_text('{"command": "preprocess"}')
    check_maker(tmp_path, "preprocess")
    with pytest.raises(ConfigError, match="belongs to `mfl preprocess`"):
        check_maker(tmp_path, "train-gslrm")
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"not a run\.json"):
        check_maker(tmp_path, "preprocess")
