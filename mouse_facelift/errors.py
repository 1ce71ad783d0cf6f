"""The errors a user can cause; each message says what was found, what was expected, where, what to do."""


class MflError(Exception):
    """Base of all expected errors. The CLI prints the message and exits with code 2."""


class ConfigError(MflError):
    """A configuration file or an override is wrong: unknown key, bad value, missing path."""


class DataError(MflError):
    """A recording, sample, list or image cannot be used as it is."""


class CalibrationError(DataError):
    """Cameras are missing, malformed or implausible."""


class CheckpointError(MflError):
    """Weights are missing, incomplete or belong to another model."""


class DependencyError(MflError):
    """A library or device that the request needs is not available."""
