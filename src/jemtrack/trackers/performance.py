"""CPU, memory, disk and GPU of a training, read at an interval."""

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from jemtrack.events.events import BatchEnd, EpochEnd, EpochStart, Event, Measured, RunStart, Status
from jemtrack.events.handlers import Tracker
from jemtrack.record.jsonl import LineFile
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import Option, component
from jemtrack.shared.metrics import declare_metric

log = logging.getLogger("jemtrack")

_MIB = 1 << 20
# Children are found among all processes of the machine, which may be thousands: the next search
# waits this many times as long as the last one took.
_REST = 200

for _name in ("machine_cpu_percent", "machine_memory_mib", "machine_gpu_memory_mib"):
    declare_metric(_name)


class Gauges:
    """Reads the use of CPU, memory, disk and GPU by a process, and by the machine.

    `light` reads the CPU and memory of the process alone, without its children.
    """

    def __init__(self, *, light: bool) -> None:
        self.light = light
        self._process = psutil.Process()
        self._children: dict[int, psutil.Process] = {}
        self._search_due = 0.0
        self._device = 0
        self._read, self._written = self._disk()
        # psutil measures the CPU since the last call: the first one has nothing to return.
        self.read()

    def follow_device(self) -> None:
        """Read the GPU that the calling thread works on from now on."""
        if cuda := _cuda():
            self._device = cuda.current_device()

    def read(self) -> dict[str, float]:
        """Read everything that this machine tells.

        `cpu_percent` (100 is one core, over the time since the last reading) and `memory_mib`
        belong to the process and its children, `read_mib` and `written_mib` to the process since
        the start, `gpu_memory_mib` is what PyTorch holds, `gpu_percent` the load of the whole
        GPU. `machine_cpu_percent` (100 is all cores), `machine_memory_mib` and
        `machine_gpu_memory_mib` count every process.
        """
        metrics = self._processes()
        if not self.light:
            read, written = self._disk()
            if read or written:
                metrics["read_mib"] = (read - self._read) / _MIB
                metrics["written_mib"] = (written - self._written) / _MIB
            metrics["machine_cpu_percent"] = psutil.cpu_percent()
            metrics["machine_memory_mib"] = psutil.virtual_memory().used / _MIB
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
        """List the children as the objects of the last time, which know their last readings."""
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
        # The package that asks the driver may be missing, and not every driver knows.
        with contextlib.suppress(Exception):
            metrics["gpu_percent"] = float(cuda.utilization(self._device))
        with contextlib.suppress(Exception):
            free, total = cuda.mem_get_info(self._device)
            metrics["machine_gpu_memory_mib"] = (total - free) / _MIB
        return metrics


def _cuda() -> Any:
    """Return torch.cuda if a GPU is in use already: reading must not initialize one."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_initialized() else None


_THREAD = "jemtrack performance"
_CLOSE_SECONDS = 2.0
_SUMS = {"read_mib", "written_mib"}  # they only grow, so that the last value is enough


@component("performance")
class Performance(Tracker):
    """Reads CPU, memory, disk and GPU in a thread and appends each sample to `path`.

    A sample is a line of JSON, with the `seconds` that reading took. After each epoch, `Measured`
    tells the other trackers the means and, as `<metric>.peak`, the peaks of its samples. The last
    `history` samples stay in memory, so a summary covers at most that many. `light` reads the CPU
    and memory of the process alone.
    """

    live = True
    path: str = RunPath(str, "the JSON lines file of the samples", default="performance.jsonl")
    interval: float = Option(float, "seconds between two samples", default=1.0, minimum=0.01)
    history: int = Option(int, "samples kept in memory", default=3600, minimum=1)
    light: bool = Option(bool, "CPU and memory of the process alone", default=False)

    _gauges: Gauges

    def _post_init_(self) -> None:
        self.samples: deque[dict[str, float]] = deque(maxlen=self.history)
        self._new = 0  # samples since the last summary
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._session, self._step = "", 0

    def __call__(self, event: Event) -> None:
        """Start reading with the run; dispatch a summary after each epoch."""
        match event:
            case BatchEnd():
                self._step = event.step
            case EpochStart():
                self._gauges.follow_device()
            case EpochEnd(status=Status.SUCCESS):
                summary = self._summary()
                if summary:
                    self.dispatch(Measured(summary, event.step))
            case RunStart():
                self._session, self._step = event.session_id, event.step
                self._gauges = Gauges(light=self.light)
                self._thread = threading.Thread(target=self._watch, name=_THREAD, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop reading; do not wait long for a driver or a disk that does not answer."""
        self._stop.set()
        if self._thread:
            self._thread.join(_CLOSE_SECONDS)

    def _watch(self) -> None:
        """Take a sample every `interval` seconds until the tracker is closed."""
        try:
            file = LineFile(Path(self.path))
            try:
                while not self._stop.wait(self.interval):
                    self._sample(file)
            finally:
                file.close()
        except Exception as error:
            log.warning(f"Performance stopped reading, training continues: {error!r}")

    def _sample(self, file: LineFile) -> None:
        started = time.perf_counter()
        metrics = self._gauges.read()
        with self._lock:
            self.samples.append(metrics)
            self._new += 1
        file.write(
            {
                "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
                "session_id": self._session,
                "global_step": self._step,
                "seconds": time.perf_counter() - started,
                "metrics": metrics,
            }
        )

    def _summary(self) -> dict[str, float]:
        """Summarise the samples since the last summary; empty if there are none."""
        with self._lock:
            samples = [*self.samples][-self._new :] if self._new else []
            self._new = 0
        summary: dict[str, float] = {}
        for name in dict.fromkeys(name for sample in samples for name in sample):
            values = [sample[name] for sample in samples if name in sample]
            if name in _SUMS:
                summary[name] = values[-1]
            else:
                summary[name] = sum(values) / len(values)
                summary[f"{name}.peak"] = max(values)
        return summary
