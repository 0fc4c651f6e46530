"""What a process takes of its machine at this moment."""

import sys
import time
from typing import Any

import psutil  # type: ignore[import-untyped]

_MIB = 1 << 20
# Children are found among all processes of the machine, which may be thousands: a search waits
# for so many times the seconds that the last one took.
_REST = 200


class Gauges:
    """Reads a process's use of CPU, memory, disk and GPU.

    `light` is the process itself and its CPU and memory alone.
    """

    def __init__(self, *, light: bool) -> None:
        self.light = light
        self._process = psutil.Process()
        self._children: dict[int, psutil.Process] = {}
        self._search_due = 0.0
        self._device = 0
        self._read, self._written = self._disk()
        # psutil gives the CPU's use since the last call: the first one has none to give.
        self.read()

    def follow_device(self) -> None:
        """Take the GPU that the calling thread works on for the one to read."""
        if cuda := _cuda():
            self._device = cuda.current_device()

    def read(self) -> dict[str, float]:
        """Give what can be read here.

        `cpu_percent` (100 is one core, over the time since the last reading) and `memory_mib`
        are of the process and its children, `read_mib` and `written_mib` of the process since
        the start, `gpu_memory_mib` is what PyTorch holds, `gpu_percent` the whole GPU's load.
        """
        metrics = self._processes()
        if not self.light:
            read, written = self._disk()
            if read or written:
                metrics["read_mib"] = (read - self._read) / _MIB
                metrics["written_mib"] = (written - self._written) / _MIB
            metrics |= self._gpu()
        return metrics

    def _processes(self) -> dict[str, float]:
        percent, memory = 0.0, 0
        for process in [self._process, *([] if self.light else self._family())]:
            try:
                with process.oneshot():
                    percent += process.cpu_percent()
                    memory += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended in between
        return {"cpu_percent": percent, "memory_mib": memory / _MIB}

    def _family(self) -> list[psutil.Process]:
        """List the children, each the object of the last time, which knows its last reading."""
        if time.monotonic() >= self._search_due:
            started = time.thread_time()
            self._search()
            self._search_due = time.monotonic() + _REST * (time.thread_time() - started)
        return [*self._children.values()]

    def _search(self) -> None:
        try:
            found = {child.pid: child for child in self._process.children(recursive=True)}
        except psutil.Error:
            found = {}
        self._children = {pid: self._children.get(pid, child) for pid, child in found.items()}

    def _disk(self) -> tuple[int, int]:
        if self.light or not hasattr(self._process, "io_counters"):  # macOS has none
            return 0, 0
        try:
            counters = self._process.io_counters()
        except psutil.Error:
            return 0, 0
        return counters.read_bytes, counters.write_bytes

    def _gpu(self) -> dict[str, float]:
        if not (cuda := _cuda()):
            return {}
        metrics = {"gpu_memory_mib": cuda.memory_reserved(self._device) / _MIB}
        try:
            metrics["gpu_percent"] = float(cuda.utilization(self._device))
        except Exception:  # the package that asks the driver may be missing, or may not know
            return metrics
        return metrics


def _cuda() -> Any:
    """Give torch.cuda where a GPU is in use already: reading must not be what starts one."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_initialized() else None
