"""The machine that a benchmark runs on: its description, and its rate of matrix products."""

import platform
import statistics
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import Step, timed

CPU = torch.device("cpu")
_CPU_INFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Return the name of the CPU."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if hasattr(torch.cpu, "get_capabilities"):  # since PyTorch 2.12
        found = torch.cpu.get_capabilities().items()
        return any(value is True for name, value in found if "bf16" in name)
    return "bf16" in _cpu_info("flags") or "bf16" in _cpu_info("Features")


def description(device: torch.device) -> str:
    """Describe the device, the number of threads and the version of PyTorch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    bf16 = "with" if has_bf16(device) else "without"
    return (
        f"{processor_name()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()} {bf16} bf16 instructions, "
        f"PyTorch {torch.__version__}"
    )


class MatrixProducts:
    """Multiply large square matrices: `flop` additions and multiplications per call."""

    def __init__(self, device: torch.device, dtype: torch.dtype, side: int | None = None) -> None:
        side = side or (8192 if device.type == "cuda" else 2048)
        self.device = device
        self.factors = [torch.randn(side, side, device=device).to(dtype) for _ in range(2)]
        # One product is too short for a GPU to reach its full rate.
        self.n_times = 10 if device.type == "cuda" else 1
        self.flop = 2 * side**3 * self.n_times

    def __call__(self) -> None:
        """Multiply the matrices."""
        for _ in range(self.n_times):
            torch.mm(*self.factors)

    def rate(self) -> float:
        """Measure the additions and multiplications per second, the median of 5."""
        timed(self, 1, self.device)
        return self.flop / statistics.median(timed(self, 1, self.device) for _ in range(5))


def arithmetic(step: Step) -> int:
    """Count the additions and multiplications of a step's convolutions and matrix products."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _OneModule()
    # The counter does not see compiled code.
    with torch.compiler.set_stance("force_eager"), counter:
        step()
    return counter.get_total_flops()


class _OneModule:
    """Attribute all operations to one module: the default tracker fails in `autograd.grad`."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def _cpu_info(name: str) -> str:
    if not _CPU_INFO.exists():
        return ""
    pairs = (line.partition(":") for line in _CPU_INFO.read_text().splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")
