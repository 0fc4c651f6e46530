"""The hardware: chosen by parameters, and used; torch is imported only to choose a device."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from jemtrack.errors import InputError, ParameterError
from jemtrack.parameters import AtLeastOne, parameters

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16-mixed"]
Strategy = Literal["auto", "ddp"]


# More is of use on a large CPU alone. The same number everywhere makes results comparable.
Threads = Annotated[int, Field(ge=1, le=1024)]
DEFAULT_THREADS = 2


@parameters
class Hardware:
    """The device, precision, processes and threads of a training.

    Attributes:
        device: `auto` is a GPU if there is one, else the CPU.
        precision: `fp32`, or `bf16-mixed`: weights in fp32, and PyTorch's autocast to bfloat16.
        processes: number of processes among which each batch is sharded; on GPUs, one GPU each.
        nodes: number of machines among which the processes are divided: nodes of a Slurm job.
        strategy: `auto` is `ddp` if there are several processes: each has the whole model, and
            gradients are averaged by an all-reduce (gloo on CPUs, NCCL on GPUs).
        threads: threads of the CPU for each process. Sums over more threads are rounded otherwise,
            so their number is a parameter of the result.
    """

    device: DeviceName = "auto"
    precision: Precision = "fp32"
    processes: AtLeastOne = 1
    nodes: AtLeastOne = 1
    strategy: Strategy = "auto"
    threads: Threads = DEFAULT_THREADS

    @field_validator("nodes")
    @classmethod
    def _divides_processes(cls, value: int, info: ValidationInfo) -> int:
        if (info.data.get("processes") or value) % value:
            raise ValueError(f"must divide the {info.data['processes']} processes, got {value}")
        return value

    @field_validator("strategy")
    @classmethod
    def _has_processes(cls, value: str, info: ValidationInfo) -> str:
        if value == "ddp" and info.data.get("processes") == 1:
            raise ValueError("must be auto for one process, got 'ddp'")
        return value


@contextmanager
def cpu_threads(n_threads: int) -> Iterator[None]:
    """Let PyTorch, and what NumPy and SciPy compute with, use so many threads in the block."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(n_threads):
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def use_device(device: torch.device) -> Iterator[None]:
    """Compute on the device in the block, `reproducible`, with errors that a user can act on.

    Raises:
        InputError: if the GPU's memory is full, or an operation gives other bits each time.
    """
    import torch

    try:
        with reproducible(device):
            yield
    except torch.OutOfMemoryError as error:
        raise InputError(_full(str(error))) from error
    except RuntimeError as error:
        if type(error) is not RuntimeError or "determinis" not in str(error):
            raise
        raise InputError(_other_bits(str(error))) from error


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Let PyTorch take operations in the block that give the same bits each time on a GPU.

    One that has no such form raises a RuntimeError. On a CPU, all give the same bits anyway, and
    nothing is changed.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    import torch

    if device.type != "cuda":
        yield
        return
    memory: Any = torch.utils.deterministic
    mode, fill = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    # Not `use_deterministic_algorithms`: it imports the compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error")
    # It would show that somebody reads memory that nobody wrote, and costs a kernel each time.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fill


def _full(found: str) -> str:
    found = found.partition(" Including")[0]
    return f"the GPU's memory is full: take a smaller batch_size, network or buffer ({found})"


def _other_bits(found: str) -> str:
    how = "docs/hardware.md says how to allow it"
    if "CUBLAS_WORKSPACE_CONFIG" in found:
        how = "import jemtrack before the GPU is used, or set CUBLAS_WORKSPACE_CONFIG=:4096:8"
    return f"results must be the same each time: {found.partition(', but')[0]}; {how}"


def chosen_device(name: DeviceName) -> torch.device:
    """Return the device for a parameter `device`.

    Raises:
        ParameterError: if it is `cuda` and PyTorch finds no GPU.
    """
    # Imported here, because recipes are checked without torch.
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device must be cpu or auto, got 'cuda': PyTorch finds no GPU here")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


# What a container may use: bytes; and microseconds of CPUs in a period of so many.
_CGROUP, _CGROUP_CPU = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "cpu.max"))


def available_cpus() -> int:
    """Return how many CPUs this process may use, by its affinity and its container's limit."""
    # macOS and Windows have no affinity.
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if _CGROUP_CPU.is_file():
        quota, period = _CGROUP_CPU.read_text().split()
        if quota != "max":
            count = min(count, max(int(quota) // int(period), 1))
    return count


def memory_bytes() -> int:
    """Return the bytes of this machine's memory, or of its GPU's if that has more."""
    import psutil  # type: ignore[import-untyped]

    total = int(psutil.virtual_memory().total)
    if _CGROUP.is_file() and (limit := _CGROUP.read_text().strip()).isdigit():
        total = min(total, int(limit))
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        total = max(total, torch.cuda.get_device_properties(0).total_memory)
    return total


def check_memory(name: str, value: int, n_bytes: int) -> None:
    """Check that what the parameter `name` asks for, at least `n_bytes`, can be in memory.

    Raises:
        ParameterError: with both numbers of bytes, if it cannot.
    """
    if n_bytes > (there := memory_bytes()):
        raise ParameterError(
            f"{name} must be smaller, got {value}: it takes at least {n_bytes:.3g} bytes "
            f"({n_bytes / 2**30:.1f} GiB), and this machine has {there / 2**30:.1f} GiB"
        )


# See mallopt(3): free memory at the end of the heap is returned above the first threshold, and
# blocks larger than the second are returned whenever they are freed.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
_KEPT = 2**31 - 1
_LARGEST_KEPT = 2**30


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to its peak, for later allocations.

    glibc returns the memory of an activation to the system when it is freed, and the system fills
    each page with zeros when it is allocated again: in every training step on a CPU. With other C
    libraries nothing is changed.
    """
    set_thresholds(_KEPT, _LARGEST_KEPT)


def set_thresholds(trim: int, mmap: int) -> None:
    """Set both thresholds, in bytes, if the C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, trim)
        libc.mallopt(MMAP_THRESHOLD, mmap)
