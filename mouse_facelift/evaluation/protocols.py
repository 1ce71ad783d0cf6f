"""Which views a method is shown, and at which cameras the result is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import DataError
from ..inference.config import ReconstructionConfig
from ..inference.inputs import Views
from .config import Protocol

ROLES: dict[Protocol, str] = {
    "reconstruction": "input",
    "leave-one-camera-out": "held_out",
    "single-view": "held_out",
    "novel": "novel",
}
"""What the measured cameras of a protocol are to the method; see `scores.Score`."""

NOT_FOR: dict[str, dict[Protocol, str]] = {
    "direct": {"single-view": "mode direct is shown several views; leave-one-camera-out measures it"},
    "e2e": {"leave-one-camera-out": "mode e2e is shown one view; single-view measures all others"},
}
"""Why a protocol does not fit a mode."""


@dataclass(frozen=True)
class Attempt:
    """One reconstruction and what it serves.

    Attributes:
        given: Camera ids that the method is given; mode e2e looks at the picture of one of them alone.
        left_out: The camera that leave-one-camera-out measures.
        protocols: What the result is measured for.
    """

    given: tuple[int, ...]
    protocols: tuple[Protocol, ...]
    left_out: int | None = None

    def measured(
        self, protocol: Protocol, shown_ids: Sequence[int], real: Sequence[int], further: Sequence[int]
    ) -> list[int]:
        """Camera ids to measure at.

        Args:
            protocol: One of `protocols`.
            shown_ids: Views that the method has looked at.
            real: The sample's cameras.
            further: Those of its truth.
        """
        if protocol == "reconstruction":
            return [view_id for view_id in real if view_id in shown_ids]
        if protocol == "novel":
            return list(further)
        if protocol == "single-view":
            return [view_id for view_id in real if view_id not in shown_ids]
        return [view_id for view_id in real if view_id == self.left_out]


def fitting(mode: str, protocols: Sequence[Protocol]) -> tuple[list[Protocol], list[str]]:
    """The protocols that fit a mode, and for each of the others why it does not."""
    unfit = NOT_FOR[mode]
    reasons = [f"{protocol}: {unfit[protocol]}" for protocol in protocols if protocol in unfit]
    return [protocol for protocol in protocols if protocol not in unfit], reasons


def attempts(
    method: ReconstructionConfig, protocols: Sequence[Protocol], view_ids: Sequence[int]
) -> Iterator[Attempt]:
    """The reconstructions of one sample that a method's protocols need, each made once.

    Args:
        method: Its `input_views` limit what is ever shown.
        protocols: Those that fit its mode.
        view_ids: The sample's cameras.

    Raises:
        DataError: a camera of `input_views` is missing, or fewer than two views would be left to show.
    """
    missing = [view_id for view_id in method.input_views or () if view_id not in view_ids]
    if missing:
        raise DataError(f"has views {list(view_ids)}, but input_views names {missing} too.")
    shown = tuple(method.input_views or view_ids)
    together = tuple(protocol for protocol in protocols if protocol != "leave-one-camera-out")
    if together:
        yield Attempt(shown, together)
    if "leave-one-camera-out" not in protocols:
        return
    for left_out in view_ids:
        others = tuple(view_id for view_id in shown if view_id != left_out)
        if len(others) < 2:
            raise DataError(
                f"leave-one-camera-out would show {len(others)} of the views {list(shown)}; it needs samples "
                "with at least three."
            )
        yield Attempt(others, ("leave-one-camera-out",), left_out)


def only(views: Views, view_ids: Sequence[int]) -> Views:
    """Some of the views, in this order, as if there were no others."""
    assert views.K is not None and views.w2c is not None
    at = [views.position(view_id) for view_id in view_ids]
    return Views(views.rgba[at], tuple(view_ids), views.K[at], views.w2c[at])
