"""Where the parts of a pipeline lie: in one folder, or in a training run that keeps the frozen ones once."""

from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import write_json
from ..training.checkpoints import find_checkpoint
from .denoiser import Denoiser
from .frozen import FrozenParts
from .prompts import PROMPTS_FILE, save_prompt_embeds
from .slots import FACELIFT_NAMES, SLOTS_FILE, Slots
from .unet import parse_config
from .weights import read_json

INDEX_FILE = "model_index.json"
PUBLISHED_MODULE = "mvdiffusion."
"""How the published `model_index.json` names the module of its UNet class; it is never imported."""
PUBLISHED_PROMPTS = "clr_embeds.pt"


def locate(path: Path) -> tuple[Path, Path]:
    """Find the folder of the trained parts and the folder of the frozen ones.

    They are the same for a complete pipeline. A run keeps the frozen parts once, in `pipeline/`, and the
    trained ones in each checkpoint.

    Raises:
        CheckpointError: neither a pipeline, a run nor a checkpoint, or a checkpoint taken out of its run.
    """
    if (path / INDEX_FILE).is_file():
        if not (path / "unet").is_dir():
            raise CheckpointError(
                f"{path}: no unet; the folder is not a complete pipeline. Of a training run give the run "
                "itself, not its folder pipeline."
            )
        return path, path
    if path.is_dir() and not any((path / name).exists() for name in ("checkpoints", "weights")):
        gslrm = " (it holds GS-LRM weights)" if any(path.glob("gslrm.*")) else ""
        raise CheckpointError(
            f"{path}: holds neither {INDEX_FILE} nor checkpoints{gslrm}; expected a pipeline folder, a "
            "training run, or one of its checkpoints."
        )
    checkpoint = find_checkpoint(path)
    if not (checkpoint.weights / "unet").is_dir():
        made_by = checkpoint.manifest.get("command", "another command")
        raise CheckpointError(
            f"{checkpoint.folder}: holds no UNet, it was written by {made_by}. Give a run of train-mvdiff."
        )
    frozen = frozen_folder(checkpoint.folder.resolve().parents[1])
    if not (frozen / INDEX_FILE).is_file():
        raise CheckpointError(
            f"{checkpoint.folder}: the frozen parts of its run are not at {frozen}. Keep checkpoints inside "
            "their run, or give a complete pipeline folder."
        )
    return checkpoint.weights, frozen


def pin(path: Path) -> Path:
    """Name the checkpoint that is meant by a run: its training might write a newer one meanwhile.

    Raises:
        CheckpointError: see `locate`.
    """
    trained, frozen = locate(path)
    return trained if trained == frozen else trained.parent


def trained_files(path: Path) -> list[Path]:
    """The files that training changes or decides: UNet, prompts, slots.

    Raises:
        CheckpointError: see `locate`, or there are no prompts.
    """
    trained, _ = locate(path)
    slots = trained / SLOTS_FILE
    files = [*sorted((trained / "unet").glob("*")), find_prompts(trained)]
    return [*files, slots] if slots.is_file() else files


def frozen_folder(run: Path) -> Path:
    """Where a run keeps its frozen parts."""
    return run / "pipeline"


def find_prompts(folder: Path) -> Path:
    """The prompt embeddings file of a folder, ours or the published one.

    Raises:
        CheckpointError: there is none.
    """
    for name in (PROMPTS_FILE, PUBLISHED_PROMPTS):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: no prompt embeddings; expected {PROMPTS_FILE} or {PUBLISHED_PROMPTS} there. The "
        "published weights come without: put FaceLift's clr_embeds.pt into the folder, or name the file."
    )


def write_frozen(folder: Path, frozen: FrozenParts) -> None:
    """Write the parts that training leaves alone, and `model_index.json`, into an existing folder."""
    frozen.save(folder)
    index = {
        "_class_name": "MVDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "image_noising_scheduler": ["diffusers", "DDPMScheduler"],
        "image_normalizer": ["stable_diffusion", "StableUnCLIPImageNormalizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / INDEX_FILE, index)


def write_trained(folder: Path, denoiser: Denoiser, slots: Slots) -> None:
    """Write what training changes or decides into an existing folder."""
    denoiser.unet.save_pretrained(folder / "unet")
    save_prompt_embeds(folder / PROMPTS_FILE, denoiser.prompt_embeds)
    slots.save(folder / SLOTS_FILE)


def prompt_width(trained: Path) -> int:
    """Width of the prompt embeddings that a folder's UNet takes.

    Raises:
        CheckpointError: no readable `config.json`.
    """
    return int(_unet_config(trained)[1].get("cross_attention_dim", 1280))


def load_slots(trained: Path, frozen: Path) -> Slots:
    """What the views of trained weights mean: their `slots.json`, or FaceLift's six for the published layout.

    Only small files are read.

    Args:
        trained: Folder of the trained parts.
        frozen: Folder of the frozen parts, with `model_index.json`.

    Raises:
        CheckpointError: nobody wrote down what the views are.
    """
    if (trained / SLOTS_FILE).is_file():
        return Slots.load(trained / SLOTS_FILE)
    library = str((read_json(frozen / INDEX_FILE).get("unet") or [""])[0])
    views, unet = _unet_config(trained)
    side = unet.get("sample_size")
    if library.startswith(PUBLISHED_MODULE) and views == len(FACELIFT_NAMES) and isinstance(side, int):
        levels = len(read_json(frozen / "vae" / "config.json").get("block_out_channels", ()))
        return Slots.facelift(side * 2 ** (levels - 1))
    raise CheckpointError(
        f"{trained}: no {SLOTS_FILE}, so nobody knows which camera each of its {views} views is. "
        "Give a folder written by `mfl train-mvdiff`, or the published FaceLift one."
    )


def _unet_config(trained: Path) -> tuple[int, dict[str, Any]]:
    """Number of views, and diffusers' own arguments."""
    path = trained / "unet" / "config.json"
    views, _, stock = parse_config(read_json(path), path)
    return views, stock
