"""The errors a user can cause; each message says what was found, what was expected, where, what to do."""

import signal


class MflError(Exception):
    """Base of all expected errors. The CLI prints the message and exits with code 2."""


class ConfigError(MflError):
    """A configuration file or an override is wrong: unknown key, bad value, missing path."""


class DataError(MflError):
    """A recording, sample, list or image cannot be used as it is."""


class DivergedError(DataError):
    """Too many steps of a training had a loss or a gradient that is not fit for an update."""


class CalibrationError(DataError):
    """Cameras are missing, malformed or implausible."""


class CheckpointError(MflError):
    """Weights are missing, incomplete or belong to another model."""


class DependencyError(MflError):
    """A library or device that the request needs is not available."""


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, a cluster's or a container's end, a scheduler's warning: requests to end."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, else 143: a scheduler's warning (SIGUSR1) ends a process as SIGTERM does."""
        return 128 + (signal.SIGINT if self.number == signal.SIGINT else signal.SIGTERM)
