"""Durations, sizes and counts as people read them."""

UNITS_S = (("d", 86400), ("h", 3600), ("min", 60))


def duration(seconds: float) -> str:
    """Such as `3 d 4 h`, `2 h 5 min`, `40 s`, `0.32 s`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    seconds = round(seconds)
    for number, (unit, size) in enumerate(UNITS_S):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            if number + 1 == len(UNITS_S):
                return f"{whole} {unit}"
            smaller, smaller_size = UNITS_S[number + 1]
            return f"{whole} {unit} {rest // smaller_size} {smaller}"
    return f"{seconds} s"


def data_size(count: float) -> str:
    """Such as `480 kB`, `12 MB`, `1.3 GB`."""
    for unit in ("B", "kB", "MB"):
        if round(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def gigabytes(size: float) -> str:
    """Decimal, as disks are sold: `1.29 GB`."""
    return f"{size / 1e9:.2f} GB"


def several(count: int, noun: str) -> str:
    """Such as `1 step`, `4 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
