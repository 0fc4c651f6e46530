"""What a training takes of its machine, read at an interval."""

import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from jemtrack.engine.components import Option, component
from jemtrack.engine.events import BatchEnd, EpochEnd, EpochStart, Event, Measured, RunStart, Status
from jemtrack.engine.listeners import Listener
from jemtrack.trackers.gauges import Gauges
from jemtrack.trackers.json_lines import LineFile
from jemtrack.trackers.places import RunPath

log = logging.getLogger("jemtrack")

_THREAD = "jemtrack performance"
_SUMS = {"read_mib", "written_mib"}  # they only grow: the last value says it all


@component("performance")
class Performance(Listener):
    """Reads CPU, memory, disk and GPU in a thread and appends each sample to `path`.

    A sample is a line of JSON, with the `seconds` that taking it took. At each epoch's end, the
    means and, under `<metric>.peak`, the peaks over its samples are announced as `Measured`.
    The last `history` samples stay in memory, so that no epoch's summary is over more of them.
    `light` reads CPU and memory of the process alone.
    """

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
        """Begin to read at the run's start; announce a summary at an epoch's end."""
        match event:
            case BatchEnd():
                self._step = event.step
            case EpochStart():
                self._gauges.follow_device()
            case EpochEnd(status=Status.SUCCESS):
                summary = self._summary()
                if summary:
                    self.announce(Measured(summary, event.step))
            case RunStart():
                self._session, self._step = event.session_id, event.step
                self._gauges = Gauges(light=self.light)
                self._thread = threading.Thread(target=self._watch, name=_THREAD, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the reading."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        """Take a sample every `interval` seconds until the end."""
        try:
            file = LineFile(Path(self.path))
            try:
                while not self._stop.wait(self.interval):
                    self._sample(file)
            finally:
                file.close()
        except Exception as error:
            log.warning(f"Performance reads no more, training goes on: {error!r}")

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
        """Give means and peaks of the samples since the last summary; nothing if there is none."""
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
