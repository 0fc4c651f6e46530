"""What a user sees while a training runs: lines, a progress bar, a log file."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jemtrack.record.history import HistoryCsv
from jemtrack.shared.components import Option, component
from jemtrack.train.events import (
    BatchEnd,
    Diverged,
    EpochEnd,
    EpochStart,
    Event,
    Metrics,
    PhaseEnd,
    PhaseStart,
    Position,
    RunStart,
    Status,
)
from jemtrack.train.handlers import EventHandler, Tracker

log = logging.getLogger("jemtrack")


def format_metrics(metrics: Metrics) -> str:
    """Format metrics as a line: `loss 0.1234 | accuracy 0.9801`."""
    return " | ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def format_phase(phase: PhaseStart) -> str:
    """Format a phase and its number: `Step warm-up (1/3)`."""
    return f"Step {phase.name} ({_of(phase.position.phase + 1, phase.n_phases)})"


@component("lines")
class Lines(Tracker):
    """Logs a line every `print_every` batches, after each epoch, and about what goes wrong.

    The seconds per batch are the mean over the batches of the epoch so far.
    """

    live = True
    print_every: int = Option(int, "batches between two lines", default=100, minimum=1)

    _run: str
    _phase: PhaseStart

    def _post_init_(self) -> None:
        self._start_epoch()

    def __call__(self, event: Event) -> None:
        """Log what is due."""
        match event:
            case BatchEnd(status=Status.SUCCESS):
                self._batch(event)
            case EpochEnd(status=Status.SUCCESS):
                n_batches = self._phase.n_batches or self._n_batches
                self._log_progress(event.position.epoch, n_batches, event.metrics)
            case RunStart():
                self._run = event.name
            case PhaseStart():
                self._phase = event
            case EpochStart():
                self._start_epoch()
            case PhaseEnd() if event.reason:
                log.info(f"{self._run} | {format_phase(self._phase)} | ended: {event.reason}")
            case Diverged():
                log.warning(
                    f"{self._run} | {format_phase(self._phase)} | {_format_divergence(event)}"
                )

    def _start_epoch(self) -> None:
        self._seconds, self._n_batches = 0.0, 0

    def _batch(self, event: BatchEnd) -> None:
        self._seconds += event.seconds
        self._n_batches += 1
        if event.position.batch % self.print_every == 0:
            self._log_progress(event.position.epoch + 1, event.position.batch, event.metrics)

    def _log_progress(self, epoch: int, batch: int, metrics: Metrics) -> None:
        phase = self._phase
        parts = [self._run, format_phase(phase), f"Epoch {_of(epoch, phase.n_epochs)}"]
        # A loop of the user's may report no batches.
        if batch:
            parts.append(f"Batch {_of(batch, phase.n_batches)}")
        parts.append(format_metrics(metrics))
        if batch:
            parts.append(f"{self._seconds / max(self._n_batches, 1):.3f} s/batch")
        log.info(" | ".join(part for part in parts if part))


@component("progress")
class ProgressBar(Tracker):
    """Draws a bar of the batches of the run on a terminal.

    The total grows with each phase that starts, because the length of a phase is not known before.
    """

    live = True
    _run: str
    _phase: PhaseStart

    def _post_init_(self) -> None:
        # Imported here: most stages run without a terminal.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=None, metrics="")
        self._lengths: dict[int, int] = {}  # batches, by the phase's number

    def __call__(self, event: Event) -> None:
        """Move the bar."""
        match event:
            case BatchEnd(status=Status.SUCCESS):
                self._bar.update(self._task, completed=self._done(event.position))
            case EpochEnd(status=Status.SUCCESS):
                metrics = f"epoch {event.epoch} | {format_metrics(event.metrics)}"
                completed = self._done(event.position)
                self._bar.update(self._task, metrics=metrics, completed=completed)
            case RunStart():
                self._run = event.name
                self._bar.start()
            case PhaseStart():
                self._phase = event
                self._lengths[event.position.phase] = event.n_epochs * max(event.n_batches, 1)
                self._count(event.position)
            case PhaseEnd(status=Status.SUCCESS):
                # It may have ended before its last epoch.
                self._lengths[event.position.phase] = self._within(event.position)
                self._count(event.position)
            case Diverged():
                self._bar.update(self._task, completed=self._done(event.back_to))

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def _count(self, position: Position) -> None:
        number = _of(self._phase.position.phase + 1, self._phase.n_phases)
        self._bar.update(
            self._task,
            description=f"{self._run} step {number}",
            total=sum(self._lengths.values()) or None,  # None: not known
            completed=self._done(position),
        )

    def _done(self, position: Position) -> int:
        before = (length for phase, length in self._lengths.items() if phase < position.phase)
        return sum(before) + self._within(position)

    def _within(self, position: Position) -> int:
        """Count the batches of the phase so far; its epochs if their size is not known."""
        n_batches = self._phase.n_batches
        return position.epoch * n_batches + position.batch if n_batches else position.epoch


def _of(number: int, total: int) -> str:
    return f"{number}/{total}" if total else f"{number}"


def _format_divergence(event: Diverged) -> str:
    at, back_to = (
        f"epoch {position.epoch + 1}, batch {position.batch + 1}"
        for position in (event.position, event.back_to)
    )
    return (
        f"diverged at {at} ({format_metrics(event.losses)}): back to {back_to} with "
        f"{event.lr_scale:g} times the learning rates (return {event.retry})"
    )


def default_trackers(history: Path, print_every: int) -> list[EventHandler]:
    """Return the trackers of every stage: history file, log lines and, on a terminal, a bar."""
    lines = Lines(print_every=print_every)
    bar = [ProgressBar()] if sys.stderr.isatty() else []
    return [HistoryCsv(path=str(history)), lines, *bar]


@contextlib.contextmanager
def run_log(file: Path | None, *, on_screen: bool) -> Iterator[None]:
    """Send what is logged in the block to standard error, if `on_screen`, and to `file`."""
    handlers: list[logging.Handler] = []
    if on_screen:
        handlers.append(logging.StreamHandler(sys.stderr))
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file))
    logger = logging.getLogger("jemtrack")
    level = logger.level
    logger.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[{asctime}] {message}", "%H:%M:%S", style="{"))
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
