"""Every check of the machine finds what it looks for."""

import contextlib
import importlib
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mouse_facelift import videos
from mouse_facelift.doctor import gpu, machine, renderers, software
from mouse_facelift.doctor.config import DoctorConfig
from mouse_facelift.doctor.findings import Finding
from mouse_facelift.errors import DependencyError

SMI = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |"


def look(check: Callable[..., Any], **settings: Any) -> Finding:
    """The check's first and worst finding."""
    found = list(check(DoctorConfig(**settings)))
    return max(found, key=lambda finding: ("ok", "warning", "problem").index(finding.level))


@pytest.fixture
def metadata_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace what is installed: the package's own requirements, and versions."""

    def install(requires: list[str], versions: dict[str, str], python: str = ">=3.11") -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(metadata, "requires", lambda name: requires)
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": python})

    return install


def test_this_machine_is_fit() -> None:
    for check in (
        software.check_python,
        software.check_video,
        software.check_opencv,
        renderers.check_rendering,
    ):
        assert look(check).level == "ok", look(check)


def test_old_python(metadata_of: Callable[..., None]) -> None:
    metadata_of([], {}, python=">=4.0")
    assert look(software.check_python).level == "problem"


def test_libraries_are_held_against_the_packages_own_bounds(metadata_of: Callable[..., None]) -> None:
    metadata_of(
        ["torch>=2.11", "av>=17", 'peft>=0.19; extra == "lora"'], {"torch": "2.12.0+cu130", "av": "17.0"}
    )
    assert look(software.check_libraries).level == "ok"
    metadata_of(["torch>=2.11", "av>=17"], {"torch": "2.10.1"})
    found = look(software.check_libraries)
    assert found.level == "problem"
    assert found.found == "torch is 2.10.1, needed >=2.11; av is not installed, needed >=17"
    assert found.fix == "pip install 'torch>=2.11' 'av>=17'"


def test_optional_library_that_is_too_old_is_a_warning(metadata_of: Callable[..., None]) -> None:
    requires = ['peft>=0.19; extra == "lora"', 'scipy>=9; extra == "test"']
    metadata_of(requires, {"peft": "0.1", "scipy": "1.0"})
    found = look(software.check_libraries)
    assert found.level == "warning" and "peft is 0.1" in found.found and "scipy" not in found.found


def test_package_that_is_not_installed_has_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert look(software.check_libraries).level == "warning"


def test_ffmpeg_without_h264(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DependencyError("this PyAV cannot encode H.264")

    monkeypatch.setattr(videos, "write_video", refuse)
    assert look(software.check_video).level == "problem"


def test_video_that_comes_back_with_other_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    write = videos.write_video
    monkeypatch.setattr(videos, "write_video", lambda path, frames: write(path, [255 - f for f in frames]))
    found = look(software.check_video)
    assert found.level == "problem" and "comes back changed" in found.found


def test_opencv_that_loses_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((4, 4, 3), np.uint8))
    assert look(software.check_opencv).level == "problem"


def test_two_builds_of_opencv(metadata_of: Callable[..., None]) -> None:
    metadata_of([], {"opencv-python": "4.10"})
    found = look(software.check_opencv)
    assert found.level == "warning" and "pip uninstall opencv-python;" in found.fix


@pytest.mark.parametrize(("free", "level"), [(1e12, "ok"), (5e9, "warning"), (5e8, "problem")])
def test_full_disk(monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda path: free)
    assert look(machine.check_folder).level == level


def test_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    found = look(machine.check_folder, folder=tmp_path)
    assert found.level == "problem" and "cannot be written to" in found.found


@pytest.mark.parametrize(("free", "level"), [(1e10, "ok"), (5e8, "warning"), (1e6, "problem")])
def test_full_temporary_folder(monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda path: free)
    assert look(machine.check_temporary).level == level


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(machine.tempfile, "gettempdir", none)
    assert look(machine.check_temporary).level == "problem"


@pytest.mark.parametrize(("free", "level"), [(8e9, "ok"), (5e8, "warning"), (64e6, "problem")])
def test_dockers_64_mb_of_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, level: str
) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert look(machine.check_shared_memory).level == level


def test_system_without_a_folder_of_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert look(machine.check_shared_memory).level == "ok"


def test_quota_of_a_container_counts_as_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "CPU_QUOTA", quota)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(32)), raising=False)
    quota.write_text("max 100000\n")
    assert look(machine.check_cores).level == "ok"
    quota.write_text("200000 100000\n")
    found = look(machine.check_cores)
    assert found.level == "warning" and found.found.startswith("2 cores for this process")


class FakeGpu:
    """Stands in for torch, as far as the checks ask it."""

    def __init__(self, **facts: Any) -> None:
        self.facts = {
            "cuda": "12.8",
            "available": True,
            "capability": (9, 0),
            "architectures": ["sm_80", "sm_90"],
            "free": 140e9,
            "total": 150e9,
            "bf16": True,
            **facts,
        }

    def install(self, monkeypatch: pytest.MonkeyPatch, smi: str | None = SMI) -> None:
        f, cuda = self.facts, torch.cuda
        major, minor = f["capability"]
        properties = SimpleNamespace(name="NVIDIA Test", major=major, minor=minor)
        monkeypatch.setattr(torch.version, "cuda", f["cuda"])
        for name, value in {
            "is_available": f["available"],
            "device_count": int(f["available"]),
            "get_device_properties": properties,
            "mem_get_info": (f["free"], f["total"]),
            "get_arch_list": f["architectures"],
            "is_bf16_supported": f["bf16"],
            "get_device_capability": f["capability"],
        }.items():
            monkeypatch.setattr(cuda, name, lambda *_, value=value, **__: value)
        monkeypatch.setattr(gpu, "output_of", lambda *command: smi)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda smi=SMI, **facts: FakeGpu(**facts).install(monkeypatch, smi)


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        ({}, "ok", "driver 550.54.15, which supports CUDA up to 12.4"),
        ({"cuda": None, "available": False}, "problem", "built without CUDA"),
        ({"cuda": "13.0", "available": False}, "problem", "the driver is too old"),
        ({"cuda": "12.1", "available": False}, "problem", "torch cannot use a GPU"),
        ({"smi": None, "cuda": None, "available": False}, "ok", "no NVIDIA driver here"),
    ],
)
def test_torch_against_the_driver(fake: Callable[..., None], facts: dict, level: str, words: str) -> None:
    fake(**facts)
    found = look(gpu.check_torch)
    assert (found.level, words in found.found) == (level, True), found


def test_gpus_that_are_hidden_on_purpose(fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    fake(cuda="12.1", available=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert look(gpu.check_torch).level == "warning"


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        ({}, "ok", "NVIDIA Test, compute capability 9.0, 140.00 GB free of 150.00 GB, bf16"),
        ({"available": False}, "warning", "none that torch can use"),
        ({"capability": (12, 0)}, "problem", "no kernels for it"),
        ({"capability": (8, 6)}, "ok", "8.6"),
        ({"capability": (12, 0), "architectures": ["sm_90", "compute_90"]}, "ok", "12.0"),
        ({"capability": (7, 5), "bf16": False, "architectures": ["sm_75"]}, "warning", "no bf16"),
        ({"total": 8e9, "free": 8e9}, "warning", "little memory"),
        ({"free": 20e9}, "warning", "another process uses it"),
    ],
)
def test_gpu(
    fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch, facts: dict, level: str, words: str
) -> None:
    fake(**facts)
    monkeypatch.setattr(torch.cuda, "device", lambda number: contextlib.nullcontext())
    found = look(gpu.check_devices)
    assert (found.level, words in found.found) == (level, True), found


@pytest.fixture
def gsplat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gsplat without kernels, and no builds of earlier days."""
    folder = tmp_path / "gsplat"
    folder.mkdir()
    monkeypatch.setattr(renderers, "_package_folder", lambda name: folder)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "builds"))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/cuda/bin/nvcc")
    monkeypatch.setattr(renderers, "output_of", lambda *command: "Cuda compilation tools, release 12.8")
    return folder


def test_kernels_that_came_with_gsplat_or_were_compiled_here(
    fake: Callable[..., None], gsplat: Path, tmp_path: Path
) -> None:
    fake()
    built = tmp_path / "builds" / "gsplat_cuda" / "gsplat_cuda.so"
    built.parent.mkdir(parents=True)
    built.touch()
    assert str(built) in look(renderers.check_gsplat).found
    (gsplat / "csrc.abi3.so").touch()
    assert "csrc.abi3.so" in look(renderers.check_gsplat).found


def test_gsplat_that_would_have_to_compile(fake: Callable[..., None], gsplat: Path) -> None:
    fake()
    found = look(renderers.check_gsplat)
    assert found.level == "warning" and "takes minutes, with nvcc 12.8" in found.found


def test_gsplat_that_cannot_compile(
    fake: Callable[..., None], gsplat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake()
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;8.6")
    assert "not for this GPU" in look(renderers.check_gsplat).found
    for listed in ("9.0", "8.0+PTX", "Hopper"):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
        assert look(renderers.check_gsplat).level == "warning", listed
    fake(cuda="13.0")
    assert "nvcc 12.8, torch is for CUDA 13.0" in look(renderers.check_gsplat).found
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    found = look(renderers.check_gsplat)
    assert found.level == "problem" and "no nvcc" in found.found


def test_gsplat_that_is_not_there(fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    fake()
    monkeypatch.setattr(renderers, "_package_folder", lambda name: None)
    assert look(renderers.check_gsplat).level == "problem"
    fake(available=False)
    assert look(renderers.check_gsplat).level == "ok"


def on_gpu(monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Any]) -> Finding:
    """The rendering check where the GPU is this CPU and gsplat is `draw`."""
    import mouse_facelift.gaussians as room

    render, device = room.render, torch.device
    monkeypatch.setattr(
        room,
        "render",
        lambda *a, backend, **k: (draw if backend == "gsplat" else render)(*a, backend="torch", **k),
    )
    monkeypatch.setattr(torch, "device", lambda name: device("cpu") if name == "cuda" else device(name))
    monkeypatch.setattr(renderers, "compiled_kernels", lambda *_: Path("kernels.so"))
    return look(renderers.check_rendering)


def test_renderers_that_agree(
    fake: Callable[..., None], gsplat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mouse_facelift.gaussians.rendering import render

    fake()
    found = on_gpu(monkeypatch, render)
    assert found.level == "ok" and "agree by 100.0 dB" in found.found


def test_renderers_that_disagree(
    fake: Callable[..., None], gsplat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mouse_facelift.gaussians.rendering import Rendering, render

    def wrong(*arguments: Any, **keywords: Any) -> Rendering:
        drawn = render(*arguments, **keywords)
        return Rendering(drawn.rgb.flip(-1), drawn.alpha, drawn.depth)

    fake()
    assert on_gpu(monkeypatch, wrong).level == "problem"


def test_gsplat_that_cannot_be_loaded(
    fake: Callable[..., None], gsplat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DependencyError("undefined symbol")

    fake()
    found = on_gpu(monkeypatch, refuse)
    assert found.level == "problem" and "undefined symbol" in found.found


def test_torch_renderer_that_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = renderers._scene

    def behind(torch_: Any) -> tuple[Any, Any, Any]:
        gaussians, K, w2c = scene(torch_)
        w2c[:, 2, 3] -= 9
        return gaussians, K, w2c

    monkeypatch.setattr(renderers, "_scene", behind)
    assert look(renderers.check_rendering).level == "problem"


def test_kernels_are_looked_for_where_torch_builds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    extension = importlib.import_module("torch.utils.cpp_extension")
    monkeypatch.setattr(extension, "get_default_build_root", lambda: str(tmp_path))
    folder = Path(extension._get_build_directory("gsplat_cuda", False))
    (folder / "gsplat_cuda.so").touch()
    assert renderers.compiled_kernels(tmp_path, torch) == folder / "gsplat_cuda.so"


def test_tool_that_is_missing_or_fails_says_nothing() -> None:
    assert gpu.output_of("no-such-tool-here") is None
    assert gpu.output_of(sys.executable, "-c", "raise SystemExit(3)") is None
    assert gpu.output_of(sys.executable, "-c", "print('yes')") == "yes\n"
