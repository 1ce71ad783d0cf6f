"""Long sequences by FlashAttention-4: when its kernels are taken, with its formulas in plain torch."""

import types

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mouse_facelift.gslrm import attention as attention_module
from mouse_facelift.gslrm import flash4
from mouse_facelift.gslrm.attention import attention


def plain_forward(q: Tensor, k: Tensor, v: Tensor, return_lse: bool) -> tuple[Tensor, Tensor, None]:
    """Heads behind tokens, as the package has them."""
    assert return_lse
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    out = (scores.softmax(-1) @ v).transpose(1, 2).contiguous()
    return out, scores.logsumexp(-1).float(), None


def plain_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, sums: Tensor, **found: Tensor
) -> None:
    """Dao et al. 2022 (arXiv 2205.14135), appendix B.2."""
    q, k, v, out, grad = (x.transpose(1, 2) for x in (q, k, v, out, grad))
    scale = q.shape[-1] ** -0.5
    p = (scale * q @ k.mT - sums[..., None]).exp()
    ds = p * (grad @ v.mT - (grad * out).sum(-1, keepdim=True))
    for name, gradient in {"dq": scale * ds @ k, "dk": scale * ds.mT @ q, "dv": p.mT @ grad}.items():
        found[name].copy_(gradient.transpose(1, 2))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The package in plain torch, for sequences of any length; their lengths are told."""
    asked: list[int] = []

    def forward(q: Tensor, *others: Tensor, **options: bool) -> tuple[Tensor, Tensor, None]:
        asked.append(q.shape[1])
        return plain_forward(q, *others, **options)

    package = types.SimpleNamespace(_flash_attn_fwd=forward, _flash_attn_bwd=plain_backward)
    monkeypatch.setattr(flash4, "_kernels", lambda: package)
    monkeypatch.setattr(attention_module, "suits_flash4", lambda *found: True)
    return asked


def rows(length: int, seed: int) -> Tensor:
    drawn = torch.randn(2, 3, length, 8, generator=torch.Generator().manual_seed(seed))
    return drawn.requires_grad_()


def test_attention_goes_to_the_kernel_where_there_is_one(plain: list[int]) -> None:
    q, k, v = (rows(19, seed) for seed in range(3))
    expected = F.scaled_dot_product_attention(q, k, v)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4))
    wanted = torch.autograd.grad((weights * expected).sum(), (q, k, v))
    found = attention(q, k, v)
    assert plain == [19]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((weights * found).sum(), (q, k, v)), wanted)


def test_operators_are_what_the_compiler_takes_them_for(plain: list[int]) -> None:
    q, k, v = (rows(5, seed).transpose(1, 2) for seed in range(3))
    torch.library.opcheck(flash4._forward, (q, k, v))
    out, sums = flash4._forward(q, k, v)
    arguments = [x.detach() for x in (q, k, v, out, sums, out)]
    torch.library.opcheck(flash4._backward, tuple(arguments))


def test_compiled_attention_is_one_graph(plain: list[int]) -> None:
    q, k, v = (rows(19, seed) for seed in range(3))
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    found = compiled(q, k, v)
    torch.testing.assert_close(found, attention(q, k, v))
    gradients = torch.autograd.grad(found.sum(), (q, k, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(attention(q, k, v).sum(), (q, k, v)))


def test_no_package_is_looked_for_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash4, "_installed", lambda: pytest.fail("looked for"))
    assert not flash4.suits_flash4(torch.device("cpu"), torch.bfloat16, flash4.MIN_TOKENS, 64)


@pytest.mark.parametrize(
    ("dtype", "tokens", "width"),
    [(torch.float32, 9000, 64), (torch.bfloat16, 8191, 64), (torch.bfloat16, 9000, 16)],
)
def test_neither_full_precision_nor_short_sequences_nor_narrow_heads_suit(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tokens: int, width: int
) -> None:
    monkeypatch.setattr(flash4, "_installed", lambda: True)
    monkeypatch.setattr(flash4, "is_hopper", lambda device: True)
    cuda = torch.device("cuda", 0)
    assert flash4.suits_flash4(cuda, torch.bfloat16, 8192, 64)
    assert not flash4.suits_flash4(cuda, dtype, tokens, width)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiles", [False, True])
def test_kernel_agrees_with_torch_at_full_length(compiles: bool) -> None:
    pytest.importorskip("flash_attn.cute", reason="the extra flash4 is not installed")
    length = flash4.MIN_TOKENS + 2
    real = [torch.randn(1, 2, length, 64, device="cuda") * 0.7 for _ in range(3)]
    exact = [x.clone().requires_grad_() for x in real]
    half = [x.bfloat16().requires_grad_() for x in real]
    assert flash4.suits_flash4(half[0].device, half[0].dtype, length, 64)
    run = torch.compile(attention, fullgraph=True) if compiles else attention
    expected, found = F.scaled_dot_product_attention(*exact), run(*half)
    expected.sum().backward()
    found.float().sum().backward()
    assert (found - expected).norm() < 1e-2 * expected.norm()
    for x, y in zip(half, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        assert (x.grad - y.grad).norm() < 2e-2 * y.grad.norm()
