"""`mfl prompts`: one text per view, encoded once, with a record of what was encoded."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ConfigError
from ...provenance import Run, check_maker, check_output
from ...samples.format import read_sample
from ..config import MAX_VIEWS, MIN_VIEWS
from ..folders import load_slots, locate
from ..slots import FACELIFT_RELATIVE_DEG, Slots
from .config import PromptsConfig
from .encoding import encode, find_text_encoder, read_tokenizer, tokenize, view_similarity
from .files import PROMPTS_FILE, save_prompt_embeds
from .texts import PromptView, elevation_near_deg

log = logging.getLogger(__name__)

COMMAND = "prompts"


def run(config: PromptsConfig, dry_run: bool = False) -> Path:
    """Encode the texts and write `prompt_embeds.safetensors` and `run.json`; print how alike the views are.

    Args:
        config: The resolved configuration.
        dry_run: Check files, texts and output, then return; the text encoder's weights are not read.

    Returns:
        The file of the embeddings.

    Raises:
        ConfigError: the output is taken, or a text is too long.
        CheckpointError: the tokenizer, the text encoder or the slots are missing or unsuitable.
        DataError: the sample cannot be read.
    """
    record = Run(COMMAND, config)
    _check_output(config)
    views = _views(config)
    texts = [view.text(config.template) for view in views]
    tokens = tokenize(read_tokenizer(config.text), texts)
    _warn_of_equals(tokens, views)
    weights = find_text_encoder(config.text, config.width)
    for text in texts:
        log.info("%s", text)
    path = config.output / PROMPTS_FILE
    if dry_run:
        return path
    embeds = encode(weights, tokens)
    record.lap("encoding")
    tokenizer_files = (path for path in sorted((config.text / "tokenizer").iterdir()) if path.is_file())
    hashes = record.add_inputs([weights, *tokenizer_files])
    facts = {
        "texts": texts,
        "words": [view.word for view in views],
        "azimuths_deg": [view.azimuth_deg for view in views],
        "elevations_deg": [view.elevation_deg for view in views],
        "text_encoder_sha256": hashes[weights],
    }
    # The published file's precision. Rounding changes an embedding by 0.02 %; front_right and front_left,
    # the published views that are most alike, differ by 10 %.
    save_prompt_embeds(path, embeds.half(), facts)
    record.write(config.output, facts)
    _show(view_similarity(embeds), views)
    return path


def _check_output(config: PromptsConfig) -> None:
    check_output(config.output)
    check_maker(config.output, COMMAND)
    if (config.output / PROMPTS_FILE).exists() and not config.overwrite:
        raise ConfigError(f"{config.output / PROMPTS_FILE} exists. Choose another output, or overwrite=true.")


def _views(config: PromptsConfig) -> list[PromptView]:
    """What the configuration says about the views, in the order of the embeddings' rows."""
    angle = config.elevation if isinstance(config.elevation, float) else None
    if config.views is not None:
        return [PromptView(word, None, angle) for word in config.views]
    slots = _read_slots(config)
    if slots is None:
        return [PromptView.at(azimuth, angle) for azimuth in config.azimuths_deg or FACELIFT_RELATIVE_DEG]
    azimuths = slots.prompt_azimuths_deg
    if not MIN_VIEWS <= len(azimuths) <= MAX_VIEWS:
        raise ConfigError(
            f"{config.from_slots or config.from_sample}: has {len(azimuths)} views, expected {MIN_VIEWS} to "
            f"{MAX_VIEWS}. Name them with views or azimuths_deg."
        )
    if config.elevation != "cameras":
        return [PromptView.at(azimuth, angle) for azimuth in azimuths]
    return [PromptView.at(azimuth, elevation_near_deg(azimuth, slots.cameras)) for azimuth in azimuths]


def _read_slots(config: PromptsConfig) -> Slots | None:
    if config.from_slots is not None:
        path = config.from_slots
        return Slots.load(path) if path.suffix == ".json" else load_slots(*locate(path))
    if config.from_sample is not None:
        sample = read_sample(config.from_sample)
        clockwise = config.slot_order == "clockwise"
        size = sample.views[0].camera.width
        return Slots.rig([sample], size, config.reference_view, clockwise)
    return None


def _warn_of_equals(tokens: Tensor, views: Sequence[PromptView]) -> None:
    """Views whose texts are the same to the encoder can be told apart by pose or attention alone."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for number, (row, view) in enumerate(zip(tokens.tolist(), views, strict=True)):
        alike.setdefault(tuple(row), []).append(f"{number} ({view.word})")
    for same in alike.values():
        if len(same) > 1:
            log.warning("views %s have the same text; it cannot tell them apart", ", ".join(same))


def _show(similarity: Tensor, views: Sequence[PromptView]) -> None:
    """Print the cosines on standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.ASCII2)
    table.add_column("view", no_wrap=True)
    for number in range(len(views)):
        table.add_column(str(number), no_wrap=True)
    for number, (view, row) in enumerate(zip(views, similarity.tolist(), strict=True)):
        table.add_row(f"{number} {view.word}", *(f"{cosine:.3f}" for cosine in row[: number + 1]))
    console = Console(markup=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    others = similarity[~torch.eye(len(views), dtype=torch.bool)]
    console.print(
        f"Cosine between views, mean over tokens: {others.min():.3f} to {others.max():.3f}. At 1 the text "
        "cannot tell two views apart."
    )
