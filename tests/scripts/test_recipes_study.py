"""The study of ways to prepare samples, as small as it gets: all recipes share frames and truth."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from script_modules import import_script

from mouse_facelift.errors import ConfigError
from mouse_facelift.evaluation.scores import read_scores


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("studies", "recipes")


@pytest.fixture(scope="module")
def plan(script: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    made = replace(script.Plan(tmp_path_factory.mktemp("recipes")).quick(), picture=(144, 128))
    script.study(made, ("data",))
    return made


@pytest.fixture(scope="module")
def studied(script: ModuleType, plan) -> Path:
    """Two recipes after one step each."""
    script.study(replace(plan, steps=1), ("train", "evaluate"), ("lookat", "old"))
    return plan.output


def test_all_recipes_show_the_same_frames(script: ModuleType, plan) -> None:
    for part in ("train", "test"):
        frames = {
            recipe: [sample.frame_index for sample in plan.samples(recipe, part)] for recipe in script.RECIPES
        }
        assert frames["lookat"] and all(each == frames["lookat"] for each in frames.values())


def test_what_is_learned_is_the_same_but_for_the_samples(script: ModuleType, plan) -> None:
    one, other = (script.training_config(plan, recipe).model_dump() for recipe in ("lookat", "old"))
    assert one.pop("data") != other.pop("data")
    assert one.pop("output") != other.pop("output")
    assert one == other


def test_every_recipe_is_measured_against_the_same_truth(studied: Path) -> None:
    scores = read_scores(studied / "scores.csv")
    novel = [score for score in scores if score.protocol == "novel"]
    assert {score.method for score in novel} == {"lookat", "old", "old_aligned"}
    trivial = {
        tuple(score.values[f"psnr_{name}_db"] for name in ("white", "outline", "shift"))
        for score in novel
        if score.view_id == 6
    }
    assert len(trivial) == 1
    assert {score.method for score in scores if score.protocol == "reconstruction"} == {"lookat", "old"}


def test_trainings_of_another_length_are_not_taken_for_these(script: ModuleType, plan, studied: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe has been trained for 4 steps"):
        script.measure(replace(plan, steps=4))


def test_results_are_told_and_drawn(studied: Path) -> None:
    text = (studied / "results.md").read_text()
    assert "| lookat | 0.000 | 0.000 |" in text and "| old_aligned |" in text and "1 steps each" in text
    with Image.open(studied / "pictures.png") as picture:
        assert picture.height == 4 * 64  # truth, lookat, old, old_aligned
    assert (studied / "curves.png").is_file()
    errors = json.loads((studied / "data.json").read_text())
    assert set(errors) == {"lookat", "fixed", "crop", "old"}
