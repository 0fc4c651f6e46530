"""Profile a step: the operations or kernels that take most of its time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.tables import duration
from benchmarks.turns import Step, timed

N_STEPS = 5
TOP = 15


def profile_lines(
    step: Step, device: torch.device, arithmetic: int | None, matrix_rate: float | None
) -> Iterator[str]:
    """Yield the top costs of a step: kernels on a GPU, else PyTorch's operations.

    With the step's `arithmetic` (FLOP) and the device's `matrix_rate` (FLOP per second), also
    yield the share of the rate that a step reaches without the profiler.
    """
    timed(step, 2, device)
    seconds = timed(step, N_STEPS, device) / N_STEPS
    with profile(activities=_activities(device)) as found:
        timed(step, N_STEPS, device)
    yield f"{duration(seconds)} per step without the profiler"
    if arithmetic and matrix_rate:
        reached = arithmetic / seconds / matrix_rate
        yield (
            f"{arithmetic / 1e9:.1f} GFLOP in convolutions and matrix products: {reached:.0%} of "
            f"the {matrix_rate / 1e9:.0f} GFLOP/s that matrix products alone reach"
        )
    yield f"{'share':>6} {'per step':>10} {'calls':>7}  operation"
    yield from _costs(found, device)


def _activities(device: torch.device) -> list[ProfilerActivity]:
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return [ProfilerActivity.CPU, *on_gpu]


def _costs(found: profile, device: torch.device) -> Iterator[str]:
    kind = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    events = [event for event in found.key_averages() if event.device_type == kind]
    events = [event for event in events if not event.is_user_annotation]
    events.sort(key=_microseconds, reverse=True)
    total = sum(map(_microseconds, events)) or 1.0
    for event in events[:TOP]:
        spent = _microseconds(event)
        yield (
            f"{spent / total:6.1%} {duration(spent / 1e6 / N_STEPS):>10} "
            f"{event.count / N_STEPS:7.0f}  {event.key[:90]}"
        )


def _microseconds(event: Any) -> float:
    """Return the time of the operation itself, without the operations that it calls."""
    on_gpu = event.device_type == DeviceType.CUDA
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
