"""What a whole training shows to GS-LRM and compares, where the number of inputs is drawn too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from coloured_balls import SIZE, write_balls
from torch import Tensor

from mouse_facelift.config import load_config
from mouse_facelift.gslrm import TrainGSLRMConfig
from mouse_facelift.gslrm import train as gslrm_train
from mouse_facelift.gslrm.train import GSLRMTask
from mouse_facelift.samples.datasets import SampleDataset, composite
from mouse_facelift.training.logging import read_log

STEPS, BATCH = 12, 2


class Watch:
    """Keeps what every step of a training draws, shows to the model, and renders to compare."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.drawn: list[tuple[Tensor, Tensor]] = []
        self.pictures: list[Tensor] = []
        self.shown: list[Tensor] = []
        self.compared: list[Tensor] = []
        loss, draw, render = GSLRMTask.loss, gslrm_train.draw_views, gslrm_train.render

        def watched_loss(task: GSLRMTask, module: Any, batch: dict[str, Any], generator: Any) -> Any:
            def watched_module(pictures: Tensor, cameras: Any) -> Any:
                self.pictures.append(pictures)
                self.shown.append(cameras.w2c)
                return module(pictures, cameras)

            self.names += batch["id"]
            return loss(task, watched_module, batch, generator)

        def watched_draw(*arguments: Any) -> tuple[Tensor, Tensor]:
            self.drawn.append(draw(*arguments))
            return self.drawn[-1]

        def watched_render(gaussians: Any, K: Tensor, w2c: Tensor, *rest: Any, **more: Any) -> Any:
            if torch.is_grad_enabled():
                self.compared.append(w2c)
            return render(gaussians, K, w2c, *rest, **more)

        patch.setattr(GSLRMTask, "loss", watched_loss)
        patch.setattr(gslrm_train, "draw_views", watched_draw)
        patch.setattr(gslrm_train, "render", watched_render)


def test_four_to_six_of_eight_views_are_shown_and_others_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, watch = write_balls(tmp_path, views=8), Watch(monkeypatch)
    settings = [
        f"data={{train_list: {path}, image_size: {SIZE}}}",
        "model={width: 64, head_width: 32, layers: 2, scale_bias: -3.5}",
        "views={input_views: [4, 6], target_views: 2}",
        "validation={samples: 1, input_views: 6}",
        f"training={{steps: {STEPS}, batch_size: {BATCH}, workers: 0}}",
        f"output={tmp_path / 'run'}",
    ]
    run = gslrm_train.run(load_config(TrainGSLRMConfig, None, settings))

    drawn = watch.drawn
    assert len(drawn) == len(watch.shown) == len(watch.compared) == STEPS
    assert {inputs.shape for inputs, _ in drawn} == {(BATCH, count) for count in (4, 5, 6)}
    assert {targets.shape for _, targets in drawn} == {(BATCH, 2)}
    for kind in (0, 1):
        assert set(torch.cat([views[kind].flatten() for views in drawn]).tolist()) == set(range(8))
    samples = SampleDataset.from_list(path, SIZE)
    by_name = {samples[number]["id"]: samples[number] for number in range(len(samples))}
    assert set(watch.names) == set(by_name)
    for number, name in enumerate(watch.names):
        sample, (step, row) = by_name[name], divmod(number, BATCH)
        inputs, targets = (views[row] for views in drawn[step])
        assert len({*inputs.tolist(), *targets.tolist()}) == len(inputs) + len(targets)
        rgba = sample["rgba"][inputs]
        pictures = torch.cat([composite(rgba, 1.0), rgba[:, 3:]], dim=1)
        assert torch.equal(watch.pictures[step][row], pictures)
        assert torch.equal(watch.shown[step][row], sample["w2c"][inputs])
        assert torch.equal(watch.compared[step][row], sample["w2c"][targets])
    validation = next(line for line in read_log(run) if "validation/psnr_held_out" in line)
    counts = [len(validation[f"validation/{kind}_views"].split()) for kind in ("input", "held_out")]
    assert counts == [6, 2]
