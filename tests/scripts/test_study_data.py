"""What studies keep from an earlier call must be what this call asks for."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from script_modules import import_script

from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.errors import ConfigError

APART = ("model.tokens", "output")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("studies", "study_data")


@pytest.fixture
def made(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Recordings that were made, which are empty folders."""
    folders: list[Path] = []

    def write(folder: Path, config: RecordingConfig) -> None:
        folder.mkdir()
        folders.append(folder)

    monkeypatch.setattr(script, "write_recording", write)
    return folders


def write_run(folder: Path, tokens: str, batch: int) -> Path:
    folder.mkdir()
    config = {
        "model": {"tokens": tokens, "width": 32},
        "training": {"batch_size": batch},
        "output": str(folder),
    }
    (folder / "run.json").write_text(json.dumps({"config": config}))
    return folder


def test_recording_is_kept_for_the_same_settings_and_refused_for_others(
    script: ModuleType, made: list[Path], tmp_path: Path
) -> None:
    few = RecordingConfig(frames=12, width=288, height=256)
    for _ in range(2):
        script.record(tmp_path / "recording", few)
    assert len(made) == 1
    with pytest.raises(ConfigError, match="was made with other settings"):
        script.record(tmp_path / "recording", RecordingConfig(frames=120))


def test_recording_that_was_cut_short_is_made_again(
    script: ModuleType, made: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "write_recording", killed)
        with pytest.raises(KeyboardInterrupt):
            script.record(tmp_path / "recording", RecordingConfig(frames=12))
    script.record(tmp_path / "recording", RecordingConfig(frames=24))
    assert len(made) == 1


def test_trainings_that_differ_in_more_than_what_is_studied_are_not_compared(
    script: ModuleType, tmp_path: Path
) -> None:
    dense, foreground, other = (
        write_run(tmp_path / name, tokens, batch)
        for name, tokens, batch in (("a", "dense", 4), ("b", "foreground", 4), ("c", "foreground", 8))
    )
    script.check_alike([dense, foreground], APART)
    with pytest.raises(ConfigError, match=r"a and .*c were .*training: .*4.* and .*8.*cannot be compared"):
        script.check_alike([dense, foreground, other], APART)
