"""The demo's closing table."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: The command.
        item: What was made or measured.
        value: The figure.
        place: Where it lies.
        seconds: Duration of the stage, in its first row.
    """

    stage: str
    item: str
    value: str
    place: Path
    seconds: float | None = None

    def lasting(self, seconds: float) -> "Row":
        """The same row with the stage's duration."""
        return replace(self, seconds=seconds)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"place": str(self.place)}


def show(rows: Sequence[Row], seconds: float, root: Path, page: Path) -> None:
    """Print the table and where the report lies on standard output; places are told relative to `root`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.ASCII2)
    for name in ("stage", "s", "what", "measured"):
        table.add_column(name, no_wrap=True)
    table.add_column(f"in {root}/", overflow="fold")
    before = ""
    for row in rows:
        if before and row.stage != before:
            table.add_section()
        time = "" if row.seconds is None else f"{row.seconds:.0f}"
        table.add_row(
            "" if row.stage == before else row.stage,
            time,
            row.item,
            row.value,
            os.path.relpath(row.place, root),
        )
        before = row.stage
    # A log file has no width to respect: nothing is folded there.
    console = Console(markup=False, width=None if sys.stdout.isatty() else 132)
    console.print(table)
    console.print(f"{seconds:.0f} seconds in all. Report, with a 3D view to turn: {page}", soft_wrap=True)
