"""`mfl evaluate compare` on tiny random networks: whole runs, what they leave, and what they refuse."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from one_ball import SIZE
from tiny_sizes import SIZES

from mouse_facelift.config import load_config
from mouse_facelift.errors import ConfigError
from mouse_facelift.evaluation import compare
from mouse_facelift.evaluation.compare_config import CompareConfig
from mouse_facelift.evaluation.scores import read_scores
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots


@pytest.fixture
def comparing(gslrm: Path, pipeline: Path, balls: Path, tmp_path: Path) -> Callable[..., CompareConfig]:
    def make(*settings: str) -> CompareConfig:
        defaults = (
            f"gslrm={gslrm}",
            f"mvdiffusion={pipeline}",
            f"data={balls}",
            f"output={tmp_path / 'out'}",
            "diffusion.steps=2",
            "filter.min_opacity=0",
            "bootstrap.resamples=100",
            "leaks.action=mark",
            "pictures=1",
            "device=cpu",
        )
        return load_config(CompareConfig, None, [*defaults, *settings])

    return make


@pytest.fixture(scope="session")
def facelift_slots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MVDiffusion whose views stand where FaceLift's do."""
    folder = tmp_path_factory.mktemp("facelift") / "pipeline"
    random_pipeline(SIZES, Slots.facelift(SIZE), seed=1).save(folder)
    return folder


def test_a_comparison_leaves_a_page_a_table_and_numbers(comparing, truth):
    output = compare.run(comparing(f"truth={truth}"))
    scores = read_scores(output / "compare.csv")
    arms = {score.method for score in scores}
    assert arms == {"direct", "e2e", "generated", "shown"}
    places = [{score.place for score in scores if score.method == arm} for arm in arms]
    assert all(each == places[0] for each in places), "every arm at the same places"
    assert 2 not in {score.view_id for score in scores}, "the view that e2e was shown is no place to compare"
    with (output / "compare.csv").open() as file:
        compared = {(r["sample"], r["view_id"]): r for r in csv.DictReader(file) if r["method"] == "direct"}
    with (output / "evaluation" / "scores.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["protocol"] == "leave-one-camera-out"]
    measured = {(r["sample"], r["view_id"]): r for r in rows}
    assert compared
    assert all(measured[place] == row for place, row in compared.items())
    numbers = json.loads((output / "compare.json").read_text())
    assert numbers["decision"]["strategy"] == "undecided", "two frames decide nothing"
    assert set(numbers["contrasts_db"]) == {"total", "loss", "excess", "generation"}
    assert set(numbers["novel"]) == {"direct", "e2e"}
    assert numbers["domain_gap"]["median"]["own_loss"]["generated"] > 0
    page = (output / "compare.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is loaded from elsewhere"
    for anchor in (
        "reading",
        "arms",
        "differences",
        "errors",
        "angle",
        "novel",
        "gap",
        "pictures",
        "view",
        "methods",
    ):
        assert f'<section id="{anchor}">' in page or f'id="{anchor}"' in page, anchor


def test_what_is_finished_is_kept_what_is_missing_made_again_and_another_comparison_refused(
    comparing, monkeypatch
):
    output = compare.run(comparing())
    page, extras = output / "compare.html", next(output.glob("evaluation/.work/e2e/*/extras.json"))
    before = page.read_text(), json.loads(extras.read_text())
    extras.unlink()
    compare.run(comparing())
    monkeypatch.setattr("mouse_facelift.evaluation.run.load", lambda *_: pytest.fail("nothing is left to do"))
    compare.run(comparing())
    assert (page.read_text(), json.loads(extras.read_text())) == before
    with pytest.raises(ConfigError, match="other"):
        compare.run(comparing("seed=5"))


def test_more_pictures_are_made_for_a_finished_comparison(comparing):
    output = compare.run(comparing("pictures=0"))
    assert not list(output.glob("evaluation/.work/*/*/*.npz"))
    compare.run(comparing())
    one = next(output.glob("evaluation/.work/direct/*/render_000.npz"))
    one.unlink()
    compare.run(comparing())
    assert one.is_file(), "a killed run may have left some"
    assert not list(output.glob("evaluation/.work/*/pictures")), "those that mfl evaluate shows are not made"


def test_the_folder_of_another_command_is_refused(comparing, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"command": "infer"}')
    with pytest.raises(ConfigError, match="mfl infer"):
        compare.run(comparing())


def test_further_weights_are_arms_and_those_trained_on_generated_views_decide(comparing, gslrm):
    settings = (f"gslrm_real={gslrm}", f"gslrm_synthetic={gslrm}", "splats=0", "pictures=0")
    output = compare.run(comparing(*settings))
    numbers = json.loads((output / "compare.json").read_text())
    assert set(numbers["arms"]) == {
        *("direct", "direct_real", "direct_synthetic", "e2e", "e2e_real", "e2e_synthetic"),
        *("generated_real", "shown_real"),
    }
    assert numbers["contrasts_db"]["tuned"]["mean"] == 0, "the same weights change nothing"
    page = (output / "compare.html").read_text()
    assert 'id="view"' not in page
    assert 'id="pictures"' not in page


def test_views_that_stand_at_no_camera_leave_the_question_open(comparing, facelift_slots):
    output = compare.run(comparing(f"mvdiffusion={facelift_slots}"))
    numbers = json.loads((output / "compare.json").read_text())
    assert numbers["domain_gap"] is None
    assert set(numbers["contrasts_db"]) == {"total"}
    assert "no generated view stands at a real camera" in numbers["decision"]["headline"]
    assert (output / "compare.html").is_file()


def test_one_frame_has_no_intervals_and_a_page_all_the_same(comparing):
    output = compare.run(comparing("limit=1"))
    numbers = json.loads((output / "compare.json").read_text())
    assert numbers["contrasts_db"]["total"]["low"] is None
    assert "nan" not in re.sub(
        r"base64,[^\"]*|<script.*?</script>", "", (output / "compare.html").read_text(), flags=re.S
    )


def test_dry_run_leaves_nothing(comparing, tmp_path):
    compare.run(comparing(), dry_run=True)
    assert not (tmp_path / "out").exists()


def test_the_word_is_a_command_of_its_own(comparing, tmp_path):
    from typer.testing import CliRunner

    from mouse_facelift.cli import app

    result = CliRunner().invoke(
        app, ["evaluate", "compare", "gslrm=none", "mvdiffusion=none", "data=none", "output=o"]
    )
    assert result.exit_code == 2
    assert "none: no such file or folder" in result.stderr
    result = CliRunner().invoke(app, ["evaluate", "compare", "gslrm=g"])
    assert result.exit_code == 2
    assert "mvdiffusion" in result.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_comparison_on_a_gpu(comparing):
    output = compare.run(comparing("device=cuda"))
    numbers = json.loads((output / "compare.json").read_text())
    assert set(numbers["contrasts_db"]) == {"total", "loss", "excess", "generation"}
    assert numbers["domain_gap"]["median"]["own_loss"]["generated"] > 0
