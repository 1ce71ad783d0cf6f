"""kill -9 at many random moments, inside saves too: no work is lost, the end is an undisturbed run's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_tensors import assert_same_end
from forgetful_toy import steps

HERE = Path(__file__).parent


@pytest.mark.slow
def test_training_killed_again_and_again_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_server.py"), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lives) >= 25 and all(life["killed"] for life in lives)
    newest = [max(life["steps"], default=0) for life in lives]
    assert newest == sorted(newest), "a kill took a checkpoint"
    assert newest[-1] > 20
    assert sum(bool(life["half_written"]) for life in lives) >= 10, "too few kills fell into a save"
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert steps(killed)[-1] == steps(whole)[-1] == 120
    assert_same_end(killed, whole, "weights/", "state/model", "state/ema", "state/optimizer", "state/rng")
    leftovers = [str(path) for path in killed.rglob(".*")]
    assert leftovers == []
