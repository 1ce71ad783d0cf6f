"""GS-LRM on several data sets, on generated inputs with real targets, and with spoiled inputs."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift.config import load_config
from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm import GSLRM, TrainGSLRMConfig
from mouse_facelift.gslrm import train as gslrm_train
from mouse_facelift.gslrm.config import InputAugmentConfig, ViewsConfig
from mouse_facelift.gslrm.losses import RenderingLoss
from mouse_facelift.gslrm.train import GSLRMTask
from mouse_facelift.gslrm.views import draw_views, split_views
from mouse_facelift.samples.datasets import SampleDataset, as_floats
from mouse_facelift.samples.format import CAMERAS_FILE, read_list, read_sample, write_list, write_sample
from mouse_facelift.samples.mixture import Mixture
from mouse_facelift.samples.training_data import TrainingData
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.logging import read_log

SIZE = 32
Lists = dict[str, Path]


def write_balls(folder: Path, count: int, view_ids: list[int], inputs: list[int] | None = None) -> Path:
    """Discs of one colour a view, another in each sample. Returns the list."""
    rng, folders = np.random.default_rng(len(view_ids)), []
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    angles = np.linspace(0, 2 * np.pi, len(view_ids), endpoint=False)
    for number in range(count):
        cameras = [
            Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.5), (0, 0, 0), 1.07 * SIZE, SIZE)
            for a in angles
        ]
        images = np.full((len(view_ids), SIZE, SIZE, 4), 255, np.uint8)
        inside = np.hypot(x, y) < 6 + 2 * number
        images[..., 3] = 255 * inside
        images[:, inside, :3] = rng.integers(0, 200, (len(view_ids), 1, 3))
        metadata = {} if inputs is None else {"input_view_ids": inputs}
        folders.append(folder / f"{folder.name}_{number}")
        write_sample(folders[-1], list(images), cameras, view_ids, metadata)
    write_list(folder / "list.txt", folders)
    return folder / "list.txt"


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    """Five real views; four generated ones; four generated ones with three real ones as truth."""
    return {
        "real": write_balls(tmp_path / "real", 3, [0, 1, 2, 3, 4]),
        "made": write_balls(tmp_path / "made", 5, [0, 1, 2, 3]),
        "pairs": write_balls(tmp_path / "pairs", 2, [100, 101, 102, 103, 0, 1, 2], [100, 101, 102, 103]),
    }


def settings(lists: Lists, output: Path, *names: str, weights: tuple[float, ...] = (0.7, 0.3)) -> list[str]:
    mix = [{"list": str(lists[name]), "weight": w} for name, w in zip(names, weights, strict=False)]
    return [
        f"data.mix={json.dumps(mix)}",
        f"data.val_list={lists['real']}",
        f"data.image_size={SIZE}",
        "model={width: 32, head_width: 16, layers: 1, scale_bias: -3.5}",
        "views={input_views: 3, target_views: 2}",
        "validation={samples: 1, input_views: 3}",
        "optimizer={lr: 2.0e-3, warmup_steps: 0, schedule: constant}",
        "training={batch_size: 3, workers: 0, log_every: 1}",
        f"output={output}",
    ]


def make_task(given: list[str], lists: Lists, *names: str) -> GSLRMTask:
    config = load_config(TrainGSLRMConfig, None, given)
    torch.manual_seed(0)
    sets = [SampleDataset.from_list(lists[name], SIZE) for name in names]
    return GSLRMTask(config, GSLRM(config.model), Mixture(sets), sets[0])


def collated(task: GSLRMTask, *indices: int) -> dict[str, Any]:
    return torch.utils.data.default_collate([task.dataset[index] for index in indices])


def loss(task: GSLRMTask, batch: dict[str, Any], seed: int) -> dict[str, Tensor]:
    return task.loss(task.module, batch, torch.Generator().manual_seed(seed))


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The targets of every step: colours and silhouettes. [B, V, 4, H, W] each"""
    seen: list[Tensor] = []
    compare = RenderingLoss.__call__

    def spy(self: RenderingLoss, picture: Any, real: Tensor, mask: Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(torch.cat([real, mask], dim=2))
        return compare(self, picture, real, mask, *rest, **more)

    monkeypatch.setattr(RenderingLoss, "__call__", spy)
    return seen


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_file(list_checkpoints(run)[-1].folder / "weights" / "gslrm.safetensors")


def test_resumed_mix_is_the_undisturbed_one_bit_for_bit(lists: Lists, tmp_path: Path) -> None:
    faults = "input_augment={noise: 0.1, blur: 1.0, jpeg: 50, colour: 0.2, shift_px: 2}"
    runs = {}
    for name, parts in {"whole": (4,), "parts": (2, 4)}.items():
        for steps in parts:
            given = [
                *settings(lists, tmp_path / name, "real", "made", "pairs", weights=(0.5, 0.3, 0.2)),
                faults,
            ]
            runs[name] = gslrm_train.run(
                load_config(TrainGSLRMConfig, None, [*given, f"training.steps={steps}"])
            )
    losses = {name: [line["loss"] for line in read_log(run) if "loss" in line] for name, run in runs.items()}
    assert losses["whole"] == losses["parts"] and len(losses["whole"]) == 4
    whole, parts = weights_of(runs["whole"]), weights_of(runs["parts"])
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_start_says_shares_and_counts(lists: Lists, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = [*settings(lists, tmp_path / "run", "made", "real", weights=(7, 3)), "training.steps=50"]
    with caplog.at_level(logging.INFO):
        gslrm_train.run(load_config(TrainGSLRMConfig, None, given), dry_run=True)
    assert (
        f"{lists['made']}: 70.0 % of what is drawn, from 5 samples of 4 views: each 21.0 times" in caplog.text
    )
    assert (
        f"{lists['real']}: 30.0 % of what is drawn, from 3 samples of 5 views: each 15.0 times" in caplog.text
    )


def test_another_weight_is_another_training(lists: Lists, tmp_path: Path) -> None:
    def config(*weights: float) -> TrainGSLRMConfig:
        given = settings(lists, tmp_path / "run", "real", "made", weights=weights)
        return load_config(TrainGSLRMConfig, None, [*given, "training.steps=1"])

    gslrm_train.run(config(0.7, 0.3))
    with pytest.raises(CheckpointError, match=r"data\.mix\.0\.weight: then 0\.7, now 0\.6"):
        gslrm_train.run(config(0.6, 0.3))
    write_balls(lists["made"].parent, 4, [0, 1, 2, 3])
    with pytest.raises(
        CheckpointError, match=r"data\.mix\.1\.list: then .*5 samples of 4 views.*4 samples of"
    ):
        gslrm_train.run(config(0.7, 0.3))


def test_list_may_move_between_two_parts_of_a_run(lists: Lists, tmp_path: Path) -> None:
    def run(steps: int) -> Path:
        given = settings(lists, tmp_path / "run", "real", "made")
        return gslrm_train.run(load_config(TrainGSLRMConfig, None, [*given, f"training.steps={steps}"]))

    run(1)
    moved = lists["made"].parent.rename(tmp_path / "elsewhere")
    lists["made"] = moved / "list.txt"
    assert list_checkpoints(run(2))[-1].step == 2


def test_filled_up_views_are_never_looked_at(lists: Lists, tmp_path: Path) -> None:
    given = [*settings(lists, tmp_path, "real", "made"), "loss.hull_depth=0.1", "augment.yaw=true"]
    task = make_task(given, lists, "real", "made")
    batch = as_floats(collated(task, 0, 3, 4))
    assert batch["rgba"].shape[:2] == (3, 5)
    before = loss(task, batch, seed=3)
    for key in ("rgba", "K", "w2c"):
        batch[key][1:, 4] = torch.nan
    after = loss(task, batch, seed=3)
    assert "hull_depth" in before and all(torch.equal(after[name], before[name]) for name in before)


def test_generated_views_are_shown_and_real_ones_compared(
    lists: Lists, tmp_path: Path, compared: list[Tensor]
) -> None:
    task = make_task(settings(lists, tmp_path, "pairs"), lists, "pairs")
    batch = as_floats(collated(task, 0, 1))
    shown: list[Tensor] = []
    task.module.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    for seed in range(8):
        loss(task, batch, seed)
    for sample in range(2):
        kinds = ((shown, batch["rgba"][sample, :4]), (compared, batch["rgba"][sample, 4:]))
        for views, kind in kinds:
            seen = {tuple(view[:3, 16, 16].tolist()) for step in views for view in step[sample]}
            assert seen == {tuple(view[:3, 16, 16].tolist()) for view in kind}


def test_generated_silhouettes_do_not_carve_the_hull_of_real_ones(lists: Lists, tmp_path: Path) -> None:
    task = make_task([*settings(lists, tmp_path, "pairs"), "loss.hull_depth=0.1"], lists, "pairs")
    batch = as_floats(collated(task, 0, 1))
    cameras, carving = CameraBatch(batch["K"], batch["w2c"]), batch["may_compare"]
    before = task._hull(batch["rgba"][:, :, 3:], cameras, carving)
    batch["rgba"][:, :4, 3] = 0
    after = task._hull(batch["rgba"][:, :, 3:], cameras, carving)
    assert torch.equal(before.nan_to_num(-1), after.nan_to_num(-1))
    assert before[:, 4:].isfinite().any() and before[:, :4].isnan().all()


def test_views_are_drawn_from_those_that_may_serve() -> None:
    may_show = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0, 0]]).bool()
    may_compare = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]).bool()
    for seed in range(50):
        config = ViewsConfig(input_views=(2, 5), target_views=3)
        inputs, targets = draw_views(config, may_show, may_compare, torch.Generator().manual_seed(seed))
        assert inputs.shape[1] in (2, 3) and targets.shape[1] == 3
        for row in range(2):
            assert may_show[row, inputs[row]].all() and may_compare[row, targets[row]].all()
            assert len(set(inputs[row].tolist())) == inputs.shape[1]
        # Two of five are not shown: they are compared, and inputs fill up.
        assert set(range(5)) - set(inputs[1].tolist()) <= set(targets[1].tolist()) or inputs.shape[1] < 3


def test_validation_shows_generated_views_and_measures_on_real_ones(lists: Lists, tmp_path: Path) -> None:
    config = load_config(TrainGSLRMConfig, None, settings(lists, tmp_path, "pairs", "made"))
    pairs, made = (SampleDataset.from_list(lists[name], SIZE) for name in ("pairs", "made"))
    split = split_views(config, Mixture([made, pairs]), pairs)
    assert split.trained == tuple(range(7))
    assert split.shown == (0, 1, 2) and split.held_out == (4, 5, 6)


@pytest.mark.parametrize(
    ("names", "setting", "message"),
    [
        (
            ("real", "made"),
            "views.input_views=5",
            r"input_views is 5, but the samples have 4 views \(.*made_0",
        ),
        (
            ("real", "pairs"),
            "views.target_views=4",
            r"target_views is 4, but .* 3 views for that, of 7 \(.*pairs_0",
        ),
        (("real", "real"), "training.steps=1", "mix has a list twice"),
        (("real", "made"), "overfit=1", "overfit=1 learns the first samples of one list, but data.mix has 2"),
        (("real", "made"), "data.train_list=x", "both train_list and mix are set"),
        (("real", "made"), "data.mix=[]", "data.mix"),
        (("real", "made"), "data.mix=null", "no training samples: set data.train_list"),
        (("real", "made"), "data.mix=[{list: a.txt, weight: 0}]", "greater than 0"),
        (("real", "made"), "data.mix=[{list: a.txt, weight: .inf}]", "finite number"),
        (("real", "made"), "data.mix=[{list: a.txt, weight: 1e308}]", "less than or equal to 1000000"),
        (("real", "made"), "input_augment.shift_px=9", "at most 8, a quarter"),
    ],
)
def test_mixes_that_cannot_be_are_refused(
    names: tuple[str, str], setting: str, message: str, lists: Lists, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        given = [*settings(lists, tmp_path / "run", *names), setting]
        gslrm_train.run(load_config(TrainGSLRMConfig, None, given), dry_run=True)


def test_missing_list_of_a_mix_is_named(lists: Lists, tmp_path: Path) -> None:
    lists["made"] = tmp_path / "missing.txt"
    config = load_config(TrainGSLRMConfig, None, settings(lists, tmp_path / "run", "real", "made"))
    with pytest.raises(DataError, match=r"missing\.txt: no such list file"):
        gslrm_train.run(config, dry_run=True)


def test_overfit_to_generated_inputs_is_refused(lists: Lists, tmp_path: Path) -> None:
    given = [
        *settings(lists, tmp_path, "pairs"),
        "data.mix=null",
        f"data.train_list={lists['pairs']}",
        "overfit=1",
    ]
    with pytest.raises(ConfigError, match="tell inputs from truth"):
        gslrm_train.run(load_config(TrainGSLRMConfig, None, given), dry_run=True)


def test_spoiled_inputs_leave_targets_and_views_as_they_were(
    lists: Lists, tmp_path: Path, compared: list[Tensor]
) -> None:
    """Nothing but what the model is shown differs: the same views are drawn, and compared with the same."""
    task = make_task(settings(lists, tmp_path, "real"), lists, "real")
    batch = collated(task, 0, 1)
    given: list[tuple[Tensor, CameraBatch]] = []
    task.module.register_forward_pre_hook(lambda module, inputs: given.append(inputs))
    clean = loss(task, batch, seed=5)
    faults = InputAugmentConfig(probability=1, noise=0.1, blur=1, jpeg=60, colour=0.2, shift_px=3)
    task.config = task.config.model_copy(update={"input_augment": faults})
    spoiled = loss(task, batch, seed=5)
    assert not torch.equal(clean["loss"], spoiled["loss"])
    assert torch.equal(*compared)
    (before, cameras), (after, moved) = given
    assert not torch.equal(before, after)
    assert torch.equal(cameras.w2c, moved.w2c) and not torch.equal(cameras.K, moved.K)


def test_validation_frames_in_the_mix_are_told(
    lists: Lists, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where they are other samples of the same frame, such as generated ones."""
    for name, frames in (("made", range(5)), ("pairs", (9, 4))):
        for number, frame in enumerate(frames):
            path = lists[name].parent / f"{name}_{number}" / CAMERAS_FILE
            told = {"frame_index": frame, "source": {"recording": "one"}}
            path.write_text(json.dumps(json.loads(path.read_text()) | told))
    config = load_config(TrainGSLRMConfig, None, settings(lists, tmp_path, "made", "real"))
    sets = {name: SampleDataset.from_list(path, SIZE) for name, path in lists.items()}
    split_views(config, Mixture([sets["made"]]), sets["real"])
    assert not caplog.text
    split_views(config, Mixture([sets["real"], sets["made"]]), sets["pairs"])
    assert "1 of 2 validation samples are of frames that are trained on" in caplog.text
    assert "pairs_1: " in caplog.text
    split_views(config, Mixture([sets["made"], sets["real"]]), sets["real"])
    assert "3 of 3 validation samples" in caplog.text


def test_generated_samples_without_the_record_of_their_maker_count_as_unknown(
    lists: Lists, tmp_path: Path
) -> None:
    """Also in a list that begins with real samples; a record of another folder says nothing of them."""
    made = lists["made"].parent / "made_0"
    path = made / CAMERAS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"synthesis": {"mvdiffusion_sha256": "abc"}}))
    write_list(tmp_path / "joined.txt", [lists["real"].parent / "real_0", made])
    samples = [read_sample(folder) for folder in read_list(tmp_path / "joined.txt")]
    assert TrainingData.of(samples, [0]).unrecorded == ("abc",)
    TrainingData((), ("teacher",)).save(made.parent)
    assert TrainingData.of(samples, [0]).unrecorded == ("teacher",)


def test_training_data_tells_of_all_lists_and_of_what_made_them(lists: Lists, tmp_path: Path) -> None:
    teacher = SampleDataset.from_list(lists["made"], SIZE).samples
    TrainingData.of(teacher, [1]).save(lists["pairs"].parent)
    task = make_task(settings(lists, tmp_path, "real", "pairs"), lists, "real", "pairs")
    names = {sample.name for part in task.training_data().sets for sample in part.samples}
    assert names == {
        *(f"{kind}_{n}" for kind, count in (("real", 3), ("made", 5), ("pairs", 2)) for n in range(count))
    }
