"""The study of dense and foreground tokens, as small as it gets: the longer training is a continuation."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from script_modules import import_script

from mouse_facelift.evaluation.scores import read_scores


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of each; foreground tokens are said to be one and a half times as fast."""
    script: ModuleType = import_script("studies", "token_budget")
    plan = replace(script.Plan(tmp_path_factory.mktemp("tokens")).quick(), steps=2, picture=(144, 128))
    seconds = {"gslrm_dense": 3.0, "gslrm_foreground": 2.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "step_seconds", lambda run: seconds[run.name])
        script.study(plan)
    return plan.output


def test_foreground_tokens_go_on_for_as_many_seconds(studied: Path) -> None:
    steps = [
        sorted((studied / f"gslrm_{tokens}" / "checkpoints").iterdir()) for tokens in ("dense", "foreground")
    ]
    assert [[folder.name for folder in each] for each in steps] == [
        ["step_00000002"],
        ["step_00000002", "step_00000003"],
    ]
    text = (studied / "results.md").read_text()
    assert "| dense: 2 steps, 6 s |" in text
    assert "| foreground, as many samples: 2 steps, 4 s |" in text
    assert "| foreground, as many seconds: 3 steps, 6 s |" in text


def test_other_steps_are_not_measured_with_the_seconds_of_these(studied: Path) -> None:
    script = import_script("studies", "token_budget")
    assert script.Plan(studied, steps=2).more_steps == 3
    assert not script.Plan(studied, steps=1).more_steps_file.is_file()


def test_all_three_are_measured_at_the_new_cameras(studied: Path) -> None:
    scores = read_scores(studied / "evaluation" / "scores.csv")
    assert {score.method for score in scores} == {"dense", "as_many_samples", "as_many_seconds"}
    assert {score.view_id for score in scores} == {6, 7, 8, 9}
    assert all(score.leak == "clean" for score in scores)
