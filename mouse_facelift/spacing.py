"""Some of many, evenly spread: what is looked at where looking at everything would take too long."""


def spread_evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices below `count`, evenly spread, the same ones every time."""
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]
