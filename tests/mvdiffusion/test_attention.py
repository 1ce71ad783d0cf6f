"""Which views a view attends to."""

import pytest
import torch
from diffusers.models.attention_processor import Attention

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
