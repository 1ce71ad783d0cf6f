"""How a process leaves a run of several."""

import pytest

from mouse_facelift.training import process


@pytest.mark.parametrize(("backend", "closed"), [("gloo", 1), ("nccl", 0), (None, 0)])
def test_a_failed_process_does_not_wait_for_the_others_at_its_end(
    monkeypatch: pytest.MonkeyPatch, backend: str | None, closed: int
) -> None:
    calls: list[str] = []

    class State:
        def __init__(self) -> None:
            self.backend = backend

        def destroy_process_group(self) -> None:
            calls.append("closed")

    monkeypatch.setattr(process, "PartialState", State)
    process._leave()
    assert len(calls) == closed
