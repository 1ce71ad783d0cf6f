"""What a check says: how bad it is, what was found, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        subject: What was looked at, in a word or two.
        level: ok; warning: works, but slower or less safely than it could; problem: something will fail.
        found: What was found, one line.
        fix: What to do, one line; empty where nothing is to be done.
    """

    subject: str
    level: Level
    found: str
    fix: str = ""


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", found)


def warning(subject: str, found: str, fix: str) -> Finding:
    """Works, but not as well as it could."""
    return Finding(subject, "warning", found, fix)


def problem(subject: str, found: str, fix: str) -> Finding:
    """Something will fail."""
    return Finding(subject, "problem", found, fix)


def some(faults: Sequence[str], shown: int = 3) -> str:
    """The first few of many, in a line."""
    more = f"; and {len(faults) - shown} more" if len(faults) > shown else ""
    return "; ".join(" ".join(fault.split()) for fault in faults[:shown]) + more
