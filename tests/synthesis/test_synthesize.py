"""Samples made of generated views: true cameras, inherited split, exact resume."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.errors import ConfigError, DataError, Interrupted
from mouse_facelift.inference.generation import ViewMaker
from mouse_facelift.samples.datasets import SampleDataset
from mouse_facelift.samples.format import Sample, read_list, read_rgba, read_sample, write_list, write_sample
from mouse_facelift.samples.training_data import TrainingData
from mouse_facelift.synthesis import composing
from mouse_facelift.synthesis import output as synthesis_output
from mouse_facelift.synthesis import run as synthesis
from mouse_facelift.synthesis.config import SynthesizeConfig
from mouse_facelift.synthesis.output import OutputFolder
from mouse_facelift.synthesis.run import run

Make = Callable[..., SynthesizeConfig]
RIG = [0, 1, 2, 5]


def samples_of(folder: Path, part: str) -> list[Sample]:
    return [read_sample(path) for path in read_list(folder / f"data_{part}.txt")]


def content(folder: Path) -> dict[str, bytes]:
    """All pictures and cameras."""
    files = [*folder.glob("sample_*/images/*.png"), *folder.glob("sample_*/*.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("sample_*/images/*.png")}


def colours(folder: Path, view: int) -> np.ndarray:
    return read_rgba(folder / "images" / f"cam_{view:03d}.png").astype(int)


def samples_are(folder: Path, train: int = 0, val: int = 0, rejected: int = 0) -> bool:
    """Whether the manifest counts them so."""
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    return bool(counts == {"train": train, "val": val, "rejected": rejected})


def test_samples_of_validation_frames_are_for_validation(config: Make, balls: Path) -> None:
    out = run(config())
    assert [s.sample_id for s in samples_of(out, "train")] == [f"sample_{n:06d}" for n in range(3)]
    (val,) = samples_of(out, "val")
    source = read_sample(balls / "sample_000003")
    assert val.frame_index == source.frame_index == 30
    assert np.array_equal(val.world_from_model, source.world_from_model)
    assert val.metadata["source"] == {"recording": "balls"} and "quality" not in val.metadata
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"] == {"train": 3, "val": 1, "rejected": 0}
    assert [entry["part"] for entry in manifest["samples"]] == ["train"] * 3 + ["val"]
    assert json.loads((out / "run.json").read_text())["command"] == "synthesize"


@pytest.mark.parametrize("slots", ["rig", "pose"])
def test_cameras_are_those_that_the_views_were_made_for(
    config: Make, slots: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    make = ViewMaker.__call__
    monkeypatch.setattr(
        ViewMaker, "__call__", lambda self, requests: asked.extend(requests) or make(self, requests)
    )
    out = run(config(slots=slots))
    for sample, request in zip([*samples_of(out, "train"), *samples_of(out, "val")], asked, strict=True):
        assert sorted(request.cameras.view_ids) == RIG
        for view in sample.views:
            place = request.cameras.view_ids.index(view.view_id)
            assert view.camera.width == 32
            # What was told in single precision is written, and read again, to the bit.
            assert torch.equal(torch.from_numpy(view.camera.w2c).float(), request.cameras.w2c[place])
            assert torch.equal(torch.from_numpy(view.camera.K).float(), request.cameras.K[place])


def test_every_reference_gives_the_views_of_the_same_cameras(config: Make, balls: Path) -> None:
    """Earlier attempts wrote the cameras of one reference beside the views made for all of them."""
    out = run(config("variants=3", "reference_views=[2, 0, 5]", "limit=1"))
    source = {view.view_id: view.camera for view in read_sample(balls / "sample_000000").views}
    made = samples_of(out, "train")
    assert [s.folder.name for s in made] == [f"sample_000000{suffix}" for suffix in ("", "_v1", "_v2")]
    assert [s.metadata["synthesis"]["reference_view"] for s in made] == [2, 0, 5]
    for sample in made:
        assert [view.view_id for view in sample.views] == RIG
        for view in sample.views:
            np.testing.assert_allclose(view.camera.w2c, source[view.view_id].w2c, atol=1e-6)
            np.testing.assert_allclose(view.camera.K[:2], source[view.view_id].K[:2] * 32 / 48, rtol=1e-6)


def test_facelift_slots_stand_around_the_reference_and_have_numbers_of_their_own(config: Make) -> None:
    out = run(config("reference_views=[5]", "limit=1", slots="facelift"))
    (sample,) = samples_of(out, "train")
    assert [view.view_id for view in sample.views] == [100, 101, 102, 103, 104, 105]
    relative = [view.camera.azimuth_deg - 310 for view in sample.views]
    np.testing.assert_allclose(np.mod(relative, 360) % 360, [0, 315, 270, 180, 90, 45], atol=1e-3)


def test_only_the_reference_is_looked_at(config: Make, balls: Path, tmp_path: Path) -> None:
    before = content(run(config("limit=1")))
    for path in (balls / "sample_000000" / "images").iterdir():
        if path.name != "cam_002.png":
            Image.new("RGBA", (48, 48), (0, 255, 0, 255)).save(path)
    assert content(run(config("limit=1", f"output={tmp_path / 'again'}"))) == before


def test_pictures_keep_their_colours_on_white_and_the_background_becomes_clean() -> None:
    made = torch.full((1, 3, 32, 32), 0.99)
    made[:, :, 8:24, 10:20] = torch.tensor([0.2, 0.5, 0.7])[:, None, None]
    made[:, :, 7, 10:20] = (made[:, :, 8, 10:20] + 0.99) / 2
    rgba = composing.cut_out(made)[0].astype(float) / 255
    shown = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    animal = rgba[..., 3] > 0
    assert animal[8:24, 10:20].all() and animal.sum() < 250
    assert np.abs(shown - made[0].permute(1, 2, 0).numpy())[animal].max() < 0.01
    assert (rgba[~animal][:, :3] == 1).all()


def test_batch_and_order_of_samples_do_not_matter(config: Make, balls: Path, tmp_path: Path) -> None:
    alone = run(config())
    backwards = tmp_path / "backwards.txt"
    write_list(backwards, [balls / f"sample_{n:06d}" for n in (2, 0, 1)])
    together = run(config(f"train_list={backwards}", "batch_size=3", f"output={tmp_path / 'b'}"))
    for number in range(3):
        name = f"sample_{number:06d}"
        cameras = [json.loads((out / name / "opencv_cameras.json").read_text()) for out in (alone, together)]
        assert cameras[0] == cameras[1]
        for view in RIG:
            difference = np.abs(colours(alone / name, view) - colours(together / name, view))
            # Straight colours of nearly transparent pixels are uncertain; a picture is not another one.
            assert np.median(difference) <= 1 and np.mean(difference > 2) < 0.01


def test_noise_differs_by_sample_variant_and_seed(config: Make, balls: Path, tmp_path: Path) -> None:
    for view in ("cam_000.png", "cam_001.png", "cam_002.png", "cam_005.png"):
        picture = (balls / "sample_000000" / "images" / view).read_bytes()
        (balls / "sample_000001" / "images" / view).write_bytes(picture)
    first = run(config("variants=2", "limit=2"))
    second = run(config("variants=1", "limit=1", "seed=5", f"output={tmp_path / 'other'}"))
    folders = [
        first / "sample_000000",
        first / "sample_000000_v1",
        first / "sample_000001",
        second / "sample_000000",
    ]
    pictures = {(folder / "images" / "cam_000.png").read_bytes() for folder in folders}
    assert len(pictures) == 4


def test_real_reference_stays_as_it_is(config: Make, balls: Path) -> None:
    real, made = (
        run(config(f"reference={kind}", "limit=1", f"output={balls}_{kind}"))
        for kind in ("real", "generated")
    )
    source = SampleDataset([balls / "sample_000000"], 32).eight_bit(0)["rgba"][2].permute(1, 2, 0).numpy()
    assert np.array_equal(colours(real / "sample_000000", 2), source)
    assert not np.array_equal(colours(made / "sample_000000", 2), source)
    assert np.array_equal(colours(made / "sample_000000", 0), colours(real / "sample_000000", 0))


def test_real_targets_stand_beside_generated_inputs(config: Make, balls: Path) -> None:
    out = run(config("targets=real"))
    data = SampleDataset.from_list(out / "data_train.txt", 32)
    assert data.view_ids == [100, 101, 102, 105, *RIG]
    assert data.input_positions == (0, 1, 2, 3) and data.target_positions == (4, 5, 6, 7)
    real = SampleDataset.from_list(balls / "data_train.txt", 32)
    for mine, source in zip(data, real, strict=True):
        assert torch.equal(mine["rgba"][4:], source["rgba"])
        for key in ("K", "w2c"):
            assert torch.equal(mine[key][4:], source[key])
            torch.testing.assert_close(mine[key][:4], source[key])


def test_killed_run_goes_on_and_ends_like_an_undisturbed_one(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config(f"output={tmp_path / 'whole'}"))
    write, seen = OutputFolder.write, []

    def killed(self: OutputFolder, *arguments: object) -> None:
        if len(seen) == 2:
            raise Interrupted(15)
        seen.append(write(self, *arguments))

    monkeypatch.setattr(OutputFolder, "write", killed)
    with pytest.raises(Interrupted):
        run(config())
    out = config().output
    assert len(list(out.glob("sample_*"))) == 2 and not (out / "data_train.txt").exists()
    monkeypatch.setattr(OutputFolder, "write", write)
    kept = stamps(out)
    run(config())
    assert content(out) == content(whole)
    assert (out / "data_train.txt").read_text() == (whole / "data_train.txt").read_text()
    assert {path: time for path, time in stamps(out).items() if path in kept} == kept


def test_finished_run_loads_nothing_and_more_variants_join_it(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(config())
    before = stamps(out)
    with monkeypatch.context() as patched:
        patched.setattr(synthesis, "ViewMaker", lambda *_: pytest.fail("loaded"))
        run(config())
    run(config("variants=2"))
    after = stamps(out)
    assert len(after) == 2 * len(before) and before.items() <= after.items()
    assert len(samples_of(out, "train")) == 6


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("seed=5", "seed: then"),
        ("diffusion.steps=3", "sampling: then"),
        ("reference_views=[0]", "reference_view: then 2, now 0"),
        ("targets=real", "targets: then generated, now real"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(config: Make, setting: str, told: str) -> None:
    out = run(config("limit=1"))
    before = content(out)
    with pytest.raises(ConfigError, match=f"was made otherwise .*{told}"):
        run(config("limit=1", setting))
    assert content(out) == before
    run(config("limit=1", setting, "overwrite=true"))
    assert content(out) != before


def test_other_weights_and_changed_samples_are_refused(config: Make, balls: Path) -> None:
    run(config("limit=1"))
    with pytest.raises(ConfigError, match="mvdiffusion_sha256"):
        run(config("limit=1", slots="rig"))
    path = balls / "sample_000000" / "images" / "cam_002.png"
    Image.open(path).rotate(90).save(path)
    with pytest.raises(ConfigError, match="source_sha256"):
        run(config("limit=1"))


def test_view_without_an_animal_leaves_its_sample_out_for_good(
    config: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = ViewMaker.__call__

    def sometimes_empty(self: ViewMaker, requests: list) -> list[torch.Tensor]:
        made = make(self, requests)
        made[1][3] = 1.0
        return made

    monkeypatch.setattr(ViewMaker, "__call__", sometimes_empty)
    out = run(config("batch_size=3", "train_list=" + str(config().input / "data_train.txt")))
    assert "sample_000001: the generated view 0 shows no animal; the sample is left out" in caplog.text
    assert [s.sample_id for s in samples_of(out, "train")] == ["sample_000000", "sample_000002"]
    assert json.loads((out / "manifest.json").read_text())["counts"]["rejected"] == 1
    monkeypatch.setattr(ViewMaker, "__call__", lambda *_: pytest.fail("made again"))
    run(config("batch_size=3", "train_list=" + str(config().input / "data_train.txt")))


def test_sample_in_both_lists_is_refused(config: Make, balls: Path, tmp_path: Path) -> None:
    lists = [f"{part}_list={balls / 'data_train.txt'}" for part in ("train", "val")]
    with pytest.raises(DataError, match=r"sample_000000 is listed twice; .* belongs to one list"):
        run(config(*lists))


def test_wrong_inputs_are_told_before_anything_is_loaded_or_written(
    config: Make, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "ViewMaker", lambda *_: pytest.fail("loaded"))
    far = tmp_path / "far"
    source = read_sample(balls / "sample_000000")
    pictures = [read_rgba(view.file) for view in source.views]
    write_sample(far / "sample_000009", pictures, [v.camera for v in source.views], [0, 1, 2, 107])
    write_list(far / "data_train.txt", [far / "sample_000009"])
    cases = [
        (config(f"input={tmp_path / 'nowhere'}"), DataError, "no such folder"),
        (config(f"input={tmp_path}"), DataError, r"has neither data_train\.txt nor data_val\.txt"),
        (config("reference_views=[9]"), DataError, r"sample_000000: has no view 9"),
        (config("reference_views=[0]", slots="rig"), ConfigError, "sample_000000.*trained with camera 2"),
        (config(f"input={far}", "targets=real"), DataError, r"has camera ids \[107\]"),
        (config(f"output={balls}"), ConfigError, "is where the samples lie"),
    ]
    for settings, error, message in cases:
        with pytest.raises(error, match=message):
            run(settings)
    assert not config().output.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train_list=a.txt", "input=b"], "input and lists are set"),
        (["reference_views=[0, 1]"], "reference_views has 2 cameras, but with variants 1"),
        (["reference_views=[1, 1]", "variants=2"], "every camera id should be there once"),
    ],
)
def test_contradicting_settings_are_refused(config: Make, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*settings)


def test_samples_say_what_their_maker_was_trained_on(
    config: Make, checkpoints: dict[str, Path], balls: Path, tmp_path: Path
) -> None:
    assert TrainingData.load(run(config("limit=1"))).unrecorded
    checkpoint = shutil.copytree(checkpoints["pose"], tmp_path / "checkpoint")
    seen = TrainingData.of([read_sample(balls / "sample_000003")], RIG)
    seen.save(checkpoint)
    out = run(config("limit=1", f"mvdiffusion={checkpoint}", f"output={tmp_path / 'other'}"))
    assert TrainingData.load(out) == seen


def test_samples_of_generated_samples_say_what_all_makers_were_trained_on(
    config: Make, checkpoints: dict[str, Path], balls: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoints["pose"], tmp_path / "checkpoint")
    seen = TrainingData.of([read_sample(balls / "sample_000003")], RIG)
    seen.save(checkpoint)
    first = run(config("limit=1", f"mvdiffusion={checkpoint}", f"output={tmp_path / 'first'}"))
    second = run(config("limit=1", f"input={first}", slots="facelift"))
    record = TrainingData.load(second)
    assert all(trained in record.sets for trained in seen.sets) and record.unrecorded


def test_picture_of_another_size_than_its_camera_says_is_refused(config: Make, balls: Path) -> None:
    path = balls / "sample_000000" / "images" / "cam_002.png"
    Image.open(path).resize((64, 64)).save(path)
    for reference in ("generated", "real"):
        with pytest.raises(DataError, match=r"cam_002\.png: picture is 64x64, its camera says 48x48"):
            run(config("limit=1", f"reference={reference}"))
    assert not config().output.exists()


def test_camera_id_that_is_there_twice_is_refused(config: Make, balls: Path) -> None:
    path = balls / "sample_000001" / "opencv_cameras.json"
    path.write_text(path.read_text().replace('"view_id": 5', '"view_id": 1'))
    with pytest.raises(DataError, match=r"sample_000001: views \[0, 1, 2, 1\] hold a camera id twice"):
        run(config())


def test_new_samples_of_one_name_are_refused(config: Make, balls: Path, tmp_path: Path) -> None:
    """The second variant of one sample and the first of another would replace one another."""
    (balls / "sample_000001").rename(balls / "sample_000000_v1")
    write_list(tmp_path / "list.txt", [balls / "sample_000000", balls / "sample_000000_v1"])
    with pytest.raises(ConfigError, match="sample_000000_v1 would both become sample_000000_v1"):
        run(config("variants=2", f"train_list={tmp_path / 'list.txt'}"))


def test_samples_that_would_fall_out_of_the_lists_are_refused(config: Make, balls: Path) -> None:
    """The second command would leave an empty data_train.txt."""
    out = run(config(f"train_list={balls / 'data_train.txt'}"))
    before = (out / "data_train.txt").read_text()
    for more in ([], ["overwrite=true"]):
        with pytest.raises(ConfigError, match=r"holds 3 samples that would not be made now"):
            run(config(f"val_list={balls / 'data_val.txt'}", *more))
    assert (out / "data_train.txt").read_text() == before


@pytest.mark.parametrize("place", ["checkpoint", "weights", "data"])
def test_folder_of_something_else_is_no_output(
    config: Make, checkpoints: dict[str, Path], balls: Path, tmp_path: Path, place: str
) -> None:
    """Its lists would be lost, or its weights be said to be trained on what others were."""
    folder = tmp_path / "taken"
    if place == "checkpoint":
        shutil.copytree(checkpoints["rig"], folder)
    elif place == "weights":
        TrainingData(()).save(folder)
    else:
        write_list(folder / "data_train.txt", [balls / "sample_000000"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"taken holds .*, but no run\.json of `mfl synthesize`"):
        run(config(f"output={folder}"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_interrupted_overwriting_leaves_no_list_of_old_and_new_samples(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(config())
    write, seen = OutputFolder.write, []

    def killed(self: OutputFolder, *arguments: object) -> None:
        if seen:
            raise Interrupted(15)
        seen.append(write(self, *arguments))

    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "write", killed)
        with pytest.raises(Interrupted):
            run(config("seed=5", "overwrite=true"))
    assert not any((out / name).exists() for name in ("data_train.txt", "data_val.txt", "manifest.json"))
    run(config("seed=5", "overwrite=true"))
    assert len(samples_of(out, "train")) == 3


def test_sample_that_is_overwritten_and_rejected_is_gone(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(config("limit=1"))
    make = ViewMaker.__call__
    monkeypatch.setattr(
        ViewMaker, "__call__", lambda self, requests: [torch.ones_like(made) for made in make(self, requests)]
    )
    for more in (["overwrite=true"], []):
        run(config("limit=1", "seed=5", *more))
        assert not list(out.glob("sample_*")) and len(list((out / "rejected").iterdir())) == 2


def test_sample_that_was_rejected_before_it_was_made_counts(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after it was written, it must not be taken for rejected in the next run."""
    with monkeypatch.context() as patched:
        patched.setattr(ViewMaker, "__call__", lambda _, requests: [torch.ones(4, 3, 32, 32)] * len(requests))
        out = run(config("limit=1", f"train_list={config().input / 'data_train.txt'}"))
    assert samples_are(out, rejected=1)

    def killed(*arguments: object) -> None:
        write_sample(*arguments)  # type: ignore[arg-type]
        raise Interrupted(15)

    given = ["limit=1", f"train_list={config().input / 'data_train.txt'}", "seed=5"]
    with monkeypatch.context() as patched:
        patched.setattr(synthesis_output, "write_sample", killed)
        with pytest.raises(Interrupted):
            run(config(*given, "overwrite=true"))
    run(config(*given))
    assert samples_are(out, train=1)


def test_half_written_samples_of_any_name_are_cleared_away(config: Make, balls: Path, tmp_path: Path) -> None:
    odd = (balls / "sample_000000").rename(balls / "mouse(1)+[x")
    write_list(tmp_path / "list.txt", [odd])
    run(config(f"train_list={tmp_path / 'list.txt'}"))
    out = config().output
    half = out / ".mouse(1)+[x.abcdefgh"
    half.mkdir()
    run(config(f"train_list={tmp_path / 'list.txt'}", "overwrite=true"))
    assert not half.exists() and (out / odd.name).is_dir()


def test_command_line_tells_user_errors_in_one_line(
    checkpoints: dict[str, Path], balls: Path, tmp_path: Path
) -> None:
    common = ["synthesize", f"output={tmp_path / 'out'}", "device=cpu"]
    pose = f"mvdiffusion={checkpoints['pose']}"
    for settings, told in [
        ([pose, f"train_list={tmp_path / 'none.txt'}"], "no such list file"),
        ([f"mvdiffusion={tmp_path / 'none'}", f"input={balls}"], "no such folder"),
        ([pose, f"input={balls}", "diffusion.guidance=.inf"], "finite number"),
        ([pose], "no samples: set input"),
    ]:
        result = CliRunner().invoke(app, [*common, *settings])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ") and told in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(config: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(config(), dry_run=True)
    assert "4 samples to make" in caplog.text and not config().output.exists()
