"""Disks, shared memory and cores."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..files import free_bytes, nearest_existing
from ..words import data_size, several
from .config import DoctorConfig
from .findings import Finding, ok, problem, warning

SHARED_MEMORY = Path("/dev/shm")
"""Where loader processes of PyTorch hand over their batches on Linux."""
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container's share of the cores is written on Linux."""

FOLDER_LITTLE, FOLDER_NOTHING = 20e9, 1e9
"""A run of MVDiffusion keeps several checkpoints of 10 GB and more; of results a few samples still fit."""
TEMPORARY_LITTLE, TEMPORARY_NOTHING = 1e9, 50e6
SHARED_LITTLE, SHARED_NOTHING = 1e9, 128e6
"""Docker gives 64 MB unless told otherwise; one batch of six 512-pixel views in 8 bits is 6 MB a sample."""
FEW_CORES = 4


def check_folder(config: DoctorConfig) -> Iterator[Finding]:
    """Room for results, and permission to write them."""
    place = nearest_existing(config.folder)
    free = free_bytes(place)
    found = f"{data_size(free)} free in {place}"
    if not os.access(place, os.W_OK | os.X_OK):
        yield problem("disk", f"{place} cannot be written to", "Work elsewhere, or change its permissions.")
    elif free < FOLDER_NOTHING:
        yield problem("disk", found, "Free some, or set `output` on another disk.")
    elif free < FOLDER_LITTLE:
        yield warning("disk", found, "Enough for results; for training free some, or set `output` elsewhere.")
    else:
        yield ok("disk", found)


def check_temporary(config: DoctorConfig) -> Iterator[Finding]:
    """Room for temporary files."""
    fix = "Set TMPDIR to a folder on a disk with room."
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield problem("temporary folder", f"none can be written to ({error})", fix)
        return
    free = free_bytes(place)
    found = f"{data_size(free)} free in {place}"
    if free < TEMPORARY_NOTHING:
        yield problem("temporary folder", found, fix)
    elif free < TEMPORARY_LITTLE:
        yield warning("temporary folder", found, fix)
    else:
        yield ok("temporary folder", found)


def check_shared_memory(config: DoctorConfig) -> Iterator[Finding]:
    """Room for the batches of loader processes; too little ends them with a bus error."""
    if not SHARED_MEMORY.is_dir():
        yield ok("shared memory", f"no {SHARED_MEMORY} on this system, nothing to limit it")
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{data_size(free)} free in {SHARED_MEMORY}"
    fix = "Start the container with --shm-size=8g or --ipc=host; or set training.workers=0."
    if free < SHARED_NOTHING:
        yield problem("shared memory", f"{found}: loader processes will die of bus errors", fix)
    elif free < SHARED_LITTLE:
        yield warning("shared memory", found, fix)
    else:
        yield ok("shared memory", found)


def check_cores(config: DoctorConfig) -> Iterator[Finding]:
    """Cores that this process may use, of those that the machine has."""
    there = os.cpu_count() or 1
    allowed = _allowed_cores()
    found = f"{several(allowed, 'core')} for this process, {there} in the machine"
    if allowed < FEW_CORES:
        fix = (
            "Ask the scheduler or the container for more: preprocessing and loading share them (cache "
            "pictures with `mfl cache`)."
        )
        yield warning("cores", found, fix)
    else:
        yield ok("cores", found)


def _allowed_cores() -> int:
    """By affinity, and by a container's quota of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        # No such file outside Linux; "max" where there is no quota.
        return cores
