"""Curves for TensorBoard."""

from pathlib import Path
from typing import Any

from jemtrack.record.paths import RunPath
from jemtrack.record.plain import as_text, flat
from jemtrack.train.components import Option, component, load_extra
from jemtrack.train.events import (
    BatchEnd,
    Diverged,
    EpochEnd,
    Event,
    Measured,
    Metrics,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.train.handlers import Tracker

# TensorBoard voids what is void by step and folder, so each axis has a folder of its own.
_BATCHES, _EPOCHS, _RUN = "batches", "epochs", "run"


@component("tensorboard")
class TensorBoard(Tracker):
    """Writes event files into `folder`, in TensorBoard's single precision.

    `batches` holds `batch/<metric>` and `measured/<metric>` by optimization step, `epochs` each
    epoch's metrics under their names, `run` the parameters and `run/<metric>`.
    """

    folder: str = RunPath(str, "the folder of the event files", default="tensorboard")
    every: int = Option(int, "batches between two points", default=1, minimum=1)

    def _post_init_(self) -> None:
        self._tool = load_extra("tensorboard", "torch.utils.tensorboard")
        self._events = load_extra("tensorboard", "tensorboard.compat.proto.event_pb2")
        self._writers: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        """Add a point to each metric's curve."""
        match event:
            case BatchEnd(status=Status.SUCCESS):
                if event.step % self.every == 0:
                    self._add(_BATCHES, "batch/", event.metrics, event.step)
            case Measured():
                self._add(_BATCHES, "measured/", event.metrics, event.step)
            case EpochEnd(status=Status.SUCCESS):
                self._add(_EPOCHS, "", event.metrics, event.epoch)
                self._flush()
            case RunStart():
                self._start(event)
            case Diverged():
                self._void(_BATCHES, event.step + 1)
                self._void(_EPOCHS, event.epoch + 1)
            case RunEnd():
                self._add(_RUN, "run/", event.metrics, 0)

    def state_dict(self) -> dict[str, Any]:
        """Write out what is kept back: what a checkpoint holds does not happen again."""
        self._flush()
        return {}

    def close(self) -> None:
        """Write out what is kept back, and close the files."""
        while self._writers:
            self._writers.popitem()[1].close()

    def _start(self, event: RunStart) -> None:
        first_steps = {_BATCHES: event.step + 1, _EPOCHS: event.epoch + 1, _RUN: 0}
        for name, step in first_steps.items():
            folder = str(Path(self.folder) / name)
            self._writers[name] = self._tool.SummaryWriter(folder, purge_step=step)
        parameters = flat(event.parameters)
        rows = [f"| {name} | {as_text(value)} |" for name, value in parameters.items()]
        table = "\n".join(["| parameter | value |", "| --- | --- |", *rows])
        self._writers[_RUN].add_text("parameters", table, 0)
        self._writers[_RUN].add_hparams(parameters, {}, run_name=".")

    def _add(self, folder: str, prefix: str, metrics: Metrics, step: int) -> None:
        for name, value in metrics.items():
            self._writers[folder].add_scalar(f"{prefix}{name}", value, step)

    def _void(self, folder: str, step: int) -> None:
        """Tell readers to drop what the folder has of `step` and later."""
        log = self._events.SessionLog(status=self._events.SessionLog.START)
        event = self._events.Event(step=step, session_log=log)
        self._writers[folder].file_writer.add_event(event)

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()
