"""The separable Gaussian: its values, its gradient, and the kernel against the plain sums."""

import importlib.util
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from mouse_facelift.blur import gaussian_blur, has_triton
from mouse_facelift.metrics import ssim_map


def direct(images: torch.Tensor, taps: int, sigma: float) -> torch.Tensor:
    """The definition: a window times a Gaussian of both offsets."""
    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    kernel = (window / window.sum()).to(images.dtype)[None, None]
    flat = images.reshape(-1, 1, *images.shape[-2:])
    return torch.nn.functional.conv2d(flat, kernel).reshape(
        *images.shape[:-2], *(side - taps + 1 for side in images.shape[-2:])
    )


@pytest.mark.parametrize(("height", "width", "taps"), [(17, 23, 11), (11, 11, 11), (9, 30, 3)])
def test_it_is_the_weighted_mean_of_each_full_window(height: int, width: int, taps: int) -> None:
    images = torch.rand(2, 3, height, width, dtype=torch.float64)

    assert torch.allclose(gaussian_blur(images, taps, 1.5), direct(images, taps, 1.5), atol=1e-12)


def test_its_gradient_is_exact() -> None:
    images = torch.rand(2, 13, 15, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: gaussian_blur(x, 11, 1.5), images)


def test_a_constant_stays_what_it_is() -> None:
    assert torch.allclose(gaussian_blur(torch.full((1, 20, 20), 0.7), 11, 1.5), torch.tensor(0.7), atol=1e-6)


def test_targets_of_ssim_cost_no_gradient_and_may_have_one() -> None:
    images, targets = (torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))

    ssim_map(images, targets).mean().backward()

    # SSIM is symmetric.
    swapped = images.detach().clone().requires_grad_()
    ssim_map(targets.detach(), swapped).mean().backward()
    assert images.grad is not None and targets.grad is not None and swapped.grad is not None
    assert torch.allclose(images.grad, swapped.grad, atol=1e-6)


@pytest.mark.parametrize("missing", ["compiler", "headers"])
def test_without_what_compiles_kernels_they_are_not_used(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in small containers: the plain sums do the same, and a run must not end at its first picture."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert has_triton.__wrapped__()
    if missing == "compiler":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    else:
        (tmp_path / "Python.h").unlink()
    assert not has_triton.__wrapped__()
    assert "Install gcc and Python's headers" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(5, 2, 3, 64, 80), (1, 11, 11), (3, 2047, 33)])
def test_the_kernel_agrees_with_the_plain_sums_and_their_gradient(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    here, there = images.clone().requires_grad_(), images.cuda().requires_grad_()

    expected, found = gaussian_blur(here, 11, 1.5), gaussian_blur(there, 11, 1.5)
    weights = torch.rand(expected.shape)
    (expected * weights).sum().backward()
    (found * weights.cuda()).sum().backward()

    assert here.grad is not None and there.grad is not None
    assert torch.allclose(found.cpu(), expected, atol=1e-6)
    assert torch.allclose(there.grad.cpu(), here.grad, atol=1e-6)
