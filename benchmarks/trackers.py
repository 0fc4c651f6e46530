"""Measure the cost of the record and of the performance tracker: `python -m benchmarks.trackers`.

The cost of the record is the time to dispatch a batch's events to it. The performance tracker
runs in a thread: its cost is the CPU time of that thread, which is the most by which it delays the
training. Both are compared with a step of 100 ms. The variants alternate, so that other work of the
machine affects all of them equally; figures are medians over the rounds.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jemtrack.record.jsonl import JsonLines, LineFile
from jemtrack.trackers.performance import Gauges, Performance
from jemtrack.train.events import BatchEnd, PhaseStart, Position, RunStart

STEP_SECONDS = 0.1
BAR_PERCENT = 1.0
METRICS = {"loss": 0.123456789, "cross_entropy": 1 / 3, "entropy_penalty": 2 / 7}
INTERVAL_SECONDS = 1.0


def record_seconds(folder: Path, n_batches: int) -> float:
    """Measure the seconds that the record takes for a batch."""
    record = JsonLines(folder=str(folder / "record"))
    record(RunStart("benchmark", {}))
    record(PhaseStart(Position(), "train", 1, 1, n_batches))
    events = [BatchEnd(Position(0, 0, i), METRICS, i) for i in range(1, n_batches + 1)]
    started = time.perf_counter()
    for event in events:
        record(event)
    seconds = time.perf_counter() - started
    record.close()
    return seconds / n_batches


def sampling_seconds(folder: Path, n_samples: int, *, light: bool) -> float:
    """Measure the CPU seconds of a sample in the thread that takes it."""
    tracker = Performance(path=str(folder / "performance.jsonl"), light=light)
    spent: list[float] = []

    def sample() -> None:
        tracker._gauges = Gauges(light=light)
        file = LineFile(Path(tracker.path))
        for _ in range(n_samples):
            tracker._gauges._search_due = 0.0  # as if a second had passed
            started = time.thread_time()
            tracker._sample(file)
            spent.append(time.thread_time() - started)
        file.close()

    thread = threading.Thread(target=sample)
    thread.start()
    thread.join()
    return statistics.median(spent)


def rows(folder: Path, n_rounds: int) -> list[tuple[str, float, float]]:
    """Return each tracker's name, microseconds per batch or sample, and percent of a step."""
    variants: dict[str, tuple[Callable[[], float], float]] = {
        "jsonl, a batch": (lambda: record_seconds(folder, 2000), 1 / STEP_SECONDS),
        "performance, a sample": (
            lambda: sampling_seconds(folder, 50, light=False),
            1 / INTERVAL_SECONDS,
        ),
        "performance light, a sample": (
            lambda: sampling_seconds(folder, 50, light=True),
            1 / INTERVAL_SECONDS,
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(n_rounds):
        for name, (measure, _) in variants.items():
            seconds[name].append(measure())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        (name, medians[name] * 1e6, medians[name] * times_a_second * 100)
        for name, (_, times_a_second) in variants.items()
    ]


def main() -> None:
    """Print a table; exit with status 1 if a tracker exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder), options.rounds)
    if options.json:
        print(json.dumps([{"tracker": n, "microseconds": m, "percent": p} for n, m, p in found]))
    else:
        print(f"{'':28} {'median':>9} {f'of {STEP_SECONDS * 1000:.0f} ms steps':>18}")
        for name, microseconds, percent in found:
            print(f"{name:28} {microseconds:6.0f} us {percent:17.3f}%")
    if any(percent > BAR_PERCENT for _, _, percent in found):
        raise SystemExit(f"more than {BAR_PERCENT:g}%")


if __name__ == "__main__":
    main()
