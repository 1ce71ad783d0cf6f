"""Configuration of `mfl prompts`, and the named styles."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ...config import Config
from ..config import MAX_VIEWS, MIN_VIEWS

STYLES = {
    "facelift": "a rendering image of 3D models, {view} view, color map.",
    "mouse": "a rendering image of a 3D model, top-{view} view, from above at an angle, color map.",
    "photo": "a photograph of a mouse, {view} view.",
    "minimal": "{view} view",
}
"""Texts by name; `facelift` is what the published embeddings were made of."""

PLACE = "{view}"
"""Where a style gets the view's word."""


class PromptsConfig(Config):
    """`mfl prompts`: encode one text per view with a pipeline's own text encoder."""

    text: Path = Field(
        description="Pipeline folder with tokenizer and text_encoder: FaceLift's or SD 2.1-unCLIP's."
    )
    output: Path = Field(description="Folder of prompt_embeds.safetensors, and of run.json with the texts.")
    style: str = Field(
        "facelift",
        description=f"The text: {', '.join(STYLES)}; or an own one with {PLACE} where the view's word goes.",
    )
    views: tuple[str, ...] | None = Field(
        None,
        min_length=MIN_VIEWS,
        max_length=MAX_VIEWS,
        description="Word of each view; null, and no other source of views: FaceLift's six.",
    )
    azimuths_deg: tuple[float, ...] | None = Field(
        None,
        min_length=MIN_VIEWS,
        max_length=MAX_VIEWS,
        description="Instead of words, where each view's camera stands relative to the reference, "
        "counter-clockwise seen from above; it gets the nearest of eight words (90: left).",
    )
    from_slots: Path | None = Field(
        None, description="Take the views from a slots.json, or from a training run or checkpoint with one."
    )
    from_sample: Path | None = Field(
        None, description="Take the views from a sample folder's cameras, around the ring from the reference."
    )
    reference_view: int | Literal["first"] = Field(
        "first", description="Camera id of the reference; from_sample only."
    )
    slot_order: Literal["counter_clockwise", "clockwise"] = Field(
        "counter_clockwise",
        description="Order of the sample's cameras seen from above, as data.slot_order in training; "
        "from_sample only.",
    )
    elevation: float | Literal["cameras"] | None = Field(
        None,
        description="Height of the cameras in degrees, told in words at the end of every text (40: from "
        "above at an angle); cameras: of each its own, with from_slots or from_sample; null: not told.",
    )
    width: int = Field(
        1024, ge=1, description="Width of the embeddings that the UNet takes (its cross_attention_dim)."
    )
    overwrite: bool = Field(False, description="Replace prompt embeddings that are there already.")

    @property
    def template(self) -> str:
        """The style's text, with the place for the view's word."""
        return STYLES.get(self.style, self.style)

    @field_validator("style")
    @classmethod
    def _has_a_place(cls, style: str) -> str:
        if style in STYLES:
            return style
        places = re.findall(r"[{}][^{}]*}?", style)
        if places != [PLACE]:
            raise ValueError(
                f"expected one of {', '.join(STYLES)}, or a text with {PLACE} once and no other braces"
            )
        return style

    @field_validator("views")
    @classmethod
    def _words_say_something(cls, views: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if views is not None and not all(word.strip() for word in views):
            raise ValueError("every view needs a word")
        return views

    @field_validator("elevation")
    @classmethod
    def _is_an_angle(cls, elevation: float | str | None) -> float | str | None:
        if isinstance(elevation, float) and not -90 <= elevation <= 90:
            raise ValueError("expected an angle from -90 to 90 degrees")
        return elevation

    @model_validator(mode="after")
    def _one_source(self) -> "PromptsConfig":
        sources = ("views", "azimuths_deg", "from_slots", "from_sample")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say what the views are; keep one")
        if self.elevation == "cameras" and given not in (["from_slots"], ["from_sample"]):
            raise ValueError("elevation cameras needs from_slots or from_sample; or give an angle")
        if self.from_sample is None and (self.reference_view, self.slot_order) != (
            "first",
            "counter_clockwise",
        ):
            raise ValueError("reference_view and slot_order belong to from_sample; remove them")
        return self
