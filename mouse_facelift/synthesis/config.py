"""Configuration of `mfl synthesize`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ..config import Config, each_once
from ..mvdiffusion.config import SamplingConfig


class SynthesizeConfig(Config):
    """Make GS-LRM training samples of MVDiffusion's views."""

    mvdiffusion: Path = Field(description="MVDiffusion pipeline folder, training run or checkpoint.")
    input: Path | None = Field(
        None,
        description="Folder of samples as written by `mfl preprocess`: its data_train.txt and data_val.txt; "
        "or give the lists.",
    )
    train_list: Path | None = Field(
        None, description="List file of the samples whose views shall be trained on, instead of input."
    )
    val_list: Path | None = Field(
        None, description="List file of the samples whose views shall be validated on, instead of input."
    )
    output: Path = Field(description="Folder of the new samples and their lists.")
    limit: int = Field(0, ge=0, description="Take the first N samples of each list only; 0 takes all.")
    variants: int = Field(
        1, ge=1, description="New samples of each sample, with other noise and the next of reference_views."
    )
    reference_views: list[int] | None = Field(
        None,
        min_length=1,
        description="Camera ids of the shown view: variant k takes the k-th, and after the last the first "
        "again; null always takes that of MVDiffusion's training.",
    )
    reference: Literal["generated", "real"] = Field(
        "generated",
        description="The reference view of a new sample: generated: as MVDiffusion makes it, like the "
        "others; real: the shown picture itself.",
    )
    targets: Literal["generated", "real"] = Field(
        "generated",
        description="generated: a new sample holds generated views alone; real: the real views as well, and "
        "training shows the generated ones and compares with the real ones.",
    )
    diffusion: SamplingConfig = Field(SamplingConfig(), description="Sampling of MVDiffusion.")
    seed: int = Field(4, ge=0, description="Seed of the sampling noise, other noise for every new sample.")
    batch_size: int = Field(
        1, ge=1, description="Samples whose views are made at once; more use a large GPU better."
    )
    compile: bool = Field(
        False,
        description="Compile MVDiffusion with torch.compile: minutes at the start, then less time a sample; "
        "pays on a GPU from some hundred samples on.",
    )
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Where to compute; auto takes a GPU if there is one."
    )
    overwrite: bool = Field(False, description="Make finished samples again instead of keeping them.")

    _views_once = field_validator("reference_views")(each_once)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        lists = self.train_list is not None or self.val_list is not None
        if self.input is None and not lists:
            raise ValueError("no samples: set input to a folder of samples, or train_list and val_list")
        if self.input is not None and lists:
            raise ValueError("input and lists are set; leave input out, or the lists")
        return self

    @model_validator(mode="after")
    def _all_references_shown(self) -> Self:
        views = self.reference_views or []
        if len(views) > self.variants:
            raise ValueError(
                f"reference_views has {len(views)} cameras, but with variants {self.variants} only the first "
                f"{self.variants} would be shown; set variants={len(views)}, or leave some out"
            )
        return self
