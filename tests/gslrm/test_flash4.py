"""Long sequences by FlashAttention-4: when its kernel is taken, with its formulas in plain torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mouse_facelift.gslrm import attention as attention_module
from mouse_facelift.gslrm import flash4
from mouse_facelift.gslrm.attention import attention


def plain_kernel(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Heads behind tokens, as the package has them."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).transpose(1, 2), scores.logsumexp(-1)


def rows(length: int, seed: int) -> Tensor:
    return torch.randn(2, 3, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_attention_goes_to_the_kernel_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (rows(19, seed) for seed in range(3))
    expected = attention(q, k, v)
    asked: list[int] = []

    def kernel(*heads: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(heads[0].shape[1])
        return plain_kernel(*heads)

    monkeypatch.setattr(attention_module, "flash4_for", lambda *found: kernel)
    torch.testing.assert_close(attention(q, k, v), expected)
    assert asked == [19]


def test_no_kernel_is_looked_for_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash4, "_kernel", lambda device: pytest.fail("looked for"))
    assert flash4.flash4_for(torch.device("cpu"), torch.bfloat16, flash4.MIN_TOKENS, 64) is None


@pytest.mark.parametrize(
    ("dtype", "tokens", "width"),
    [(torch.float32, 9000, 64), (torch.bfloat16, 8191, 64), (torch.bfloat16, 9000, 16)],
)
def test_none_suits_full_precision_short_sequences_or_narrow_heads(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tokens: int, width: int
) -> None:
    monkeypatch.setattr(flash4, "_kernel", lambda device: plain_kernel)
    cuda = torch.device("cuda", 0)
    assert flash4.flash4_for(cuda, torch.bfloat16, 8192, 64) is plain_kernel
    assert flash4.flash4_for(cuda, dtype, tokens, width) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernel_agrees_with_torch_at_full_length() -> None:
    pytest.importorskip("flash_attn.cute", reason="the extra flash4 is not installed")
    length = flash4.MIN_TOKENS + 2
    real = [torch.randn(1, 2, length, 64, device="cuda") * 0.7 for _ in range(3)]
    exact, half = ([x.to(dtype).requires_grad_() for x in real] for dtype in (torch.float32, torch.bfloat16))
    kernel = flash4.flash4_for(real[0].device, torch.bfloat16, length, 64)
    assert kernel is not None
    expected, found = F.scaled_dot_product_attention(*exact), flash4.attend(kernel, *half)
    expected.sum().backward()
    found.float().sum().backward()
    assert (found - expected).norm() < 1e-2 * expected.norm()
    for x, y in zip(half, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        assert (x.grad - y.grad).norm() < 2e-2 * y.grad.norm()
