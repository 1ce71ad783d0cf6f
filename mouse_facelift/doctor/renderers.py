"""gsplat's kernels, and a small picture drawn by both renderers."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DependencyError
from .config import DoctorConfig
from .findings import Finding, ok, problem, some, warning
from .gpu import available, has_kernels, numbers, output_of

AGREE_DB = 45.0
"""Both renderers draw the same by at least this PSNR."""
SIDE, BLOBS = 64, 200


def check_gsplat(config: DoctorConfig) -> Iterator[Finding]:
    """Whether gsplat has kernels for this torch, or could compile them."""
    import torch

    folder = _package_folder("gsplat")
    if not available(torch)[0]:
        words = "is not installed" if folder is None else "is installed"
        yield ok("gsplat", f"{words}; without a GPU the torch renderer draws")
        return
    if folder is None:
        yield problem("gsplat", "is not installed; training on a GPU needs it", "pip install gsplat")
        return
    if kernels := compiled_kernels(folder, torch):
        yield ok("gsplat", f"kernels are compiled: {kernels}")
        return
    yield from _check_compiler(torch)


def check_rendering(config: DoctorConfig) -> Iterator[Finding]:
    """A few Gaussians, drawn by the torch renderer and, on a GPU, by gsplat."""
    import torch

    from ..gaussians import render
    from ..metrics import psnr

    scene, K, w2c = _scene(torch)
    expected = render(scene, K, w2c, SIDE, SIDE, backend="torch")
    covered = float((expected.alpha > 0.5).float().mean())
    if not 0.05 < covered < 0.95 or not bool(torch.isfinite(expected.rgb).all()):
        fix = "Reinstall torch; if that does not help, please report it."
        yield problem("rendering", f"the torch renderer covers {covered:.0%} of a picture of a ball", fix)
        return
    folder = _package_folder("gsplat")
    if not available(torch)[0] or folder is None:
        yield ok("rendering", "the torch renderer draws a ball; no gsplat to compare it with")
        return
    if not config.thorough and compiled_kernels(folder, torch) is None:
        yield ok("rendering", "the torch renderer draws a ball; gsplat is not compiled yet")
        return
    fix = "Remove gsplat's build (named above) and let it compile anew, or reinstall gsplat for this torch."
    try:
        device = torch.device("cuda")
        drawn = render(scene.to(device), K.to(device), w2c.to(device), SIDE, SIDE, backend="gsplat")
        agreement = float(psnr(drawn.rgb.cpu().clamp(0, 1), expected.rgb.clamp(0, 1)).mean())
    except (DependencyError, RuntimeError, ImportError, OSError) as error:
        yield problem("rendering", f"gsplat cannot draw ({some([str(error)])})", fix)
        return
    found = f"gsplat and the torch renderer agree by {agreement:.1f} dB"
    yield ok("rendering", found) if agreement > AGREE_DB else problem("rendering", found, fix)


def compiled_kernels(folder: Path, torch: Any) -> Path | None:
    """The file of gsplat's kernels: shipped with it, or compiled here for this torch's CUDA and Python."""
    from torch.utils.cpp_extension import get_default_build_root

    shipped = sorted(folder.glob("csrc*.so")) + sorted(folder.glob("csrc*.pyd"))
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    cuda = "cpu" if torch.version.cuda is None else "cu" + torch.version.cuda.replace(".", "")
    python = f"py{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    root = Path(own) if own is not None else Path(get_default_build_root()) / f"{python}_{cuda}"
    built = root / "gsplat_cuda" / "gsplat_cuda.so"
    return shipped[0] if shipped else built if built.is_file() else None


def _check_compiler(torch: Any) -> Iterator[Finding]:
    from torch.utils.cpp_extension import CUDA_HOME

    compiler = shutil.which("nvcc", path=f"{CUDA_HOME}/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if compiler is None:
        fix = (
            "Install a gsplat wheel that is built for this torch and CUDA, or the CUDA toolkit "
            f"{torch.version.cuda} (nvcc)."
        )
        yield problem("gsplat", "has no kernels, and there is no nvcc to compile them", fix)
        return
    release = re.search(r"release (\d+\.\d+)", output_of(compiler, "--version") or "")
    version = release[1] if release else "unknown"
    wanted, capability = torch.version.cuda, torch.cuda.get_device_capability(0)
    if release and numbers(version)[:1] != numbers(wanted)[:1]:
        fix = f"Install the CUDA toolkit {wanted} and set CUDA_HOME to it, or a torch for CUDA {version}."
        yield problem("gsplat", f"would be compiled by nvcc {version}, torch is for CUDA {wanted}", fix)
    elif not _named(os.environ.get("TORCH_CUDA_ARCH_LIST", ""), capability):
        fix = f"Set TORCH_CUDA_ARCH_LIST={capability[0]}.{capability[1]}, or unset it."
        listed = os.environ["TORCH_CUDA_ARCH_LIST"]
        yield problem("gsplat", f"would be compiled for TORCH_CUDA_ARCH_LIST={listed}, not for this GPU", fix)
    else:
        fix = "Compile now: mfl doctor thorough=true. On a cluster set TORCH_EXTENSIONS_DIR to a shared disk."
        found = f"is not compiled yet: the first use takes minutes, with nvcc {version} at {compiler}"
        yield warning("gsplat", found, fix)


def _scene(torch: Any) -> tuple[Any, Any, Any]:
    """A ball of coloured Gaussians and one camera."""
    from ..gaussians import Gaussians
    from ..geometry import FACELIFT_DISTANCE, FACELIFT_FOCAL, Camera
    from ..geometry.rays import camera_tensors

    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(BLOBS, 3, generator=generator)
    scene = Gaussians(
        means=0.5 * directions / directions.norm(dim=1, keepdim=True),
        quats=torch.randn(BLOBS, 4, generator=generator),
        scales=0.04 + 0.08 * torch.rand(BLOBS, 3, generator=generator),
        opacities=0.3 + 0.6 * torch.rand(BLOBS, generator=generator),
        sh0=torch.randn(BLOBS, 1, 3, generator=generator),
    )
    camera = Camera.look_at((0.0, -FACELIFT_DISTANCE, 0.4), (0, 0, 0), FACELIFT_FOCAL * SIDE, SIDE)
    return scene, *camera_tensors([camera])


def _named(listed: str, capability: tuple[int, int]) -> bool:
    """Whether TORCH_CUDA_ARCH_LIST has code for a GPU; empty means for those that are there."""
    entries = re.findall(r"(\d+)\.(\d)a?(\+PTX)?", listed)
    names = [f"sm_{major}{minor}" for major, minor, _ in entries]
    names += [f"compute_{major}{minor}" for major, minor, ptx in entries if ptx]
    # Names of generations, such as Hopper, are allowed there as well.
    words = re.search(r"[A-Z][a-z]", listed)
    return not listed or bool(words) or has_kernels(names, *capability)


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None
