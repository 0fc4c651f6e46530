"""What a user sees while a training runs: lines, a progress bar, a log file."""

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from jemtrack.events.events import (
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
from jemtrack.events.handlers import EventHandler, Tracker
from jemtrack.record.history import HistoryCsv
from jemtrack.shared.components import Option, component

log = logging.getLogger("jemtrack")


def format_metrics(metrics: Metrics) -> str:
    """Format metrics as a line: `loss 0.1234 | accuracy 0.9801`."""
    return " | ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def format_phase(phase: PhaseStart) -> str:
    """Format a phase and its number, `Phase warm-up (1/3)`; "" for the only phase of a run."""
    if phase.n_phases == 1:
        return ""
    return f"Phase {phase.name} ({_of(phase.position.phase + 1, phase.n_phases)})"


def format_resumption(position: Position) -> str:
    """Format where a run resumes: `resumed from epoch 3, batch 9`, counted from 1."""
    phase = f"phase {position.phase + 1}, " if position.phase else ""
    return f"resumed from {phase}epoch {position.epoch + 1}, batch {position.batch + 1}"


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
                log.info(self._line(f"ended: {event.reason}"))
            case Diverged():
                log.warning(self._line(_format_divergence(event)))

    def _line(self, *parts: str) -> str:
        return " | ".join(filter(None, [self._run, format_phase(self._phase), *parts]))

    def _start_epoch(self) -> None:
        self._seconds, self._n_batches = 0.0, 0

    def _batch(self, event: BatchEnd) -> None:
        self._seconds += event.seconds
        self._n_batches += 1
        if event.position.batch % self.print_every == 0:
            self._log_progress(event.position.epoch + 1, event.position.batch, event.metrics)

    def _log_progress(self, epoch: int, batch: int, metrics: Metrics) -> None:
        phase = self._phase
        parts = [f"Epoch {_of(epoch, phase.n_epochs)}"]
        # A loop of the user's may report no batches.
        if batch:
            parts.append(f"Batch {_of(batch, phase.n_batches)}")
        parts.append(format_metrics(metrics))
        if batch:
            parts.append(f"{self._seconds / max(self._n_batches, 1):.3f} s/batch")
        log.info(self._line(*parts))


# The measures that a terminal shows, and their names beside the bar, where 80 columns must do.
_MAIN = {"loss": "loss", "train_loss": "loss", "valid_nll": "nll", "valid_accuracy": "acc"}
_N_OTHERS = 2  # metrics of a training that has none of these
_MOST_LINES = 40  # that a phase leaves on the screen
_BAR, _BESIDE = (10, 40), 70  # the bar's columns, at least and at most; columns beside it


class _MetricsColumn(ProgressColumn):
    """The metrics in one line: the only column that is cut where the terminal is too narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["metrics"], no_wrap=True, overflow="ellipsis")


@component("progress")
class ProgressBar(Tracker):
    """Draws a bar of the batches of each phase on a terminal, and leaves lines about epochs."""

    live = True
    _phase: PhaseStart

    def _post_init_(self) -> None:
        console = Console(stderr=True, highlight=False)
        width = min(max(console.width - _BESIDE, _BAR[0]), _BAR[1])
        columns = (
            BarColumn(width, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[place]}"),
            TimeRemainingColumn(),
            _MetricsColumn(),
        )
        # A batch may take a minute, and the time left is known after two.
        self._bar = Progress(*columns, console=console, speed_estimate_period=300)
        self._task = self._bar.add_task("", total=None, place="", metrics="")
        self._has_epoch = False

    def __call__(self, event: Event) -> None:
        """Move the bar."""
        match event:
            case BatchEnd(status=Status.SUCCESS):
                # Until there are means over an epoch, the losses of the last batch.
                metrics = {} if self._has_epoch else {"metrics": _short(event.metrics)}
                self._move(event.position, event.position.epoch + 1, **metrics)
            case EpochEnd(status=Status.SUCCESS):
                self._end_epoch(event)
            case RunStart():
                self._print(event.name)
                if event.position > Position():
                    self._print(format_resumption(event.position))
            case PhaseStart():
                self._start_phase(event)
            case PhaseEnd(status=Status.SUCCESS):
                self._end_phase(event)
            case Diverged():
                self._move(event.back_to, event.back_to.epoch + 1)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def _start_phase(self, phase: PhaseStart) -> None:
        self._phase, self._has_epoch = phase, False
        self._print(format_phase(phase))
        total = phase.n_epochs * max(phase.n_batches, 1)
        self._bar.reset(self._task, total=total or None, place="", metrics="")
        self._move(phase.position, phase.position.epoch + 1)
        self._bar.start()

    def _end_epoch(self, event: EpochEnd) -> None:
        self._has_epoch = True
        epoch, n_epochs = event.position.epoch, self._phase.n_epochs
        self._move(event.position, epoch, metrics=_short(event.metrics))
        if epoch == n_epochs or epoch % math.ceil(max(n_epochs, 1) / _MOST_LINES) == 0:
            metrics = format_metrics(_main(event.metrics))
            self._print(f"epoch {_of(epoch, n_epochs)} | {metrics}")

    def _end_phase(self, event: PhaseEnd) -> None:
        done = self._completed(event.position)
        if event.position.epoch < self._phase.n_epochs:
            self._print(f"ended: {event.reason}")
        self._bar.update(self._task, completed=done, total=done or None)

    def _move(self, position: Position, epoch: int, **fields: Any) -> None:
        """Show that `position` is reached, in the `epoch`, from 1."""
        n_batches = self._phase.n_batches
        # At the end of an epoch, all of its batches are done.
        batch = position.batch if epoch > position.epoch else n_batches
        place = f"epoch {_of(epoch, self._phase.n_epochs)}"
        if batch or n_batches:
            place += f" batch {_of(batch, n_batches)}"
        self._bar.update(self._task, completed=self._completed(position), place=place, **fields)

    def _completed(self, position: Position) -> int:
        """Count the batches of the phase so far; its epochs if their size is not known."""
        n_batches = self._phase.n_batches
        return position.epoch * n_batches + position.batch if n_batches else position.epoch

    def _print(self, line: str) -> None:
        """Leave a line above the bar, cut at the edge of the terminal."""
        if line:
            self._bar.console.print(line, markup=False, no_wrap=True, overflow="ellipsis")


def _main(metrics: Metrics) -> Metrics:
    found = [name for name in _MAIN if name in metrics] or [*metrics][:_N_OTHERS]
    return {name: metrics[name] for name in found}


def _short(metrics: Metrics) -> str:
    return " ".join(
        f"{_MAIN.get(name, name)} {value:.4g}" for name, value in _main(metrics).items()
    )


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


class _OnScreen(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the moment, which a progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextlib.contextmanager
def run_log(file: Path | None, *, on_screen: bool) -> Iterator[None]:
    """Send what is logged in the block to `file`, and to standard error if `on_screen`.

    Without `on_screen`, where a progress bar shows the rest, standard error gets warnings alone.
    """
    handlers: list[logging.Handler] = [_OnScreen()]
    handlers[0].setLevel(logging.INFO if on_screen else logging.WARNING)
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
