"""The parts of the demo mouse, each a swept tube: how long, how thick and where, for a shape in a pose.

Lengths are mm. Trunk and head are one tube along the spine; the other parts hold on to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .animal import PELVIS, SHOULDER, SPINE, TAIL_JOINTS, MousePose, MouseShape
from .sweep import (
    Array,
    Curve,
    columns_at,
    ellipses,
    framed,
    integral,
    profile,
    rounded,
    sweep,
    two_bones,
    unit,
)


@dataclass(frozen=True)
class Kind:
    """A kind of part: which paint it takes, and the resolution of its tube."""

    paint: str
    rings: int
    segments: int


BODY, TAIL = Kind("body", 80, 48), Kind("tail", 56, 12)
EAR, EYE = Kind("ear", 16, 16), Kind("eye", 9, 12)
FORELEG, HINDLEG, TOE = Kind("foreleg", 26, 14), Kind("hindleg", 26, 14), Kind("toe", 6, 6)

LEGS = {"left_foreleg": FORELEG, "right_foreleg": FORELEG, "left_hindleg": HINDLEG, "right_hindleg": HINDLEG}
TOES = 4
PARTS: Mapping[str, Kind] = {
    "body": BODY,
    "tail": TAIL,
    "left_ear": EAR,
    "right_ear": EAR,
    "left_eye": EYE,
    "right_eye": EYE,
    **LEGS,
    **{f"{leg}_toe_{toe}": TOE for leg in LEGS for toe in range(TOES)},
}
"""All parts in the order of the mesh's vertices."""

# Outline of an average trunk and head: station, half-width, height above and depth below the centre line.
_STATION = (0.0, 0.05, 0.12, 0.22, 0.34, 0.46, 0.57, 0.65, 0.72, 0.79, 0.86, 0.93, 0.975, 1.0)
_WIDTH = (3.0, 8.0, 12.5, 15.6, 15.8, 14.0, 12.0, 10.2, 10.2, 9.6, 7.4, 5.0, 3.0, 2.0)
_HEIGHT = (3.0, 7.5, 11.0, 13.2, 13.8, 12.6, 10.8, 9.4, 9.6, 9.0, 7.2, 5.0, 3.1, 2.0)
_DEPTH = (3.0, 7.0, 11.0, 13.6, 14.2, 13.2, 11.6, 9.6, 8.6, 7.6, 6.0, 4.4, 3.0, 2.0)
_CAP = 0.022
"""Share of the length over which rump and nose round off."""


def surfaces(shape: MouseShape, pose: MousePose) -> Iterator[Array]:
    """Yield the vertex grid of every part, in the order of `PARTS`. [rings, segments + 1, 3]"""
    body = _Body(shape, pose)
    width, height, depth = body.outline.T
    yield sweep(body.curve, ellipses(width, height, depth, BODY.segments))
    yield _tail(body, shape, pose)
    yield from (_ear(body, shape, sign) for sign in (1, -1))
    yield from (_eye(body, sign) for sign in (1, -1))
    limbs = [
        _foreleg(body, pose, 0),
        _foreleg(body, pose, 1),
        _hindleg(body, pose, 2),
        _hindleg(body, pose, 3),
    ]
    yield from (surface for surface, _ in limbs)
    for _, toes in limbs:
        yield from toes


@dataclass(frozen=True, eq=False)
class _Anchor:
    """A place on the centre line: its frame, and the outline there."""

    point: Array
    forward: Array
    side: Array
    up: Array
    width: float
    height: float
    depth: float

    def at(self, forward: float, side: float, up: float) -> Array:
        """The point this far from here along the frame's axes, mm. [3]"""
        return self.point + forward * self.forward + side * self.side + up * self.up

    def towards(self, forward: float, side: float, up: float) -> Array:
        """Unit direction in the frame. [3]"""
        return unit(forward * self.forward + side * self.side + up * self.up)


class _Body:
    """Trunk and head: the framed centre line and the outline around it."""

    def __init__(self, shape: MouseShape, pose: MousePose) -> None:
        even = np.linspace(0, 1, BODY.rings)
        # Rings are denser where the ends round off.
        self.stations = 0.65 * even + 0.35 * (0.5 - 0.5 * np.cos(np.pi * even))
        heading = np.interp(self.stations, SPINE, pose.headings)
        self.pitch = np.interp(self.stations, SPINE, pose.pitches)
        level = np.cos(self.pitch)
        forward = np.stack([level * np.cos(heading), level * np.sin(heading), np.sin(self.pitch)], axis=1)
        side = np.stack([-np.sin(heading), np.cos(heading), np.zeros_like(heading)], axis=1)
        points = integral(forward, self.stations * shape.length_mm)
        points += pose.pelvis_mm - columns_at(np.array([PELVIS]), self.stations, points)
        self.curve = Curve(points, side, np.cross(forward, side))
        thickness = np.interp(self.stations, (0.6, 0.72), (shape.girth, shape.head))
        from_end = np.minimum(np.minimum(self.stations, 1 - self.stations) / _CAP, 1.0)
        cap = np.sqrt(1 - (1 - from_end) ** 2)
        outline = [profile(self.stations, _STATION, values) for values in (_WIDTH, _HEIGHT, _DEPTH)]
        self.outline = np.stack(outline, axis=1) * (thickness * cap)[:, None]

    def anchor(self, station: float) -> _Anchor:
        curve = self.curve
        columns = np.concatenate([curve.points, curve.forward, curve.side, curve.up, self.outline], axis=1)
        values = columns_at(np.array([station]), self.stations, columns)[0]
        point, forward, side, up = values[:12].reshape(4, 3)
        width, height, depth = values[12:].tolist()
        return _Anchor(point, unit(forward), unit(side), unit(up), width, height, depth)


def _tail(body: _Body, shape: MouseShape, pose: MousePose) -> Array:
    distance = np.linspace(0, shape.tail_mm, TAIL.rings)
    share = distance / shape.tail_mm
    radius = profile(share, (0, 0.08, 0.3, 0.7, 1), (3.0, 2.3, 1.75, 1.15, 0.6))
    root = body.anchor(0.01).point
    height = _tail_height(distance, float(root[2]), float(np.sin(body.pitch[0])), radius)
    heading = np.interp(share, np.linspace(0, 1, TAIL_JOINTS), pose.tail_headings)
    level = np.sqrt(np.maximum(1 - np.gradient(height, distance) ** 2, 0.05))
    plan = root[:2] - integral(
        level[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1), distance
    )
    points = np.column_stack([plan, height])
    side = np.stack([np.sin(heading), -np.cos(heading), np.zeros_like(heading)], axis=1)
    curve = Curve(points, side, np.cross(unit(np.gradient(points, axis=0)), side))
    radius *= np.sqrt(1 - np.clip((share - 0.985) / 0.015, 0, 1) ** 2)
    radius[0] = 0.0
    return sweep(curve, ellipses(radius, radius, radius, TAIL.segments))


def _tail_height(distance: Array, start: float, slope: float, radius: Array) -> Array:
    """Height of the tail's centre line: leaves the rump with its slope and comes down to the floor. [R]"""
    landing = max(26.0, 1.5 * start)
    t = np.minimum(distance / landing, 1.0)
    fall = start * (1 + 2 * t) * (1 - t) ** 2 - min(slope, 0.9) * landing * t * (1 - t) ** 2
    return np.maximum(fall + radius * t**2 * (3 - 2 * t), 0.8 * radius)


def _ear(body: _Body, shape: MouseShape, sign: int) -> Array:
    head = body.anchor(0.735)
    base = head.at(0, sign * 0.66 * head.width, 0.62 * head.height)
    axis = head.towards(-0.30, sign * 0.62, 0.72)
    face = head.towards(0.80, sign * 0.55, -0.1)
    face = unit(face - (face @ axis) * axis)
    t = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, EAR.rings))
    radius = shape.ear_mm
    curve = framed(base + (radius * (2.1 * t - 0.25))[:, None] * axis, np.cross(face, axis))
    disc = radius * np.sqrt(np.clip(1 - (2 * t - 1) ** 2, 0, 1)) * (0.72 + 0.28 * t)
    thickness = 0.5 * np.minimum(disc / (0.4 * radius), 1.0)
    sections = ellipses(disc, thickness, thickness, EAR.segments)
    # A shallow bowl, open to the front.
    sections[..., 1] += 0.045 * sections[..., 0] ** 2 + 0.035 * ((2 * t - 1)[:, None] * radius) ** 2
    return sweep(curve, sections)


def _eye(body: _Body, sign: int) -> Array:
    head = body.anchor(0.845)
    centre = head.at(0, sign * 0.80 * head.width, 0.50 * head.height)
    angle = np.linspace(0, np.pi, EYE.rings)
    radius = 1.7 * np.sin(angle)
    curve = framed(centre - 1.9 * np.cos(angle)[:, None] * head.forward, head.side)
    return sweep(curve, ellipses(radius, radius, radius, EYE.segments))


def _foreleg(body: _Body, pose: MousePose, index: int) -> tuple[Array, list[Array]]:
    """The leg's surface and its toes; one that is tucked hangs before the chest."""
    chest = body.anchor(SHOULDER)
    sign = 1 - 2 * (index % 2)
    tucked = chest.at(4.0, sign * 0.40 * chest.width, -1.35 * chest.depth)
    sole = (1 - pose.tuck) * pose.feet_mm[index] + pose.tuck * tucked
    lift = float(np.clip(sole[2] / 10.0, 0.0, 0.6)) * (1 - pose.tuck)
    toward = _pointing(chest.forward, lift)
    toward = unit((1 - pose.tuck) * toward + pose.tuck * chest.towards(-0.45, 0, -0.9))
    wrist = sole - 2.5 * toward + _above(3.1)
    root = chest.at(0, sign * 0.62 * chest.width, -0.25 * chest.depth)
    backward = -np.cross(unit(wrist - root), chest.side)
    elbow = two_bones(root, wrist, 11.5, 11.5, backward + 0.35 * sign * chest.side)
    inner = root - 4.0 * unit(elbow - root) - sign * 0.27 * chest.width * chest.side
    paw = sole + _above(1.3)
    ball, tip = paw + 0.5 * toward, paw + 3.2 * toward
    bones = np.stack([inner, root, elbow, wrist, ball, tip])
    wide, deep = (5.5, 5.0, 3.4, 1.9, 2.4, 1.8), (7.5, 6.5, 4.0, 1.8, 1.3, 1.1)
    toes = _toes(ball, toward, chest.side, 3.4)
    return _limb(FORELEG, np.column_stack([bones, wide, deep]), chest.side), toes


def _hindleg(body: _Body, pose: MousePose, index: int) -> tuple[Array, list[Array]]:
    """The leg's surface and its toes."""
    hips = body.anchor(PELVIS)
    sign = 1 - 2 * (index % 2)
    sole = pose.feet_mm[index]
    lift = float(np.clip(sole[2] / 12.0, 0.0, 0.6))
    toward = _pointing(unit(hips.forward * (1, 1, 0)) + 0.18 * sign * hips.side, lift)
    heel = sole - 9.0 * toward + _above(3.0 + 2.0 * lift)
    root = hips.at(0, sign * 0.55 * hips.width, -0.10 * hips.depth)
    # Square to the leg within the animal's upright plane, so that the knee never swings out sideways.
    forward = np.cross(unit(heel - root), hips.side)
    knee = two_bones(root, heel, 14.0, 15.0, forward + 0.30 * sign * hips.side)
    inner = root - 4.0 * unit(knee - root) - sign * 0.30 * hips.width * hips.side
    paw = sole + _above(1.4)
    ball, tip = paw + 2.0 * toward, paw + 5.0 * toward
    bones = np.stack([inner, root, knee, heel, 0.5 * (heel + ball), ball, tip])
    wide, deep = (5.5, 7.0, 5.2, 2.0, 1.9, 2.7, 2.0), (10.5, 11.5, 6.5, 2.2, 1.6, 1.4, 1.2)
    toes = _toes(ball, toward, hips.side, 5.0)
    return _limb(HINDLEG, np.column_stack([bones, wide, deep]), hips.side), toes


def _pointing(forward: Array, lift: float) -> Array:
    """Direction of a paw: level on the floor, toes down when lifted. [3]"""
    return unit(unit(forward * (1, 1, 0)) - _above(lift))


def _above(height_mm: float) -> Array:
    return np.array((0.0, 0.0, height_mm))


def _limb(kind: Kind, bones: Array, side: Array) -> Array:
    """Skin a leg along its bones: point, half-width and half-depth at every joint. [P, 5] -> [R, S + 1, 3]"""
    line = rounded(bones, kind.rings)
    from_end = np.minimum(np.arange(kind.rings), np.arange(kind.rings)[::-1])
    wide, deep = line[:, 3:].T * np.sqrt(np.minimum(from_end / 2.0, 1.0))
    return sweep(framed(line[:, :3], side), ellipses(wide, deep, deep, kind.segments))


def _toes(ball: Array, toward: Array, side: Array, length: float) -> list[Array]:
    """Toes that fan out from the ball of a paw."""
    across = unit(side - (side @ toward) * toward)
    radius = np.array((0.0, 0.95, 0.9, 0.8, 0.6, 0.0))
    t = np.linspace(0, 1, TOE.rings)[:, None]
    toes = []
    for angle in np.radians(np.linspace(-38, 38, TOES)):
        ray = np.cos(angle) * toward + np.sin(angle) * across
        points = ball + 1.1 * np.sin(angle) * across + t * (length * ray - _above(0.5))
        toes.append(sweep(framed(points, side), ellipses(radius, radius, radius, TOE.segments)))
    return toes
