"""A demo's folder is of one demo: nothing of other settings or weights is taken for what is asked for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import DemoConfig
from mouse_facelift.demo.places import Places
from mouse_facelift.demo.run import run
from mouse_facelift.errors import ConfigError

Call = Callable[..., Path]


@pytest.fixture
def weights(demo_weights: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_weights, tmp_path / "weights")


@pytest.fixture
def call(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The demo up to its first stage, which is left out."""
    monkeypatch.setattr("mouse_facelift.demo.run._plan", lambda *_: [])
    return lambda *more: run(
        load_config(DemoConfig, None, [f"output={tmp_path / 'demo'}", f"weights={weights}", *more])
    )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("recording.seed=9", r"recording\.seed: then 0, now 9"),
        ("samples=2", "samples: then 5, now 2"),
        ("preprocess=[size=64]", r"preprocess\.size: then 128, now 64"),
        ("infer=[turntable.frames=9]", r"direct\.turntable\.frames: then 60, now 9"),
        ("compare=[diffusion.steps=3]", r"compare\.diffusion\.steps: then 20, now 3"),
        ("train_mvdiff=[validation.samples=1]", r"train_mvdiff\.validation\.samples: then 3, now 1"),
        ("train_gslrm=[validation.input_views=5]", r"train_gslrm\.validation\.input_views: then 4, now 5"),
    ],
)
def test_other_settings_are_told(call: Call, setting: str, told: str) -> None:
    call()
    with pytest.raises(ConfigError, match=f"holds another demo .*{told}"):
        call(setting)


def test_edited_stage_file_is_told(call: Call, tmp_path: Path) -> None:
    from mouse_facelift.demo.shipped import find_configs

    stages = shutil.copytree(find_configs() / "demo", tmp_path / "stages")
    call(f"stages={stages}")
    call()
    file = stages / "train_gslrm.yaml"
    file.write_text(file.read_text().replace("lr: 5.0e-5", "lr: 5.0e-4"))
    with pytest.raises(ConfigError, match=r"train_gslrm\.optimizer\.lr: then 5e-05, now 0\.0005"):
        call(f"stages={stages}")


@pytest.mark.parametrize(
    "file",
    ["gslrm/gslrm.safetensors", "mvdiffusion/unet/config.json", "mvdiffusion/vae/config.json"],
)
def test_other_weights_are_told_frozen_parts_too(call: Call, weights: Path, file: str) -> None:
    call()
    content = (weights / file).read_bytes()
    # Another byte of a header, or blank space: what is read is the same, but nobody can know.
    changed = content[:-1] + bytes([content[-1] ^ 1]) if file.endswith(".safetensors") else content + b" "
    (weights / file).write_bytes(changed)
    with pytest.raises(ConfigError, match=f"holds another demo .*other weights/{file}"):
        call()


def test_same_weights_elsewhere_and_what_costs_time_alone_are_no_other_demo(
    call: Call, weights: Path, tmp_path: Path
) -> None:
    call()
    moved = weights.rename(tmp_path / "moved")
    call(f"weights={moved}", "recording.threads=4", "infer=[device=cpu]")


def test_folder_of_somebody_s_own_recording_is_not_taken_for_a_demo(call: Call, tmp_path: Path) -> None:
    (tmp_path / "demo" / "recording").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"holds recording, but no demo\.json") as caught:
        call()
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_marker_that_cannot_be_read_is_named(call: Call, tmp_path: Path, content: str) -> None:
    call()
    Places(tmp_path / "demo").marker.write_text(content)
    with pytest.raises(ConfigError, match=r"demo\.json: "):
        call()


def test_many_differences_are_counted(call: Call, tmp_path: Path) -> None:
    call()
    marker = Places(tmp_path / "demo").marker
    facts = json.loads(marker.read_text())
    marker.write_text(json.dumps({key: value for key, value in facts.items() if "turntable" not in key}))
    with pytest.raises(ConfigError, match=r"; and \d+ more\)"):
        call()


def test_disk_that_will_be_full_before_the_last_stage_is_told_at_once(
    call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mouse_facelift.demo.run.free_bytes", lambda _: 10**9)
    call()
    assert not caplog.text
    monkeypatch.setattr("mouse_facelift.demo.run.free_bytes", lambda _: 10**8)
    call()
    assert "100 MB free, a whole demo takes up to 500 MB" in caplog.text
