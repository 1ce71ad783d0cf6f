"""`mfl prompts` from the command line to a file that training and inference read."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published import write_published
from safetensors import safe_open
from text_pipeline import write_text_pipeline

from mouse_facelift import cli, progress
from mouse_facelift.config import load_config
from mouse_facelift.errors import CheckpointError, ConfigError
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.prompts import load_prompt_embeds, read_prompt_azimuths
from mouse_facelift.mvdiffusion.prompts.command import run
from mouse_facelift.mvdiffusion.prompts.config import STYLES, PromptsConfig
from mouse_facelift.mvdiffusion.prompts.encoding import encode, find_text_encoder, read_tokenizer, tokenize
from mouse_facelift.mvdiffusion.slots import FACELIFT_NAMES, FACELIFT_RELATIVE_DEG

WIDTH = 16


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_text_pipeline(tmp_path / "pipeline", WIDTH)


@pytest.fixture
def configure(pipeline: Path, tmp_path: Path) -> Callable[..., PromptsConfig]:
    def make(*settings: str) -> PromptsConfig:
        fixed = [f"text={pipeline}", f"output={tmp_path / 'out'}", f"width={WIDTH}"]
        return load_config(PromptsConfig, None, [*fixed, *settings])

    return make


@pytest.fixture
def facts(configure: Callable[..., PromptsConfig]) -> Callable[..., dict]:
    """What run.json says after a run with these settings."""

    def make(*settings: str) -> dict:
        config = configure(*settings)
        run(config)
        return json.loads((config.output / "run.json").read_text())

    return make


def test_default_is_the_published_set(facts: Callable[..., dict]) -> None:
    made = facts()
    assert made["texts"] == [
        f"a rendering image of 3D models, {name} view, color map." for name in FACELIFT_NAMES
    ]
    assert made["azimuths_deg"] == [azimuth % 360 for azimuth in FACELIFT_RELATIVE_DEG]


@pytest.mark.parametrize("style", [*STYLES, "a drawing, {view}!"])
def test_file_holds_the_embeddings_of_its_texts(
    configure: Callable[..., PromptsConfig], pipeline: Path, style: str
) -> None:
    path = run(configure(f"style={style}", "azimuths_deg=[0, 100, 200]"))
    words = ["front", "left", "back"]
    texts = [STYLES.get(style, style).replace("{view}", word) for word in words]
    expected = encode(find_text_encoder(pipeline, WIDTH), tokenize(read_tokenizer(pipeline), texts))
    embeds = load_prompt_embeds(path, 3, WIDTH)
    assert torch.equal(embeds, expected.half())
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    assert (record["texts"], record["words"]) == (texts, words)
    assert read_prompt_azimuths(path) == (0, 100, 200)


def test_run_file_names_the_text_encoder_by_its_hash(facts: Callable[..., dict], pipeline: Path) -> None:
    made = facts()
    weights = pipeline / "text_encoder" / "model.safetensors"
    expected = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert made["text_encoder_sha256"] == expected == made["inputs"][str(weights)]
    assert str(pipeline / "tokenizer" / "merges.txt") in made["inputs"]


def test_words_of_the_user_have_no_azimuths(facts: Callable[..., dict], tmp_path: Path) -> None:
    assert facts("views=[nose, tail]", "style=minimal")["texts"] == ["nose view", "tail view"]
    assert read_prompt_azimuths(tmp_path / "out" / "prompt_embeds.safetensors") is None


def test_views_of_a_sample_go_round_the_ring(
    facts: Callable[..., dict], write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    """The cameras stand at 10, 200, 100 and 310 degrees."""
    write_samples(tmp_path / "data", 1)
    sample = f"from_sample={tmp_path / 'data' / 'sample_000000'}"
    words = ["front", "left", "back", "front_right"]
    assert facts(sample)["words"] == words
    clockwise = facts(sample, "reference_view=2", "slot_order=clockwise", "overwrite=true")
    assert clockwise["words"] == ["front", "right", "back_right", "left"]


def test_views_of_slots_and_of_a_checkpoint(
    facts: Callable[..., dict], tiny_pipeline: MVDiffusionPipeline, tmp_path: Path
) -> None:
    tiny_pipeline.save(tmp_path / "saved")
    same = ["elevation=cameras", "style=minimal", "overwrite=true"]
    for path in (tmp_path / "saved", tmp_path / "saved" / "slots.json"):
        made = facts(f"from_slots={path}", *same)
        assert made["texts"] == [f"{name} view, at eye level" for name in FACELIFT_NAMES]


def test_published_folder_tells_its_six_views(
    facts: Callable[..., dict], tiny_pipeline: MVDiffusionPipeline, tmp_path: Path
) -> None:
    published = write_published(tmp_path / "published", tiny_pipeline)
    assert facts(f"from_slots={published}")["words"] == list(FACELIFT_NAMES)


def test_height_is_told_in_words(facts: Callable[..., dict]) -> None:
    made = facts("elevation=40", "style=photo")
    assert made["texts"][2] == "a photograph of a mouse, right view, from above at an angle."


def test_slots_of_a_folder_without_are_refused(
    configure: Callable[..., PromptsConfig], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"slots\.json: no such file"):
        run(configure(f"from_slots={tmp_path / 'slots.json'}"))


def test_same_texts_are_warned_of(
    configure: Callable[..., PromptsConfig], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(configure("views=[front, left, Front]"))
    (record,) = caplog.records
    assert "views 0 (front), 2 (Front) have the same text" in record.message


def test_views_are_compared_in_a_table(
    configure: Callable[..., PromptsConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    run(configure("views=[front, left, front]"))
    out = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["view", "0", "1", "2"]
    assert [row[0].strip() for row in rows[1:]] == ["0 front", "1 left", "2 front"]
    assert rows[3][1].strip() == rows[3][3].strip() == "1.000"
    assert float(rows[3][2]) < 1


def test_finished_output_is_kept_unless_told(configure: Callable[..., PromptsConfig]) -> None:
    path = run(configure())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"prompt_embeds\.safetensors exists.*overwrite=true"):
        run(configure("style=photo"))
    assert path.read_bytes() == before
    run(configure("style=photo", "overwrite=true"))
    assert path.read_bytes() != before


def test_folder_of_another_command_is_never_taken(configure: Callable[..., PromptsConfig]) -> None:
    config = configure("overwrite=true")
    config.output.mkdir()
    (config.output / "run.json").write_text('{"command": "train-mvdiff"}')
    with pytest.raises(ConfigError, match="belongs to `mfl train-mvdiff`"):
        run(config)


def test_file_is_no_output_folder(configure: Callable[..., PromptsConfig]) -> None:
    config = configure()
    config.output.write_text("")
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        run(config, dry_run=True)


def test_dry_run_checks_and_writes_nothing(configure: Callable[..., PromptsConfig]) -> None:
    config = configure()
    run(config, dry_run=True)
    assert not config.output.exists()
    with pytest.raises(ConfigError, match="would be lost"):
        run(configure(f"style={'very ' * 75}{{view}}"), dry_run=True)
    with pytest.raises(CheckpointError, match="wide, the UNet takes width=8"):
        run(configure("width=8"), dry_run=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["style=cartoon"], "style: found 'cartoon': expected one of facelift, mouse, photo, minimal, or"),
        (["style='a {view} {height}'"], "no other braces"),
        (["style='{view} and {view}'"], "{view} once"),
        (["style='a {view'"], "no other braces"),
        (["views=[front]"], "at least 2 items"),
        ([f"azimuths_deg={list(range(17))}"], "at most 16 items"),
        (["views=[front, '']"], "every view needs a word"),
        (["views=[a, b]", "azimuths_deg=[0, 90]"], "views and azimuths_deg both say what the views are"),
        (["elevation=cameras"], "needs from_slots or from_sample"),
        (["elevation=91"], "from -90 to 90"),
        (["slot_order=clockwise"], "belong to from_sample"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    configure: Callable[..., PromptsConfig], settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        configure(*settings)
    assert message in str(error.value)


def test_user_error_through_the_command_line(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "console", None)
    (pipeline / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(SystemExit) as exit_:
        cli.app(["prompts", f"text={pipeline}", f"output={tmp_path / 'out'}"], prog_name="mfl")
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {pipeline / 'tokenizer'}: no merges.txt;")
    assert not (tmp_path / "out").exists()
