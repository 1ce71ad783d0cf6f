"""What a demo mouse is: its shape, one per animal, and its pose, one per moment. Numbers only, no surface."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]

SPINE = np.array((0.0, 0.18, 0.4, 0.62, 0.74, 1.0))
"""Stations of the centre line of trunk and head where a pose gives angles, rump 0 to nose 1."""

PELVIS, SHOULDER = 0.18, 0.57
"""Stations of the hips and the shoulders."""

TAIL_JOINTS = 12

STANDING_HEIGHT_MM = 17.5
STANDING_PITCHES = np.radians((38.0, 22.0, -4.0, -12.0, -14.0, -24.0))


@dataclass(frozen=True)
class MouseShape:
    """Proportions and coat of one animal; lengths in mm, colours sRGB in [0, 1].

    Attributes:
        length_mm: Rump to nose along the centre line.
        girth: Thickness of the trunk, 1 for the average.
        head: Thickness of the head, 1 for the average.
        ear_mm: Radius of an ear.
        tail_mm: Length of the tail.
        back: Colour of the back.
        flank: Colour of the flanks.
        belly: Colour of the belly.
        skin: Colour of ears, paws, tail and nose.
        coat_seed: Seed of the hair pattern.
    """

    length_mm: float = 80.0
    girth: float = 1.0
    head: float = 1.0
    ear_mm: float = 7.0
    tail_mm: float = 82.0
    back: Colour = (0.20, 0.14, 0.10)
    flank: Colour = (0.46, 0.32, 0.19)
    belly: Colour = (0.84, 0.77, 0.66)
    skin: Colour = (0.85, 0.60, 0.56)
    coat_seed: int = 0

    @classmethod
    def random(cls, rng: np.random.Generator) -> "MouseShape":
        """Draw an animal: sizes within a few per cent, coats from grey to sandy brown."""
        average = cls()
        warmth, depth = rng.uniform(0.0, 1.0), rng.uniform(0.75, 1.25)
        brown, grey = np.array((0.50, 0.33, 0.17)), np.array((0.36, 0.33, 0.30))
        flank = depth * (warmth * brown + (1 - warmth) * grey)
        return cls(
            length_mm=float(rng.uniform(77, 83)),
            girth=float(rng.uniform(0.94, 1.07)),
            head=float(rng.uniform(0.95, 1.06)),
            ear_mm=float(rng.uniform(6.2, 7.8)),
            tail_mm=float(rng.uniform(76, 86)),
            back=_colour(flank * rng.uniform(0.38, 0.55)),
            flank=_colour(flank),
            belly=_colour(np.array(average.belly) * rng.uniform(0.88, 1.05)),
            skin=_colour(np.array(average.skin) * rng.uniform(0.9, 1.06)),
            coat_seed=int(rng.integers(2**31)),
        )

    @classmethod
    def diverse(cls, rng: np.random.Generator) -> "MouseShape":
        """Draw an animal from a wider range: young to fat, coats from black to white in any warm shade."""
        average = cls()
        brightness, warmth = rng.uniform(0.08, 0.9), rng.uniform(0.0, 0.5)
        flank = brightness * np.array((1.0, 1 - 0.6 * warmth, 1 - 1.2 * warmth))
        belly = flank + rng.uniform(0.0, 1.0) * (np.array(average.belly) - flank).clip(0)
        return cls(
            length_mm=float(rng.uniform(64, 92)),
            girth=float(rng.uniform(0.82, 1.25)),
            head=float(rng.uniform(0.88, 1.12)),
            ear_mm=float(rng.uniform(5.2, 8.6)),
            tail_mm=float(rng.uniform(62, 96)),
            back=_colour(flank * rng.uniform(0.35, 1.0)),
            flank=_colour(flank),
            belly=_colour(belly),
            skin=_colour(np.array(average.skin) * rng.uniform(0.55, 1.1)),
            coat_seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True, eq=False)
class MousePose:
    """Where every joint is. World frame: Z up, floor at z = 0; lengths mm, angles rad.

    Attributes:
        pelvis_mm: The centre line's point between the hips. [3]
        headings: Direction of the centre line seen from above, counter-clockwise from +x, at `SPINE`. [6]
        pitches: Its rise above the horizontal, at `SPINE`. [6]
        tail_headings: Direction from the tail's tip towards its root, from the root to the tip. [TAIL_JOINTS]
        feet_mm: Soles of the left fore, right fore, left hind and right hind paw. [4, 3]
        tuck: 0: the forepaws are at `feet_mm`; 1: they hang before the chest.
    """

    pelvis_mm: Array
    headings: Array
    pitches: Array
    tail_headings: Array
    feet_mm: Array
    tuck: float = 0.0

    @classmethod
    def standing(cls, x_mm: float = 0.0, y_mm: float = 0.0, heading_rad: float = 0.0) -> "MousePose":
        """A mouse that stands still and straight, its pelvis above (x, y)."""
        feet = np.array([(33.0, 8, 0), (33, -8, 0), (6, 12, 0), (6, -12, 0)])
        cos, sin = np.cos(heading_rad), np.sin(heading_rad)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        return cls(
            pelvis_mm=np.array((x_mm, y_mm, STANDING_HEIGHT_MM)),
            headings=np.full(len(SPINE), heading_rad),
            pitches=STANDING_PITCHES.copy(),
            tail_headings=np.full(TAIL_JOINTS, heading_rad),
            feet_mm=feet @ turn + np.array((x_mm, y_mm, 0.0)),
        )


def _colour(rgb: Array) -> Colour:
    red, green, blue = np.clip(rgb, 0.0, 1.0)
    return float(red), float(green), float(blue)
