"""Progress of long work: rate and time left. Silent unless the CLI has set a console."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Item = TypeVar("Item")

console: "Console | None" = None
"""Where progress is shown: a terminal, set once by the CLI."""


class Bar:
    """One line of progress. A silent one counts nothing and shows nothing."""

    def __init__(self, display: "Progress | None", description: str, total: int | None) -> None:
        self._display = display
        self._task = display.add_task(description, total=total, rate="", note="") if display else None

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` and show `note` (a loss, a file name) at the end of the line."""
        if self._display is None or self._task is None:
            return
        self._display.advance(self._task, steps)
        speed = self._display.tasks[0].speed
        rate = f"{speed:.2f}/s" if speed else ""
        self._display.update(self._task, rate=rate, note=note)


@contextmanager
def bar(description: str, total: int | None = None) -> Iterator[Bar]:
    """Show a progress line for the duration of a block."""
    if console is None:
        yield Bar(None, description, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as display:
        yield Bar(display, description, total)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, counting them on a progress line."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(description, total) as line:
        for item in items:
            yield item
            line.advance()
