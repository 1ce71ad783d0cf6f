"""Wrong inputs of `mfl infer`: exit code 2, one clear message, nothing written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mouse_facelift.cli import app


@pytest.fixture
def refused(gslrm: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs `mfl infer`, which must refuse; gives the message."""

    def call(*settings: str) -> str:
        output = tmp_path / "out"
        given = [f"gslrm={gslrm}", f"output={output}", "device=cpu", *settings]
        result = CliRunner().invoke(app, ["infer", *given])
        assert result.exit_code == 2, result.output
        assert not output.exists()
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "Traceback" not in result.output
        return " ".join(result.stderr.split())

    return call


def test_sample_with_one_view_for_direct(refused: Callable[..., str], write_ball, tmp_path: Path) -> None:
    lone = write_ball(tmp_path / "sample_000000", view_ids=[2])
    assert "sample_000000: has one view; direct mode needs at least two. Use mode=e2e." in refused(
        f"input={lone}"
    )


def test_camera_that_is_not_a_number(refused: Callable[..., str], balls: Path) -> None:
    path = balls.parent / "sample_000001" / "opencv_cameras.json"
    content = json.loads(path.read_text())
    content["frames"][3]["w2c"][0][3] = float("nan")
    path.write_text(json.dumps(content))
    message = refused(f"input={balls}")
    assert f"{path}: view 3: w2c holds NaN or infinity" in message


def test_checkpoint_of_another_architecture(
    refused: Callable[..., str], gslrm: Path, balls: Path, rig_pipeline: Path, tmp_path: Path
) -> None:
    message = refused(f"input={balls}", f"gslrm={rig_pipeline}")
    assert str(rig_pipeline) in message
    renamed = {f"lgm.{key}": value for key, value in load_file(gslrm / "gslrm.safetensors").items()}
    save_file(renamed, tmp_path / "other.safetensors")
    message = refused(f"input={balls}", f"gslrm={tmp_path / 'other.safetensors'}")
    assert str(tmp_path / "other.safetensors") in message


def test_pipeline_of_another_architecture(refused: Callable[..., str], gslrm: Path, balls: Path) -> None:
    assert str(gslrm) in refused(f"input={balls}", "mode=e2e", f"mvdiffusion={gslrm}")


def test_picture_with_neither_alpha_nor_mask(
    refused: Callable[..., str], facelift_pipeline: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "mouse.png")
    message = refused(f"input={tmp_path / 'mouse.png'}", "mode=e2e", f"mvdiffusion={facelift_pipeline}")
    assert "Save it as RGBA with alpha 0 around the animal, or give mask=FILE" in message


@pytest.mark.parametrize(("level", "message"), [(0, "mask is empty"), (255, "mask is white along 100%")])
def test_mask_that_shows_no_animal(
    refused: Callable[..., str], facelift_pipeline: Path, tmp_path: Path, level: int, message: str
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "mouse.png")
    Image.fromarray(np.full((32, 32), level, np.uint8)).save(tmp_path / "mask.png")
    files = f"input={tmp_path / 'mouse.png'}", f"mask={tmp_path / 'mask.png'}"
    assert message in refused(*files, "mode=e2e", f"mvdiffusion={facelift_pipeline}")


def test_view_without_any_animal(refused: Callable[..., str], balls: Path) -> None:
    path = balls.parent / "sample_000000" / "images" / "cam_003.png"
    rgba = np.asarray(Image.open(path)).copy()
    rgba[..., 3] = 0
    Image.fromarray(rgba).save(path)
    assert f"{path}: alpha is 0 everywhere, there is no animal in this view." in refused(f"input={balls}")


def test_output_that_is_a_file_or_of_another_command(
    refused: Callable[..., str], gslrm: Path, balls: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    call = CliRunner().invoke(
        app, ["infer", f"gslrm={gslrm}", f"input={balls}", f"output={tmp_path / 'file'}"]
    )
    assert call.exit_code == 2
    assert "is a file, expected a folder" in call.stderr
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "run.json").write_text('{"command": "preprocess"}')
    given = [f"gslrm={gslrm}", f"input={balls}", f"output={tmp_path / 'data'}", "overwrite=true"]
    call = CliRunner().invoke(app, ["infer", *given])
    assert call.exit_code == 2
    assert "belongs to `mfl preprocess`" in call.stderr
