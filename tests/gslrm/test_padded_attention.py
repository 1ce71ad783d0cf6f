"""Padded attention and recorded graphs: the same numbers as without."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mouse_facelift.gslrm.attention import attention, padding_for
from mouse_facelift.gslrm.config import GSLRMConfig
from mouse_facelift.gslrm.graphs import GraphedBlocks
from mouse_facelift.gslrm.model import GSLRM

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_nothing_is_padded_on_a_cpu() -> None:
    assert padding_for(torch.zeros(1, 130, 8), 8) == 0


def test_zero_keys_leave_the_softmax_by_their_count() -> None:
    """The identity that padding rests on, in double precision."""
    q, k, v = (torch.randn(1, 2, 50, 16, dtype=torch.float64) for _ in range(3))
    pad = 14
    scores = q @ F.pad(k, (0, 0, 0, pad)).mT / 4
    logsumexp = scores.logsumexp(-1, keepdim=True)
    padded = scores.softmax(-1) @ F.pad(v, (0, 0, 0, pad))
    torch.testing.assert_close(padded / (1 - pad * torch.exp(-logsumexp)), attention(q, k, v))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize(("length", "padding"), [(1026, 126), (2498, 62)])
def test_padded_attention_and_its_gradients_are_those_of_the_real_rows(length: int, padding: int) -> None:
    real = [torch.randn(1, 4, length, 64, device="cuda", dtype=torch.float64) * 0.7 for _ in range(3)]
    upstream = torch.randn(1, 4, length, 64, device="cuda", dtype=torch.float64)
    exact = [x.clone().requires_grad_() for x in real]
    expected = attention(*exact)
    expected.backward(upstream)
    padded = [F.pad(x.bfloat16(), (0, 0, 0, padding)).requires_grad_() for x in real]
    found = attention(*padded, padding)
    found.backward(F.pad(upstream.bfloat16(), (0, 0, 0, padding)))
    assert relative(found[:, :, :length].detach(), expected.detach()) < 6e-3
    assert not found[:, :, length:].any()
    for x, y in zip(padded, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        assert relative(x.grad[:, :, :length], y.grad) < 6e-3
        assert not x.grad[:, :, length:].any()


@pytest.mark.gpu
@on_gpu
def test_graph_outlives_the_autocast_block_it_was_recorded_in() -> None:
    """Weights that autocast has cached go with its block: a graph must not read them."""
    model = GSLRM(GSLRMConfig(width=128, layers=3)).cuda().eval()
    graphs = GraphedBlocks()
    for seed in range(4):
        x = torch.randn(1, 256, 128, device="cuda", generator=torch.Generator("cuda").manual_seed(seed))
        with torch.no_grad(), torch.autocast("cuda", torch.float16):
            found = graphs(model._blocks, x, 0)
        # Take the memory that the block gave back, and spoil it.
        spoilers = [torch.full((256, 1024), torch.nan, device="cuda", dtype=torch.float16) for _ in range(64)]
        with torch.no_grad(), torch.autocast("cuda", torch.float16):
            assert torch.equal(found, model._blocks(x, 0))
        del spoilers
