"""A job array's share of the work."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` processes that share a run, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `i/n`.

        Raises:
            ConfigError: it is not of that form, or i is not in 1 to n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.index <= shard.count:
            raise ConfigError(f"--shard {text}: expected i/n with i from 1 to n, such as 1/8 to 8/8.")
        return shard

    @property
    def name(self) -> str:
        """A file name for what this process alone writes."""
        return f"shard_{self.index}_of_{self.count}"

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This shard's contiguous part of `items`; all parts together are all items."""
        total = len(items)
        return items[total * (self.index - 1) // self.count : total * self.index // self.count]


SINGLE = Shard()
"""The only process of its run."""
