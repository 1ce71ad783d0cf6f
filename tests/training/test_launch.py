"""`--gpus N` with processes on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mouse_facelift.errors import ConfigError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_list, write_sample
from mouse_facelift.training import launch
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.logging import read_log

SIZE, VIEWS = 16, 3


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folders = []
    for number in range(4):
        angles = np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
        rig = [Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.5), (0, 0, 0), 17, SIZE) for a in angles]
        pictures = np.full((VIEWS, SIZE, SIZE, 4), (255, 255, 255, 0), np.uint8)
        pictures[:, 4:12, 4:12] = rng.integers(0, 255, (VIEWS, 8, 8, 4))
        pictures[:, 4:12, 4:12, 3] = 255
        folders.append(write_sample(tmp_path / f"s{number}", list(pictures), rig, range(VIEWS)).folder)
    write_list(tmp_path / "list.txt", folders)
    return tmp_path / "list.txt"


def start(samples: Path, *settings: str) -> subprocess.Popen[str]:
    """`mfl train-gslrm --gpus 2`, tiny."""
    command = [
        *(sys.executable, "-m", "mouse_facelift", "train-gslrm", "--gpus", "2"),
        *(f"data.train_list={samples}", f"data.image_size={SIZE}", f"output={samples.parent / 'run'}"),
        "model={width: 32, head_width: 32, layers: 1, scale_bias: -3.5}",
        "views={input_views: 2, target_views: 1}",
        "validation={samples: 1, input_views: 2}",
        *("training.workers=0", "training.batch_size=1", "training.log_every=1", *settings),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_trains_on_cached_pictures_with_sharded_parameters(samples: Path) -> None:
    more = ["training.sample_cache=disk", "training.fsdp=true", "training.ema_decay=0.9"]
    process = start(samples, "training.steps=2", *more)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    run = samples.parent / "run"
    assert [line["step"] for line in read_log(run) if "loss" in line] == [1, 2]
    (checkpoint,) = list_checkpoints(run)
    assert checkpoint.manifest["world_size"] == 2
    assert len(list((samples.parent / "sample_cache").glob("*.safetensors"))) == 1
    assert err.count("starting from step 0") == 1


def test_error_is_told_once_and_its_exit_code_comes_back(samples: Path) -> None:
    (samples.parent / "s2/images/cam_001.png").write_bytes(b"no picture")
    process = start(samples, "training.steps=5")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    assert err.count("s2/images/cam_001.png: not a readable picture") == 1
    assert "Traceback" not in err and "SIGTERM" not in err


def test_warning_of_a_scheduler_saves_the_step_and_ends_all(samples: Path) -> None:
    process, log = start(samples, "training.steps=100000"), samples.parent / "run" / "log.jsonl"
    end = time.monotonic() + 60
    while not (log.is_file() and '"step": 2,' in log.read_text()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "interrupted" and err.count("SIGUSR1: finishing the step") == 1
    run = samples.parent / "run"
    assert [c.step for c in list_checkpoints(run)] == [read_log(run)[-1]["step"]]
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="--gpus 3: this machine has 1 GPU that torch can use"):
        launch.launch(3, ["train-gslrm"])


def test_launched_process_launches_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="started by a launcher already"):
        launch.launch(2, ["train-gslrm"])


def failure(tmp_path: Path, rank: int, exitcode: int, **told: object) -> ProcessFailure:
    """Of a process that has told why, or has not."""
    file = tmp_path / f"error_{rank}.json"
    if told:
        file.write_text(json.dumps({"timestamp": 1, **told}))
    return ProcessFailure(rank, 100 + rank, exitcode, str(file))


def test_first_refusal_counts_and_not_what_followed_from_it(tmp_path: Path) -> None:
    broken = failure(tmp_path, 0, 1, message="connection closed", exact_time=5.2, exit_code=1)
    cause = failure(tmp_path, 1, 2, message="error: no list", exact_time=5.1, exit_code=2)
    later = failure(tmp_path, 2, 2, message="error: no list either", exact_time=5.3, exit_code=2)
    ended = failure(tmp_path, 3, -signal.SIGTERM)
    assert launch._verdict([broken, later, cause, ended], False) == (2, "error: no list")


def test_killed_process_is_told_with_its_signal(tmp_path: Path) -> None:
    ended = failure(tmp_path, 0, 143, message="interrupted", exact_time=5.0, exit_code=143)
    killed = failure(tmp_path, 1, -signal.SIGKILL)
    code, message = launch._verdict([ended, killed], False)
    assert code == 137
    assert message == "error: process 1 was ended by SIGKILL; too little memory is the usual reason."


def test_exit_code_is_what_the_process_meant_though_it_was_hurried(tmp_path: Path) -> None:
    asked = failure(tmp_path, 0, -signal.SIGTERM, message="interrupted", exact_time=5.0, exit_code=130)
    assert launch._verdict([asked], True) == (130, "interrupted")
