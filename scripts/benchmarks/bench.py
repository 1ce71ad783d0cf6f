"""What the benchmarks of networks share: where they run, how large, and a clock."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Bench:
    """What is measured, and how.

    Attributes:
        device: Where.
        tiny: Small networks and single runs, to see that everything works.
        quick: Fewer cases.
        tune: Also the case in which many kernels per layer are tried.
    """

    device: torch.device
    tiny: bool = False
    quick: bool = False
    tune: bool = False

    @property
    def half(self) -> torch.dtype:
        """Of the published MVDiffusion."""
        return torch.float32 if self.device.type == "cpu" else torch.float16

    @property
    def size(self) -> int:
        """Side of the pictures."""
        return 32 if self.tiny else 512

    @property
    def compiles(self) -> bool:
        """Whether compiled cases are measured."""
        return not self.tiny

    @property
    def name(self) -> str:
        """Of the device."""
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"

    def timed(self, run: Callable[[], object]) -> tuple[float, float]:
        """Median milliseconds, and the most memory that was allocated, in GB."""
        for _ in range(1 if self.tiny else 3):
            run()
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(1 if self.tiny else 7):
            start = time.perf_counter()
            run()
            self._wait()
            times.append(1e3 * (time.perf_counter() - start))
        most = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return statistics.median(times), most / 1e9

    def matmul_peak(self, dtype: torch.dtype) -> float:
        """FLOP/s of a large product."""
        side = 256 if self.tiny else 8192
        a = torch.randn(side, side, device=self.device, dtype=dtype)
        ms, _ = self.timed(lambda: a @ a)
        return 2 * side**3 / (ms / 1e3)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
