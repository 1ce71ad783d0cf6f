"""How the demo mouse moves: a seeded walk around the arena with turns, pauses and rears, as poses over time.

The animal follows a closed loop. Everything about walking is a function of the distance travelled, so that
planted paws stay put to the last digit; everything else is a function of time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .animal import PELVIS, SHOULDER, SPINE, STANDING_HEIGHT_MM, STANDING_PITCHES, TAIL_JOINTS, MousePose
from .rig import ARENA_CENTER_MM

Array = NDArray[np.float64]

CYCLE_S = 2.4
"""Every cycle holds a walk, a stop with a rear or a sniff, and another walk."""

STOP_S = (0.70, 1.70)
"""Begin and end of the stop within a cycle."""

RAMP_S = 0.3
"""Duration of slowing down before and of speeding up after a stop."""

LENGTH_MM, TAIL_MM = 80.0, 82.0
STRIDE_MM = 58.0
STANCE = 0.62
"""Share of a stride that a paw spends on the floor."""

REARING_HEIGHT_MM = 28.0
REARING_PITCHES = np.radians((62.0, 74.0, 83.0, 78.0, 60.0, 36.0))

# Left fore, right fore, left hind, right hind: phase in the stride, station of the body that carries the paw,
# and where the middle of its step lies from there, forward and to the left (mm).
_PHASE = (0.0, 0.5, 0.55, 0.05)
_STATION = (SHOULDER, SHOULDER, PELVIS, PELVIS)
_OFFSET_MM = ((3.0, 7.5), (3.0, -7.5), (6.0, 12.0), (6.0, -12.0))

_GRID_HZ = 480


def poses(seed: int, times_s: Sequence[float] | Array) -> list[MousePose]:
    """The poses of one recording.

    Args:
        seed: Chooses the path, the speed and what happens at each stop. The same seed gives the same motion.
        times_s: Seconds since the start, at least 0, in any order.

    Raises:
        DataError: a time is negative.
    """
    times = np.asarray(times_s, float)
    if (times < 0).any():
        raise DataError(f"motion was asked for at {times.min()} s; the recording starts at 0 s.")
    path = _Path(seed)
    act = _act(seed, times)
    walked = act.distance
    pelvis = path.at(walked)
    headings = path.spine_headings(walked, SPINE)
    headings += np.cumsum(np.outer(act.look, (0, 0, 0.05, 0.2, 0.45, 0.3)), axis=1)
    pitches = STANDING_PITCHES + _ease(act.rear)[:, None] * (REARING_PITCHES - STANDING_PITCHES)
    pitches[:, 4:] += act.nod[:, None]
    height = STANDING_HEIGHT_MM + act.rear * (REARING_HEIGHT_MM - STANDING_HEIGHT_MM)
    height += 0.5 * np.sin(4 * np.pi * walked / STRIDE_MM)
    feet = np.stack([path.paw(i, walked, act.pace) for i in range(4)], axis=1)
    tail = path.tail_headings(walked) + act.swish[:, None] * np.linspace(0, 1, TAIL_JOINTS) ** 1.5
    return [
        MousePose(
            pelvis_mm=np.append(pelvis[i], height[i]),
            headings=headings[i],
            pitches=pitches[i],
            tail_headings=tail[i],
            feet_mm=feet[i],
            tuck=float(_ease(np.clip(1.6 * act.rear[i] - 0.1, 0, 1))),
        )
        for i in range(len(times))
    ]


class _Path:
    """A closed loop by distance travelled: a circle with random bulges, walked either way."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 1))
        angle = np.linspace(0, 2 * np.pi, 2049)
        shift = rng.uniform(0, 2 * np.pi, 3)
        radius = 40 * (1 + 0.20 * np.cos(2 * angle + shift[0]) + 0.07 * np.cos(3 * angle + shift[1]))
        turn = rng.choice((-1.0, 1.0))
        bearing = turn * angle + shift[2]
        self._points = (
            np.stack([radius * np.cos(bearing), radius * np.sin(bearing)], axis=1) + ARENA_CENTER_MM[:2]
        )
        step = np.diff(self._points, axis=0)
        self._along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(step, axis=1))])
        # Directions belong to the middles of the steps; one more step closes the period.
        self._middle = 0.5 * (self._along[1:] + self._along[:-1])
        self._direction = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
        self._lap_turn = 2 * np.pi * turn
        self._middle = np.append(self._middle, self._middle[0] + self._along[-1])
        self._direction = np.append(self._direction, self._direction[0] + self._lap_turn)

    def at(self, distance: Array) -> Array:
        """Position. [...] -> [..., 2]"""
        wrapped = np.mod(distance, self._along[-1])
        return np.stack([np.interp(wrapped, self._along, column) for column in self._points.T], axis=-1)

    def heading(self, distance: Array) -> Array:
        """Direction of travel, continuous over laps. [...] -> [...]"""
        lap, rest = np.divmod(distance - self._middle[0], self._along[-1])
        return np.interp(rest + self._middle[0], self._middle, self._direction) + lap * self._lap_turn

    def spine_headings(self, distance: Array, stations: Array) -> Array:
        """The body bends less than the path and sways with the stride. [T], [J] -> [T, J]"""
        here = self.heading(distance)[:, None]
        ahead = self.heading(distance[:, None] + LENGTH_MM * (stations - PELVIS))
        sway = np.radians(5) * np.cos(2 * np.pi * (distance[:, None] / STRIDE_MM - 0.4 * stations))
        return here + 0.5 * (ahead - here) + sway

    def tail_headings(self, distance: Array) -> Array:
        """The tail trails along the path walked, waving with the stride. [T] -> [T, TAIL_JOINTS]"""
        root = self.spine_headings(distance, np.zeros(1))
        behind = np.linspace(0, 1, TAIL_JOINTS)
        start = distance[:, None] - LENGTH_MM * PELVIS
        trail = self.heading(start - TAIL_MM * behind) - self.heading(start)
        wave = np.radians(16) * behind * np.sin(2 * np.pi * (distance[:, None] / STRIDE_MM + 0.8 * behind))
        return root + 0.8 * trail + wave

    def paw(self, index: int, distance: Array, pace: Array) -> Array:
        """Sole of a paw: still during stance, then carried to the next step. [T] -> [T, 3]"""
        stride = distance / STRIDE_MM + _PHASE[index]
        number = np.floor(stride)
        swing = np.clip((stride - number - STANCE) / (1 - STANCE), 0, 1)
        carried = _ease(swing)
        here, there = (self._step(index, number + ahead) for ahead in (0, 1))
        ground = here + carried[:, None] * (there - here)
        lift = 4.0 * np.sin(np.pi * swing) ** 2 * pace
        return np.column_stack([ground, lift])

    def _step(self, index: int, number: Array) -> Array:
        """Where a paw stands: under the body as it is in the middle of the stance. [T] -> [T, 2]"""
        distance = (number - _PHASE[index] + 0.5 * STANCE) * STRIDE_MM
        stations = np.linspace(PELVIS, _STATION[index], 9)
        headings = self.spine_headings(distance, stations)
        direction = np.stack([np.cos(headings), np.sin(headings)], axis=-1)
        reach = LENGTH_MM * (_STATION[index] - PELVIS)
        forward = direction[:, -1]
        left = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
        ahead, aside = _OFFSET_MM[index]
        return self.at(distance) + reach * direction.mean(axis=1) + ahead * forward + aside * left


@dataclass(frozen=True, eq=False)
class _Act:
    """What the animal does at each of T times.

    Attributes:
        distance: Walked so far, mm. [T]
        pace: Speed as a share of full speed. [T]
        rear: 0 on all fours, 1 upright. [T]
        look: Head turn, rad. [T]
        nod: Head lift, rad. [T]
        swish: Sideways turn of the tail's tip, rad. [T]
    """

    distance: Array
    pace: Array
    rear: Array
    look: Array
    nod: Array
    swish: Array


def _act(seed: int, times: Array) -> _Act:
    count = int(np.ceil(times.max(initial=0.0) * _GRID_HZ)) + 2
    grid = np.arange(count) / _GRID_HZ
    cycles = [_cycle(seed, number) for number in range(int(grid[-1] // CYCLE_S) + 2)]
    # The speed changes in the middle of a stop, where it does not show.
    since_stop = (grid - 0.5 * sum(STOP_S)) / CYCLE_S
    speed = np.array([cycle.speed_mm_s for cycle in cycles])[np.floor(since_stop).astype(int) + 1]
    travelled = np.cumsum(speed * _pace(grid)) / _GRID_HZ
    number, phase = np.divmod(times, CYCLE_S)
    this = [cycles[int(n)] for n in number]
    upright = np.array([cycle.rear for cycle in this])
    sniff = np.array([cycle.sniff for cycle in this])
    begin, end = STOP_S
    standing = _ease(np.clip((phase - begin) / 0.4, 0, 1)) * _ease(np.clip((end - phase) / 0.4, 0, 1))
    clock = 2 * np.pi * times
    phases = np.random.default_rng((seed, 2)).uniform(0, 2 * np.pi, 3)
    return _Act(
        distance=np.interp(times, grid, travelled),
        pace=_pace(times),
        rear=standing * upright,
        look=np.radians(14) * np.sin(0.45 * clock + phases[0]) + standing * sniff * np.sin(1.3 * clock),
        nod=np.radians(6) * np.sin(0.8 * clock + phases[1]) + 0.3 * standing * (1 - upright),
        swish=np.radians(18) * np.sin(0.6 * clock + phases[2]),
    )


@dataclass(frozen=True)
class _Cycle:
    speed_mm_s: float
    rear: float
    sniff: float


def _cycle(seed: int, number: int) -> _Cycle:
    """What a cycle brings; the first always rears, so that a short recording has everything."""
    rng = np.random.default_rng((seed, 3, number))
    rears = number == 0 or rng.uniform() < 0.55
    return _Cycle(
        speed_mm_s=float(rng.uniform(95, 125)),
        rear=float(rng.uniform(0.9, 1.0)) if rears else 0.0,
        sniff=float(np.radians(rng.uniform(-10, 10) if rears else rng.choice((-1, 1)) * rng.uniform(20, 30))),
    )


def _pace(times: Array) -> Array:
    phase = np.mod(times, CYCLE_S)
    begin, end = STOP_S
    slowing = _ease(np.clip((begin - phase) / RAMP_S, 0, 1))
    return slowing + _ease(np.clip((phase - end) / RAMP_S, 0, 1))


def _ease(t: Array) -> Array:
    return t * t * (3 - 2 * t)
