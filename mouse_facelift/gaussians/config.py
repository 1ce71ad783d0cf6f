"""Which Gaussians to keep."""

from pydantic import Field, field_validator

from ..config import Config

PUBLISHED_BOX = (0.91, 0.91, 1.0)
"""Half sizes in model units of the box around the origin that FaceLift keeps at inference."""


class FilterConfig(Config):
    """Clean-up of a predicted scene before it is written. The defaults are FaceLift's at inference.

    Lengths are in model units; null switches a rule off.
    """

    min_opacity: float = Field(
        0.04, ge=0, lt=1, description="Gaussians this transparent or more are dropped."
    )
    max_scale: float | None = Field(
        0.1,
        gt=0,
        description="Gaussians with z <= 0 and a standard deviation this long or longer are dropped.",
    )
    floater_distance: float | None = Field(
        0.6,
        gt=0,
        description="Gaussians further than this from the origin in x, in y and downwards are dropped.",
    )
    box: tuple[float, float, float] | None = Field(
        PUBLISHED_BOX,
        description="Half sizes of the box around the origin that is kept.",
    )

    @field_validator("box")
    @classmethod
    def _positive(cls, box: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if box is not None and min(box) <= 0:
            raise ValueError("every half size should be greater than 0")
        return box
