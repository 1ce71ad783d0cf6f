"""Configuration of `mfl evaluate compare`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..config import Config
from ..gaussians.config import FilterConfig
from ..inference.config import RefineConfig
from ..mvdiffusion.config import SamplingConfig
from .config import BootstrapConfig, EvaluateConfig, LeakConfig, Protocol

TAGS = ("", "_real", "_synthetic")
"""What the names of arms end with: GS-LRM as it is, trained on real views, trained on generated ones."""
OF_BOTH = ("image_size", "filter", "refine", "seed")
OF_E2E = ("mvdiffusion", "reference_view", "diffusion", "compile")
MEASURED = ("data", "truth", "limit", "lpips_weights", "bootstrap", "leaks", "pictures", "device")
EVALUATION = "evaluation"
"""Folder of the scores, inside the output."""


class CompareConfig(Config):
    """Compare e2e with direct on the same frames and cameras, and say what to train next."""

    data: Path = Field(description="Samples to measure on: a list file, a sample, or a folder of samples.")
    truth: Path | None = Field(
        None,
        description="Samples with the views of further cameras, by the same names as in `data` and in the "
        "same frame; direct and e2e are measured there too.",
    )
    limit: int = Field(0, ge=0, description="Take the first N samples only; 0 takes all.")
    gslrm: Path = Field(description="GS-LRM weights: a file, folder, training run or one of its checkpoints.")
    gslrm_real: Path | None = Field(
        None, description="GS-LRM trained further on real views; the decision then starts from it."
    )
    gslrm_synthetic: Path | None = Field(
        None, description="GS-LRM trained further on generated views; its measured effect then decides."
    )
    mvdiffusion: Path = Field(description="MVDiffusion pipeline folder, training run or checkpoint.")
    reference_view: int | None = Field(
        None, description="Camera id of the one view that e2e is shown; null takes that of its training."
    )
    image_size: int | None = Field(
        None,
        ge=16,
        description="Side of GS-LRM's input and of what is measured, in pixels; null shows it pictures as "
        "large as in its training (where its weights tell), and measures at the views' own size.",
    )
    diffusion: SamplingConfig = Field(SamplingConfig(), description="Sampling of MVDiffusion.")
    compile: bool = Field(False, description="Compile MVDiffusion with torch.compile.")
    filter: FilterConfig = Field(FilterConfig(), description="Which Gaussians are kept.")
    refine: RefineConfig = Field(RefineConfig(), description="Fitting to the shown views.")
    seed: int = Field(4, ge=0, description="Seed of the sampling noise, the same for every sample.")
    relevant_db: float = Field(
        0.25, gt=0, description="Differences smaller than this, in dB, do not matter for the decision."
    )
    lpips_weights: Path | None = Field(
        None, description="VGG-16, torchvision's state dict: measure LPIPS too; needs the extra `metrics`."
    )
    bootstrap: BootstrapConfig = Field(BootstrapConfig(), description="Confidence intervals.")
    leaks: LeakConfig = Field(LeakConfig(), description="What training has seen.")
    pictures: int = Field(3, ge=0, description="Frames, spread evenly, that the page shows.")
    splats: int = Field(
        60_000,
        ge=0,
        description="Gaussians of each arm in the page's 3D view, 20 bytes each; 0 leaves it out.",
    )
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Where to compute; auto takes a GPU if there is one."
    )
    output: Path = Field(description="Folder of compare.html, compare.csv, compare.json and evaluation/.")

    @property
    def tags(self) -> dict[str, Path]:
        """The given GS-LRM weights by what their arms' names end with."""
        given = dict(zip(TAGS, (self.gslrm, self.gslrm_real, self.gslrm_synthetic), strict=True))
        return {tag: path for tag, path in given.items() if path is not None}

    @property
    def base(self) -> str:
        """The tag of the weights that the decision starts from."""
        return "_real" if self.gslrm_real is not None else ""

    @property
    def evaluation(self) -> EvaluateConfig:
        """The evaluation of all arms that this compares."""
        values = self.model_dump()
        both = {name: values[name] for name in OF_BOTH}
        e2e = {"mode": "e2e", **{name: values[name] for name in OF_E2E}}
        methods: dict[str, dict[str, Any]] = {}
        for tag, weights in self.tags.items():
            methods[f"direct{tag}"] = {"mode": "direct", "gslrm": weights}
            methods[f"e2e{tag}"] = {**e2e, "gslrm": weights}
        protocols: list[Protocol] = ["reconstruction", "leave-one-camera-out", "single-view"]
        if self.truth is not None:
            protocols.append("novel")
        return EvaluateConfig(
            **both,
            **{name: values[name] for name in MEASURED},
            gslrm=self.gslrm,
            methods=methods,
            protocols=protocols,
            output=self.output / EVALUATION,
        )
