"""What a person sees while a training runs."""

import logging
import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from jemtrack.engine.components import Option, component
from jemtrack.engine.events import (
    BatchEnd,
    EpochEnd,
    EpochStart,
    Event,
    Metrics,
    PhaseStart,
    RunStart,
    Status,
)
from jemtrack.engine.listeners import Listener

log = logging.getLogger("jemtrack")


def written(metrics: Metrics) -> str:
    """Write metrics in a line: `loss 0.1234 | accuracy 0.9801`."""
    return " | ".join(f"{name} {value:.4f}" for name, value in metrics.items())


@component("lines")
class Lines(Listener):
    """Logs a line every `print_every` batches and one at each epoch's end."""

    print_every: int = Option(int, "batches between two lines", default=100, minimum=1)

    def __call__(self, event: Event) -> None:
        """Log what is due."""
        if isinstance(event, RunStart):
            self.run = event.name
        elif isinstance(event, PhaseStart):
            self.phase = event
        elif isinstance(event, EpochStart):
            self.started = time.perf_counter()
        elif isinstance(event, BatchEnd) and self._due(event):
            log.info(self._line(event.position.epoch + 1, event.position.batch, event.metrics))
        elif isinstance(event, EpochEnd) and event.status == Status.SUCCESS:
            log.info(self._line(event.position.epoch, self.phase.n_batches, event.metrics))

    def _due(self, event: BatchEnd) -> bool:
        return event.status == Status.SUCCESS and event.position.batch % self.print_every == 0

    def _line(self, epoch: int, batch: int, metrics: Metrics) -> str:
        seconds = (time.perf_counter() - self.started) / max(batch, 1)
        phase = self.phase
        place = (
            f"Step {phase.name} ({phase.position.phase + 1}/{phase.n_phases})"
            f" | Epoch {epoch}/{phase.n_epochs} | Batch {batch}/{phase.n_batches}"
        )
        return f"{self.run} | {place} | {written(metrics)} | {seconds:.3f} s/batch"


@component("progress")
class ProgressBar(Listener):
    """Draws a bar of the run's batches on a terminal."""

    def _post_init_(self) -> None:
        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=None, metrics="")

    def __call__(self, event: Event) -> None:
        """Move the bar."""
        if isinstance(event, RunStart):
            self._bar.update(self._task, description=event.name)
            self._bar.start()
        elif isinstance(event, PhaseStart):
            done = event.position.epoch * event.n_batches + event.position.batch
            self._bar.update(self._task, total=event.n_epochs * event.n_batches, completed=done)
        elif isinstance(event, BatchEnd):
            self._bar.advance(self._task)
        elif isinstance(event, EpochEnd) and event.status == Status.SUCCESS:
            shown = f"epoch {event.position.epoch} | {written(event.metrics)}"
            self._bar.update(self._task, metrics=shown)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()
