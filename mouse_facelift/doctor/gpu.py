"""PyTorch, the driver, and the GPUs."""

import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from typing import Any

from ..words import gigabytes
from .config import DoctorConfig
from .findings import Finding, ok, problem, some, warning

TOOL_TIMEOUT_S = 5.0
SMALL_GPU = 11e9
"""Below the smallest preset of MVDiffusion (12 GB cards show a little less)."""


def check_torch(config: DoctorConfig) -> Iterator[Finding]:
    """PyTorch's build against the driver."""
    import torch

    built, driver = torch.version.cuda, _driver()
    found = f"torch {torch.__version__}, " + (f"built for CUDA {built}" if built else "built without CUDA")
    usable, said = available(torch)
    if driver is None:
        yield ok("torch", f"{found}; no NVIDIA driver here")
        return
    found += f"; driver {driver[0]}, which supports CUDA up to {driver[1]}"
    if built is None:
        fix = "Install a build with CUDA: pip install --force-reinstall torch (without PyTorch's CPU index)."
        yield problem("torch", found, fix)
    elif usable:
        yield ok("torch", found)
    elif (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) in ("", "-1"):
        yield warning("torch", f"{found}; CUDA_VISIBLE_DEVICES={visible!r} hides the GPUs", "Unset it.")
    elif numbers(built) > numbers(driver[1]):
        fix = f"Update the driver, or install a torch that is built for CUDA {driver[1]} or older."
        yield problem("torch", f"{found}: the driver is too old", fix)
    else:
        fix = "Does nvidia-smi list the GPU? In a container: is it started with --gpus all?"
        yield problem("torch", f"{found}, but torch cannot use a GPU{f' ({said})' if said else ''}", fix)


def check_devices(config: DoctorConfig) -> Iterator[Finding]:
    """Every GPU: kernels for it, memory, bf16."""
    import torch

    if not available(torch)[0]:
        fix = "Fine for preprocessing, tests and the demo; train and infer on a machine with one."
        yield warning("gpu", "none that torch can use", fix)
        return
    for number in range(torch.cuda.device_count()):
        yield _check_device(torch, number)


def _check_device(torch: Any, number: int) -> Finding:
    subject = f"gpu {number}"
    properties = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    found = (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, {gigabytes(free)} "
        f"free of {gigabytes(total)}"
    )
    if not has_kernels(torch.cuda.get_arch_list(), properties.major, properties.minor):
        fix = "Install a torch that is built for this GPU: newer for a newer one, older for an older one."
        return problem(subject, f"{found}; this torch has no kernels for it", fix)
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if not bf16:
        return warning(subject, f"{found}; no bf16", "Set training.precision=fp16.")
    if total < SMALL_GPU:
        fix = "For MVDiffusion see the presets in configs/train_mvdiff.yaml; they need 12 GB at least."
        return warning(subject, f"{found}: little memory", fix)
    if free < total / 2:
        fix = "nvidia-smi tells which process holds the rest; choose another GPU with CUDA_VISIBLE_DEVICES."
        return warning(subject, f"{found}: another process uses it", fix)
    return ok(subject, f"{found}, bf16")


def available(torch: Any) -> tuple[bool, str]:
    """Whether torch can use a GPU, and what it says where it cannot."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = bool(torch.cuda.is_available()) and torch.cuda.device_count() > 0
    return usable, some([str(entry.message) for entry in said], 1)


def has_kernels(architectures: list[str], major: int, minor: int) -> bool:
    """Binaries run on the same major generation from theirs on; PTX runs on everything newer."""
    for name in architectures:
        parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name)
        if parts is None:
            continue
        theirs = int(parts[2]), int(parts[3])
        same = theirs[0] == major and theirs[1] <= minor
        if same or (parts[1] == "compute" and theirs <= (major, minor)):
            return True
    return False


def _driver() -> tuple[str, str] | None:
    """Version of the NVIDIA driver and the newest CUDA that it supports; None without one."""
    text = output_of("nvidia-smi")
    version = re.search(r"Driver Version: *([\d.]+)", text or "")
    newest = re.search(r"CUDA (?:UMD )?Version: *([\d.]+)", text or "")
    return (version[1], newest[1]) if version and newest else None


def output_of(*command: str) -> str | None:
    """What a tool prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def numbers(version: str) -> tuple[int, ...]:
    """Of a version, to be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
