"""Long sequences by FlashAttention-4: what surrounds the kernel, with its formulas in plain torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mouse_facelift.gslrm import attention as attention_module
from mouse_facelift.gslrm import flash4
from mouse_facelift.gslrm.attention import attention


def plain_kernel(q: Tensor, k: Tensor, v: Tensor, return_lse: bool = False) -> tuple[Tensor, Tensor]:
    """Heads behind tokens, as the package has them."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).transpose(1, 2), scores.logsumexp(-1)


def rows(length: int, seed: int) -> Tensor:
    return torch.randn(2, 3, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("padding", [0, 1, 13])
def test_padded_rows_take_no_part_and_get_no_gradient(padding: int) -> None:
    exact = [rows(19, seed).requires_grad_() for seed in range(3)]
    padded = [F.pad(x.detach(), (0, 0, 0, padding)).requires_grad_() for x in exact]
    upstream = rows(19, 3)
    expected = F.scaled_dot_product_attention(*exact)
    expected.backward(upstream)
    found = flash4.attend(plain_kernel, *padded, padding)
    found.backward(F.pad(upstream, (0, 0, 0, padding)))
    torch.testing.assert_close(found[:, :, :19], expected)
    assert not found[:, :, 19:].any()
    for x, y in zip(padded, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        torch.testing.assert_close(x.grad[:, :, :19], y.grad)
        assert not x.grad[:, :, 19:].any()


def test_attention_goes_to_the_kernel_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    q = rows(19, 0)
    expected = attention(q, q, q)
    asked: list[int] = []

    def kernel(*heads: Tensor, **choices: bool) -> tuple[Tensor, Tensor]:
        asked.append(heads[0].shape[1])
        return plain_kernel(*heads, **choices)

    monkeypatch.setattr(attention_module, "flash4_for", lambda q: kernel)
    torch.testing.assert_close(attention(q, q, q), expected)
    assert asked == [19]


def test_no_kernel_is_looked_for_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash4, "_kernel", lambda device: pytest.fail("looked for"))
    assert flash4.flash4_for(torch.zeros(1, 1, flash4.MIN_TOKENS, 8, dtype=torch.bfloat16)) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernel_agrees_with_torch_at_full_length() -> None:
    pytest.importorskip("flash_attn.cute", reason="the extra flash4 is not installed")
    length, padding = flash4.MIN_TOKENS + 2, 126
    real = [torch.randn(1, 2, length, 64, device="cuda") * 0.7 for _ in range(3)]
    exact = [x.clone().requires_grad_() for x in real]
    padded = [F.pad(x.bfloat16(), (0, 0, 0, padding)).requires_grad_() for x in real]
    kernel = flash4.flash4_for(padded[0])
    assert kernel is not None
    expected = F.scaled_dot_product_attention(*exact)
    expected.sum().backward()
    found = flash4.attend(kernel, *padded, padding)
    found[:, :, :length].float().sum().backward()
    assert (found[:, :, :length] - expected).norm() < 1e-2 * expected.norm()
    for x, y in zip(padded, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        assert (x.grad[:, :, :length] - y.grad).norm() < 2e-2 * y.grad.norm()
