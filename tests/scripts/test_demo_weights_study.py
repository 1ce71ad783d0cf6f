"""The study of the demo's weights, with random ones: what is shown, measured, and judged."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from script_modules import import_script
from tiny_sizes import SIZES

from mouse_facelift.evaluation.scores import Score, read_scores
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, save_gslrm
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.samples.format import read_list, read_sample

SIZE = 32


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("studies", "demo_weights")


@pytest.fixture(scope="module")
def plan(script: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """Evaluated recordings of two mice."""
    folder = tmp_path_factory.mktemp("study")
    made = replace(script.Plan(folder / "out", folder / "weights").quick(), size=SIZE, picture=(144, 128))
    script.study(made, ("data",))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_gslrm(GSLRM(GSLRMConfig(width=32, head_width=16, layers=1)), made.weights / "gslrm", SIZE)
    sample = read_sample(read_list(made.folder(0) / "test.txt")[0])
    slots = Slots.pose([sample], SIZE, reference=0)
    random_pipeline(SIZES, slots, seed=1).save(made.weights / "mvdiffusion")
    script.study(made, ("evaluate",))
    return made


def test_mice_and_rigs_differ_between_recordings(plan) -> None:
    first, second = (read_sample(read_list(plan.folder(n) / "test.txt")[0]) for n in range(2))
    assert (first.views[0].camera.center != second.views[0].camera.center).all()
    assert not list(plan.output.rglob("surface.npz")), "surfaces make small samples large"


def test_each_number_of_views_is_measured_where_none_was_shown(plan) -> None:
    scores = read_scores(plan.output / "scores.csv")
    asked = {
        (s.method, s.protocol): {
            o.view_id for o in scores if (o.method, o.protocol) == (s.method, s.protocol)
        }
        for s in scores
    }
    for method in ("direct_6", "direct_5", "direct_4", "direct_3", "e2e"):
        assert asked[method, "novel"] == {6, 7, 8, 9}
    assert asked["direct", "leave-one-camera-out"] == set(range(6))
    assert asked["e2e", "single-view"] == {1, 2, 3, 4, 5}
    assert {score.sample.split("/")[0] for score in scores} == {"mouse_7000", "mouse_7001"}


def test_results_are_told_and_drawn(plan) -> None:
    text = (plan.output / "results.md").read_text()
    assert "| direct, 3 views |" in text and "| e2e, other views | 16.0 dB |" in text
    for name in ("curves.png", "pictures_novel.png", "pictures_single-view.png"):
        assert (plan.output / name).is_file()


def test_targets_say_what_was_reached_and_what_was_missed(script: ModuleType) -> None:
    def rows(psnr: float, iou: float) -> list[Score]:
        values = {"psnr_animal_db": psnr, "psnr_outline_db": 20.0, "iou": iou}
        return [Score("m", "novel", "mouse", 0, 6, "novel", "clean", values)]

    lines = script.targets(
        {
            "direct, 6 views": rows(21.6, 0.94),
            "direct, 5 -> 1": rows(19.75, 0.92),
            "e2e, other views": rows(16.0, 0.8),
        }
    ).splitlines()
    assert "21.60 dB: yes" in lines[2] and "missed by 0.010" in lines[2]
    assert "missed by 0.25" in lines[3] and "0.920: yes" in lines[3]
    assert "16.00 dB: yes" in lines[4] and "0.800: yes" in lines[4]
