"""Which views a view attends to."""

import copy

import pytest
import torch
from diffusers.models.attention_processor import Attention

from mouse_facelift.attention_kernels import preferred_attention
from mouse_facelift.mvdiffusion.attention import AttentionMode, MultiViewAttnProcessor


def attend(tokens: torch.Tensor, views: int, mode: AttentionMode) -> torch.Tensor:
    torch.manual_seed(0)
    attention = Attention(query_dim=16, heads=2, dim_head=8, processor=MultiViewAttnProcessor(views, mode))
    with torch.no_grad():
        return attention(tokens)


def changed_views(mode: AttentionMode, touched: int) -> list[bool]:
    """Two objects of three views; which outputs change when one view's tokens do."""
    tokens = torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[touched] += 1
    before, after = attend(tokens, 3, mode), attend(other, 3, mode)
    return [not torch.allclose(a, b, atol=1e-6) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("mode", "touched", "expected"),
    [
        ("sparse", 0, [True, True, True, False, False, False]),
        ("sparse", 1, [False, True, False, False, False, False]),
        ("sparse", 5, [False, False, False, False, False, True]),
        ("dense", 1, [True, True, True, False, False, False]),
        ("none", 0, [True, False, False, False, False, False]),
    ],
)
def test_information_flows_between_views_of_one_object_only(
    mode: AttentionMode, touched: int, expected: list[bool]
) -> None:
    assert changed_views(mode, touched) == expected


def test_reference_view_seeing_itself_twice_is_plain_self_attention() -> None:
    tokens = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(attend(tokens, 3, "sparse")[0], attend(tokens, 3, "none")[0])


def test_batch_that_is_no_multiple_of_the_views_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 5 is not a multiple of 3"):
        attend(torch.zeros(5, 4, 16), 3, "sparse")


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="row"):
        MultiViewAttnProcessor(6, "row")


def published(attention: Attention, tokens: torch.Tensor, views: int, mode: AttentionMode) -> torch.Tensor:
    """Every view gets a set of keys of its own, view 0 its tokens twice."""
    heads = []
    for project in (attention.to_q, attention.to_k, attention.to_v):
        x = project(tokens).unflatten(0, (-1, views))
        if project is not attention.to_q and mode == "sparse":
            x = torch.cat([x[:, :1].expand_as(x), x], dim=2)
        if project is not attention.to_q and mode == "dense":
            x = x.flatten(1, 2)[:, None].expand(-1, views, -1, -1)
        heads.append(x.flatten(0, 1).unflatten(-1, (attention.heads, -1)).transpose(1, 2))
    query, key, value = heads
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return attention.to_out[0]((weights @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("views", [1, 2, 4, 6])
@pytest.mark.parametrize("mode", ["sparse", "dense", "none"])
def test_every_way_to_compute_it_equals_the_published_one(
    mode: AttentionMode, views: int, fuse: bool
) -> None:
    torch.manual_seed(0)
    processor = MultiViewAttnProcessor(views, mode)
    attention = Attention(query_dim=32, heads=2, dim_head=16, processor=processor)
    tokens = torch.randn(2 * views, 10, 32)
    with torch.no_grad():
        expected = published(attention, tokens, views, mode)
        if fuse:
            attention.fuse_projections()
        torch.testing.assert_close(attention(tokens), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_gradients_are_those_of_the_published_attention(mode: AttentionMode) -> None:
    torch.manual_seed(0)
    processor = MultiViewAttnProcessor(3, mode)
    attention = Attention(query_dim=32, heads=2, dim_head=16, processor=processor)
    tokens = torch.randn(6, 10, 32, requires_grad=True)
    weights = torch.randn(6, 10, 32)
    found, expected = (
        torch.autograd.grad((out * weights).sum(), [tokens, *attention.parameters()])
        for out in (attention(tokens), published(attention, tokens, 3, mode))
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_kernels_agree_with_full_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    processor = MultiViewAttnProcessor(6, "sparse")
    attention = Attention(query_dim=128, heads=2, dim_head=64, processor=processor).to("cuda", dtype)
    tokens = torch.randn(12, 1024, 128, device="cuda", dtype=dtype)
    with torch.no_grad():
        with preferred_attention(tokens.device):
            found = attention(tokens)
        exact = copy.deepcopy(attention).double()
        expected = published(exact, tokens.double(), 6, "sparse")
    assert (found - expected).abs().max() < 8 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_half_precision_gradients_of_the_preferred_kernels(mode: AttentionMode) -> None:
    torch.manual_seed(0)
    processor = MultiViewAttnProcessor(6, mode)
    attention = Attention(query_dim=128, heads=2, dim_head=64, processor=processor).to("cuda")
    tokens = torch.randn(12, 256, 128, device="cuda", requires_grad=True)
    with preferred_attention(tokens.device), torch.autocast("cuda", torch.bfloat16):
        found = attention(tokens)
    (gradient,) = torch.autograd.grad(found.float().square().sum(), tokens)
    exact = published(attention, tokens, 6, mode)
    (expected,) = torch.autograd.grad(exact.square().sum(), tokens)
    assert (gradient - expected).norm() < 0.05 * expected.norm()
