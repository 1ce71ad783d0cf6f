"""The transformer as a CUDA graph per number of tokens: for a few thousand, launches cost more than work."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_TOKENS = 8192
"""In longer sequences the GPU is busy enough."""
MAX_GRAPHS = 8
"""Numbers of tokens that are kept; each holds its buffers."""
WARM_UP = 3

Blocks = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    before: Tensor
    after: Tensor


class GraphedBlocks:
    """Records blocks once per shape and precision, then replays; parameters must stay where they are."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()

    def suits(self, x: Tensor) -> bool:
        """Whether a graph can and should stand in for `x` [B, L, C]."""
        return (
            x.device.type == "cuda"
            and x.shape[0] * x.shape[1] <= MAX_TOKENS
            and not torch.is_grad_enabled()
            and not torch.cuda.is_current_stream_capturing()
        )

    def __call__(self, blocks: Blocks, x: Tensor) -> Tensor:
        """The same as `blocks(x)`; the result is the caller's own. [B, L, C] -> [B, L, C]"""
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = tuple(x.shape), x.dtype, x.device, precision
        if key not in self._graphs:
            self._graphs[key] = _record(blocks, x)
            if len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        recorded = self._graphs[key]
        recorded.before.copy_(x)
        recorded.graph.replay()
        return recorded.after.clone()


def _record(blocks: Blocks, x: Tensor) -> _Graph:
    """Record with autocast's cache off: its copies of the weights go with the caller's autocast block."""
    caches = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        return _capture(blocks, x)
    finally:
        torch.set_autocast_cache_enabled(caches)


def _capture(blocks: Blocks, x: Tensor) -> _Graph:
    before = x.clone()
    side = torch.cuda.Stream(x.device)
    side.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            blocks(before)
    torch.cuda.current_stream(x.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        after = blocks(before)
    return _Graph(graph, before, after)
