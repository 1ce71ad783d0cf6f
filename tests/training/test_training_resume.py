"""What a run may continue from, and how differences are told."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_tensors import assert_same_end
from forgetful_toy import Forgetful, steps, train
from forks import run_in_two

from mouse_facelift.errors import CheckpointError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_list, write_sample
from mouse_facelift.training.checkpoints import Checkpoint, checkpoint_folder, list_checkpoints
from mouse_facelift.training.resume import FORMAT, check_compatible, data_identity


def write_data(folder: Path, samples: int = 3, views: int = 2, distance: float = 2.7) -> Path:
    cameras = [Camera.look_at((distance, 0, z), (0, 0, 0), 8.0, 8) for z in range(views)]
    names = [folder / f"sample_{number}" for number in range(samples)]
    for name in names:
        write_sample(name, [np.full((8, 8, 4), 255, np.uint8)] * views, cameras, range(views))
    (folder / "manifest.json").write_text(json.dumps({"identity": {"inputs": {"1.mp4": "abc"}}}))
    write_list(folder / "train.txt", names)
    return folder / "train.txt"


def digest(path: Path) -> str:
    return data_identity([path])[str(path)]["sha256"]


def test_same_samples_are_the_same_data_however_they_are_written_and_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_data(tmp_path / "data")
    expected = digest(path)
    monkeypatch.chdir(tmp_path)
    assert digest(Path("data/train.txt")) == expected
    path.write_text("\n".join(str(tmp_path / "data" / f"sample_{n}/") for n in range(3)) + "\n\n")
    assert digest(path) == expected
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    write_list(tmp_path / "moved" / "other name.txt", sorted((tmp_path / "moved").glob("sample_*")))
    assert digest(tmp_path / "moved" / "other name.txt") == expected


def test_other_samples_order_cameras_or_recording_are_other_data(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data")
    found = {digest(path), digest(write_data(tmp_path / "cameras", distance=3.0))}
    lines = path.read_text().splitlines(keepends=True)
    for other in (lines[::-1], lines[:2]):
        path.write_text("".join(other))
        found.add(digest(path))
    path.write_text("".join(lines))
    (tmp_path / "data" / "manifest.json").write_text("{}")
    found.add(digest(path))
    assert len(found) == 5


def test_garbled_cameras_are_told(tmp_path: Path) -> None:
    path = write_data(tmp_path)
    (tmp_path / "sample_0" / "opencv_cameras.json").write_text("[]")
    with pytest.raises(DataError, match=r"sample_0/opencv_cameras\.json: not a readable"):
        data_identity([path])


def test_run_goes_on_with_its_data_moved_and_its_folder_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_data(tmp_path / "data")
    whole = train(tmp_path / "whole", steps=4, train_list=path)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", Forgetful(interrupt_at=2), steps=4, train_list=path)
    for name in ("data", "run"):
        (tmp_path / name).rename(tmp_path / f"{name} elsewhere")
    monkeypatch.chdir(tmp_path)
    run = train(Path("run elsewhere"), steps=4, train_list=Path("data elsewhere/train.txt"))
    assert_same_end(run, whole)


def test_other_data_under_the_same_name_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data")
    run = train(tmp_path / "run", steps=2, train_list=path)
    shutil.rmtree(path.parent)
    write_data(path.parent, samples=5, views=3)
    message = r"data\.train_list: then .*train\.txt \(3 samples of 2 views, .*now .*\(5 samples of 3 views"
    with pytest.raises(CheckpointError, match=message):
        train(run, steps=4, train_list=path)


def test_other_model_command_and_missing_data_are_told_in_one_message(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data")
    run = train(tmp_path / "run", steps=2, train_list=path)
    manifest = checkpoint_folder(run, 2) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"command": "toy"', '"command": "train-mvdiff"'))
    with pytest.raises(CheckpointError) as refusal:
        train(run, Forgetful(5), steps=4, width=5)
    assert "command: then train-mvdiff, now toy" in str(refusal.value)
    assert "width: then 4, now 5" in str(refusal.value)
    assert "data.train_list: then" in str(refusal.value) and "now None" in str(refusal.value)


def test_state_of_an_older_version_is_refused_and_its_weights_are_offered(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    manifest = checkpoint_folder(run, 2) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(CheckpointError, match=r"has format 1.*Start from its weights"):
        train(run, steps=4)


def test_auto_says_what_it_found_and_took(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run = train(tmp_path / "run", steps=4)
        assert f"{run}: holds no checkpoints; starting from step 0 (resume=auto)" in caplog.text
        train(run, steps=6)
    assert f"{run}: holds checkpoints of steps 2 to 4 (2)" in caplog.text
    taken = (
        r"step_00000004: continuing from step 4 of 6, written [\d.e-]+ s ago: the newest complete one there"
    )
    assert re.search(taken, caplog.text)


def test_copied_checkpoint_starts_a_branch_elsewhere(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    shutil.copytree(checkpoint_folder(run, 2), tmp_path / "backup")
    branch = train(tmp_path / "branch", steps=4, resume=str(tmp_path / "backup"))
    assert steps(branch) == [4]
    assert (tmp_path / "backup" / "manifest.json").is_file()


def test_epoch_is_finished_exactly_with_another_batch_and_the_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Forgetful(), Forgetful()
    train(tmp_path / "run", first, steps=2)
    train(tmp_path / "run", second, steps=3, batch_size=3)
    assert sorted(first.seen + second.seen) == [f"point_{number}" for number in range(7)]
    assert "then 1 processes with 2 samples a step, now 1 with 3" in caplog.text


WORLDS = """
import json
import os
import sys
from pathlib import Path

from forgetful_toy import Forgetful, train

folder, task = Path(sys.argv[1]), Forgetful()
train(folder / "run", task, steps=2, batch_size=1)
(folder / f"seen_{os.environ['RANK']}.json").write_text(json.dumps(task.seen))
"""


def test_epoch_is_finished_exactly_with_another_number_of_processes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_in_two(WORLDS, tmp_path)
    task = Forgetful()
    train(tmp_path / "run", task, steps=5, batch_size=1)
    seen = [name for path in tmp_path.glob("seen_*.json") for name in json.loads(path.read_text())]
    # Two steps of two processes, then three of one, on seven samples.
    assert sorted(seen + task.seen) == [f"point_{number}" for number in range(7)]
    assert "then 2 processes with 2 samples a step, now 1 with 1" in caplog.text
    manifests = {item.step: item.manifest for item in list_checkpoints(tmp_path / "run")}
    assert (manifests[2]["world_size"], manifests[5]["world_size"]) == (2, 1)


def test_manifest_says_what_made_it(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data")
    manifest = list_checkpoints(train(tmp_path / "run", steps=2, train_list=path))[0].manifest
    assert manifest["step"] == 2 and manifest["command"] == "toy" and manifest["world_size"] == 1
    assert manifest["data"] == data_identity([path])
    assert len(manifest["config_sha256"]) == 64 and "git_revision" in manifest
    assert {"state/model.safetensors", "state/ema.safetensors", "state/optimizer.pt", "state/rng.pt"} < set(
        manifest["files"]
    )


def facts(inputs: dict[str, str] | None = None, **config: Any) -> dict[str, Any]:
    """A manifest, or the facts of now, of a run with such a configuration."""
    known = {"format": FORMAT, "time": 0.0, "command": "toy", "frozen": None, "data": {}}
    return known | {"config": config, "inputs": inputs or {}, "world_size": 1, "samples_per_step": 2}


def refusal(then: dict[str, Any], now: dict[str, Any], named: bool = False) -> str:
    """Why the run of now may not go on from that of then; empty if it may."""
    try:
        check_compatible(Checkpoint(Path("run/checkpoints/step_00000004"), 4, then), now, named)
    except CheckpointError as error:
        return str(error)
    return ""


def test_other_optimizer_setting_is_an_oversight_unless_the_checkpoint_is_named() -> None:
    then, now = facts(optimizer={"lr": 0.1}), facts(optimizer={"lr": 0.01})
    told = refusal(then, now)
    assert "optimizer.lr: then 0.1, now 0.01" in told
    assert "set training.resume=run/checkpoints/step_00000004" in told
    assert not refusal(then, now, named=True)
    other = facts(optimizer={"lr": 0.01}, width=5)
    for named in (False, True):
        told = refusal(then | {"config": {"optimizer": {"lr": 0.1}, "width": 4}}, other, named)
        assert "width: then 4, now 5" in told and "training.resume" not in told
    kinds = facts(optimizer={"kind": "adamw"}), facts(optimizer={"kind": "adamw_8bit"})
    assert "optimizer.kind" in refusal(*kinds, named=True)


def test_setting_of_a_newer_version_is_told_and_taken_if_the_checkpoint_is_named() -> None:
    then, now = facts(loss={"l2": 1.0}), facts(loss={"l2": 1.0, "min_opacity": 0.04})
    told = refusal(then, now)
    assert "loss.min_opacity: then unknown to that version, now 0.04" in told
    assert "set training.resume=run/checkpoints/step_00000004" in told
    assert not refusal(then, now, named=True)
    # A whole new section likewise; but a section that was there and empty had another value.
    assert not refusal(facts(a=1), facts(a=1, parts={"train": "all"}), named=True)
    mixed = facts(data={"mix": None}), facts(data={"mix": [{"list": "a.txt"}]})
    assert "data.mix.0.list: then None, now 'a.txt'" in refusal(*mixed, named=True)


def test_what_costs_time_and_memory_alone_and_where_things_lie_may_change() -> None:
    then = facts(model={"compile": False, "width": 4}, cache={"folder": "a"}, output="runs/a")
    assert not refusal(then, facts(model={"compile": True, "width": 4}, cache={"folder": "b"}, output="b"))


def test_another_order_of_the_samples_is_refused_unless_the_checkpoint_is_named() -> None:
    then, now = facts(training={"seed": 0, "steps": 4}), facts(training={"seed": 1, "steps": 9})
    assert "training.seed: then 0, now 1" in refusal(then, now)
    assert not refusal(then, now, named=True)


def test_changed_settings_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "run", steps=2)
    train(tmp_path / "run", steps=2)
    assert "settings have changed" not in caplog.text
    train(tmp_path / "run", steps=3, seed=1)
    train(tmp_path / "run", steps=4, ema_decay=0.5, resume=str(tmp_path / "run"))
    told = [record.getMessage() for record in caplog.records if "settings have changed" in record.msg]
    assert told == [
        "settings have changed since: training.steps: then 2, now 3",
        "settings have changed since: training.ema_decay: then 0.9, now 0.5; training.steps: then 3, now 4",
    ]


def test_start_weights_are_the_same_however_their_run_is_named_and_however_far_it_has_gone() -> None:
    file = "checkpoints/step_00000002/weights/gslrm.safetensors"
    then = facts({f"../first/{file}": "abc"}, start={"weights": "../first"})
    assert not refusal(then, facts({f"/runs/first/{file}": "abc"}, start={"weights": "/runs/first"}))
    assert not refusal(then, facts({"/w.safetensors": "abc"}, start={"weights": "/w.safetensors"}))
    # It has trained on and deleted what this run began with, which this run has left behind.
    assert not refusal(then, facts({f"../first/{file}": "def"}, start={"weights": "../first"}))
    told = refusal(then, facts({f"../other/{file}": "def"}, start={"weights": "../other"}))
    assert "start.weights: then ../first (sha256 abc), now ../other (sha256 def)" in told
    # A file, though, is its content.
    other = facts({"w.pt": "abc"}, start={"weights": "w.pt"}), facts({"w.pt": "d"}, start={"weights": "w.pt"})
    assert "start.weights: then w.pt (sha256 abc), now w.pt (sha256 d)" in refusal(*other)


def test_start_folder_with_several_weights_is_the_same_wherever_it_lies() -> None:
    def started(place: str, second: str) -> dict[str, Any]:
        files = {f"{place}/unet/a.safetensors": "aa" * 32, f"{place}/prompts.safetensors": second * 32}
        return facts(files, start={"path": place})

    assert not refusal(started("old/place", "bb"), started("new", "bb"))
    told = refusal(started("old/place", "bb"), started("new", "cc"))
    assert "start.path: then old/place (sha256" in told and "now new (sha256" in told


def test_manifest_that_lacks_what_is_compared_is_refused() -> None:
    then = facts(width=4)
    del then["config"], then["data"]
    assert "does not say config, data, so nobody knows" in refusal(then, facts(width=4))


def test_other_pictures_under_the_same_names_are_other_data(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data")
    (path.parent / "manifest.json").unlink()
    before = digest(path)
    shutil.copytree(path.parent, tmp_path / "copy")
    assert digest(tmp_path / "copy" / "train.txt") == before
    picture = next((path.parent / "sample_1").rglob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert digest(path) != before


def test_places_are_told_in_full_whatever_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with caplog.at_level(logging.INFO):
        train(Path("../run"), steps=2)
    assert f"{tmp_path / 'run'}: holds no checkpoints; starting from step 0" in caplog.text
    assert f"{checkpoint_folder(tmp_path / 'run', 2)}: saved" in caplog.text
