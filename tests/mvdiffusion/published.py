"""A tiny pipeline folder in the published layout, which names classes that this package never imports."""

import json
from pathlib import Path

import torch

from mouse_facelift.mvdiffusion.folders import write_frozen
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_published(folder: Path, pipeline: MVDiffusionPipeline) -> Path:
    """FaceLift's folder: foreign class names, no number of views, prompts in fp16, no slots.json."""
    folder.mkdir(parents=True)
    write_frozen(folder, pipeline.frozen)
    pipeline.unet.save_pretrained(folder / "unet")
    edit(
        folder / "model_index.json", unet=["mvdiffusion.models.unet_mv2d_condition", "UNetMV2DConditionModel"]
    )
    config = json.loads((folder / "unet" / "config.json").read_text())
    blocks = {
        key: [name.replace("2D", "MV2D") if "CrossAttn" in name else name for name in config[key]]
        for key in ("down_block_types", "up_block_types")
    }
    edit(folder / "unet" / "config.json", _class_name="UNetMV2DConditionModel", num_views=None, **blocks)
    torch.save(pipeline.prompt_embeds.detach().half(), folder / "clr_embeds.pt")
    return folder


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
