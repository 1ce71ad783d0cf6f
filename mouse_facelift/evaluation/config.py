"""Configuration of `mfl evaluate`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..config import Config
from ..inference.config import ReconstructionConfig

Protocol = Literal["reconstruction", "leave-one-camera-out", "single-view", "novel"]

METHOD_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""Methods name folders and columns."""

OF_METHODS = tuple(name for name in ReconstructionConfig.model_fields if name != "device")
"""Keys of the top level that every method takes over."""


class BootstrapConfig(Config):
    """Confidence intervals: frames are drawn again in blocks, all cameras of a frame together."""

    resamples: int = Field(2000, ge=100, description="How often the frames are drawn again.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Probability that an interval is to cover.")
    block: int = Field(
        1,
        ge=1,
        description="Neighbouring frames that are drawn together; set it so that frames farther apart than "
        "a block are independent.",
    )
    seed: int = Field(0, ge=0, description="Seed of the draws.")


class LeakConfig(Config):
    """What happens to frames and cameras that a training has seen."""

    action: Literal["refuse", "mark"] = Field(
        "refuse",
        description="Frames that were trained on: refuse: end with their names; mark: measure, and say so.",
    )
    guard_frames: int = Field(
        0,
        ge=0,
        description="Frames as near in time as this to one that was trained on count as trained on.",
    )
    trusted: list[Path] = Field(
        [],
        description="Files of weights without a record, such as published ones, that are known to have seen "
        "none of this data.",
    )


class EvaluateConfig(ReconstructionConfig):
    """Measure how good reconstructions are.

    The keys that `mfl infer` has too are those of every method; `methods` holds what some have otherwise.
    """

    data: Path = Field(description="Samples to measure on: a list file, a sample, or a folder of samples.")
    methods: dict[str, dict[str, Any]] = Field(
        {},
        description="What is compared: settings by name, such as methods.fine_tuned.gslrm=runs/gslrm, on top "
        "of the keys mode, gslrm, mvdiffusion and so on; empty is one method, named after its mode.",
    )
    protocols: list[Protocol] = Field(
        ["reconstruction", "leave-one-camera-out", "single-view"],
        min_length=1,
        description="reconstruction: the shown views are rendered again, which flatters; "
        "leave-one-camera-out (direct): each camera is measured without being shown; single-view (e2e): one "
        "view is shown, the others are measured; novel: the cameras of `truth` are measured.",
    )
    truth: Path | None = Field(
        None,
        description="Samples with the views of further cameras, by the same names as in `data` and in the "
        "same frame (novel): a list file or a folder; a surface.npz in them gives distances in mm.",
    )
    limit: int = Field(0, ge=0, description="Take the first N samples only; 0 takes all.")
    lpips_weights: Path | None = Field(
        None, description="VGG-16, torchvision's state dict: measure LPIPS too; needs the extra `metrics`."
    )
    bootstrap: BootstrapConfig = Field(BootstrapConfig(), description="Confidence intervals.")
    leaks: LeakConfig = Field(LeakConfig(), description="What training has seen.")
    pictures: int = Field(
        3, ge=0, description="Frames, spread evenly, of which pictures are written for every protocol."
    )
    output: Path = Field(description="Folder of scores.csv, summary.json and pictures.")

    @property
    def resolved_methods(self) -> dict[str, ReconstructionConfig]:
        """Every method's settings in full, by its name."""
        common = self.model_dump(include=set(OF_METHODS))
        settings: Mapping[str, Mapping[str, Any]] = self.methods or {self.mode: {}}
        return {
            name: _method(name, {**_merged(common, changes), "device": self.device})
            for name, changes in settings.items()
        }

    @model_validator(mode="after")
    def _methods_are_methods(self) -> Self:
        for name, changes in self.methods.items():
            if not re.fullmatch(METHOD_NAME, name):
                raise ValueError(f"methods: '{name}' cannot be a name; use letters, digits, '.', '_' and '-'")
            unknown = [key for key in changes if key not in OF_METHODS]
            if unknown:
                raise ValueError(
                    f"methods.{name}: unknown key '{unknown[0]}'; a method has {', '.join(OF_METHODS)}"
                )
        self.resolved_methods  # noqa: B018 - refuses what does not fit
        return self

    @model_validator(mode="after")
    def _protocols_have_their_data(self) -> Self:
        if len(set(self.protocols)) < len(self.protocols):
            raise ValueError("protocols: every protocol should be there once")
        if "novel" in self.protocols and self.truth is None:
            raise ValueError(
                "protocol novel needs truth=DIR, samples of further cameras; give it, or leave novel out"
            )
        return self


def _method(name: str, settings: Mapping[str, Any]) -> ReconstructionConfig:
    try:
        return ReconstructionConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(("methods", name, *(str(part) for part in first["loc"])))
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` on top; sections are merged key by key."""
    merged = dict(values)
    for name, change in changes.items():
        old = merged.get(name)
        merged[name] = {**old, **change} if isinstance(old, dict) and isinstance(change, dict) else change
    return merged
