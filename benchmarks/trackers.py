"""Measure the cost of the trackers: `python -m benchmarks.trackers`.

All trackers together watch steps of 100 ms. Their cost is what a step's events take in the
training's thread, less what they take without trackers, plus the CPU time of the threads that send
the events on; the CPU time of the trackers' own processes is a row of its own. The record and the
performance tracker are measured alone, too: by the time to dispatch a batch's events, and by the
CPU time of the thread that samples, which is the most by which it delays the training. The variants
alternate, so that other work of the machine affects all of them equally; figures are medians over
the rounds.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from jemtrack.errors import InputError
from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.events.handlers import EventHandler
from jemtrack.record.jsonl import JsonLines, LineFile
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.components import TRACKER, load_components
from jemtrack.shared.metrics import declare_metric
from jemtrack.trackers.performance import Gauges, Performance
from jemtrack.train.state import TrainState

STEP_SECONDS = 0.1
BAR_PERCENT = 1.0
METRICS = {"loss": 0.123456789, "cross_entropy": 1 / 3, "entropy_penalty": 2 / 7}
INTERVAL_SECONDS = 1.0
STEPS_AN_EPOCH = 20
WATCHING = (
    {"type": "jsonl"},
    {"type": "history"},
    {"type": "lines"},
    {"type": "performance"},
    {"type": "tensorboard"},
    {"type": "dvclive"},
    {"type": "sql"},
    {"type": "mlflow", "every": 1},
    {"type": "wandb", "every": 1},
    {"type": "aim", "every": 1},
)


class Watched(NamedTuple):
    """Seconds a step: in the training's thread, of its process's other threads, of trackers."""

    dispatch: float
    threads: float
    processes: float


@contextlib.contextmanager
def dispatcher(folder: Path, *, watched: bool) -> Iterator[EventDispatcher]:
    """Make a dispatcher for all trackers, or none, and wait until they are ready."""
    paths = RunPaths(run=folder, project=folder)
    handlers: list[EventHandler] = []
    for entry in WATCHING if watched else ():
        with contextlib.suppress(InputError):  # its package is not installed
            handlers.append(build_tracker(entry, paths))
    made = EventDispatcher(handlers, [], TrainState({}))
    made.dispatch(RunStart("benchmark", {"lr": 0.1}, run_id=folder.name, session_id="1"))
    made.dispatch(PhaseStart(Position(), "train", 1, 1000, STEPS_AN_EPOCH))
    while any((state := each.state_dict())["tracker"] is None for each in made.processes):
        if state["lost"]:
            raise SystemExit("a tracker has failed: see the warning above")
        time.sleep(0.1)
    yield made
    made.end(RunEnd(Status.SUCCESS, METRICS))


def watched_seconds(folder: Path, n_steps: int, *, watched: bool) -> Watched:
    """Measure the seconds of CPU and of the training's thread that watching a step takes."""
    folder.mkdir()
    spent = []
    with dispatcher(folder, watched=watched) as made:
        before = _cpu_seconds()
        for step in range(n_steps):
            began = time.perf_counter()
            _dispatch_step(made, step)
            spent.append(time.perf_counter() - began)
            time.sleep(STEP_SECONDS)
        threads, processes = (
            (after - first) / n_steps for after, first in zip(_cpu_seconds(), before, strict=True)
        )
    # An epoch has one costly step, its end: it belongs to the mean, a step that waited does not.
    epochs = [spent[first : first + STEPS_AN_EPOCH] for first in range(0, n_steps, STEPS_AN_EPOCH)]
    return Watched(statistics.median(map(statistics.mean, epochs)), threads, processes)


def _dispatch_step(made: EventDispatcher, step: int) -> None:
    epoch, batch = divmod(step, STEPS_AN_EPOCH)
    if batch == 0:
        made.dispatch(EpochStart(Position(0, epoch)))
    made.dispatch(BatchStart(Position(0, epoch, batch)))
    made.dispatch(BatchEnd(Position(0, epoch, batch + 1), METRICS, step + 1, STEP_SECONDS))
    if batch + 1 == STEPS_AN_EPOCH:
        metrics = {f"train_{name}": value for name, value in METRICS.items()}
        made.dispatch(EpochEnd(Position(0, epoch + 1), metrics, epoch + 1, step + 1))


def _cpu_seconds() -> tuple[float, float]:
    """Return the CPU seconds of this process's other threads, and of its children."""
    children = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            children += times.user + times.system
    return time.process_time() - time.thread_time(), children


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


ALL, BESIDE = "all trackers, a step", "their processes, a step"


def rows_together(folder: Path, n_rounds: int, n_steps: int) -> list[tuple[str, float, float]]:
    """Return the same of all trackers together, and of their processes."""
    found: dict[bool, list[Watched]] = {False: [], True: []}
    for number in range(n_rounds):
        for watched, runs in found.items():
            runs.append(watched_seconds(folder / f"{number}{watched}", n_steps, watched=watched))
    alone, together = (
        Watched(*map(statistics.median, zip(*found[watched], strict=True)))
        for watched in (False, True)
    )
    costs = {
        ALL: together.dispatch + together.threads - alone.dispatch - alone.threads,
        BESIDE: together.processes,
    }
    return [(name, cost * 1e6, cost / STEP_SECONDS * 100) for name, cost in costs.items()]


def main() -> None:
    """Print a table; exit with status 1 if a tracker exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200, help="steps a round, of all trackers")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    load_components(TRACKER)
    for name in METRICS:
        declare_metric(name)
    os.environ.update(WANDB_MODE="offline", MLFLOW_DISABLE_TELEMETRY="true")
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder), options.rounds)
        found += rows_together(Path(folder), min(options.rounds, 3), options.steps)
    if options.json:
        print(json.dumps([{"tracker": n, "microseconds": m, "percent": p} for n, m, p in found]))
    else:
        print(f"{'':28} {'median':>9} {f'of {STEP_SECONDS * 1000:.0f} ms steps':>18}")
        for name, microseconds, percent in found:
            print(f"{name:28} {microseconds:6.0f} us {percent:17.3f}%")
    if any(percent > BAR_PERCENT for name, _, percent in found if name != BESIDE):
        raise SystemExit(f"more than {BAR_PERCENT:g}%")


if __name__ == "__main__":
    main()
