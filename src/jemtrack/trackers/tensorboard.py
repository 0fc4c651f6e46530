"""Curves for TensorBoard."""

from pathlib import Path
from typing import Any

from jemtrack.record.paths import RunPath
from jemtrack.trackers.base import CurveTracker, Level, qualified
from jemtrack.train.components import Option, component, load_extra
from jemtrack.train.events import Metrics, RunStart, Status
from jemtrack.train.plain import as_text, flat

# TensorBoard drops what is void by step and folder, so each kind of step has its own folder.
_BATCHES, _EPOCHS, _RUN = "batches", "epochs", "run"
_FOLDERS = {
    Level.BATCH: _BATCHES,
    Level.MEASURED: _BATCHES,
    Level.EPOCH: _EPOCHS,
    Level.RUN: _RUN,
}


@component("tensorboard")
class TensorBoard(CurveTracker):
    """Writes event files into `folder`, in TensorBoard's single precision.

    `batches` holds `batch/<metric>` and `measured/<metric>` by optimization step, `epochs` each
    epoch's metrics under their own names, `run` the parameters and `run/<metric>`.
    """

    folder: str = RunPath(str, "the folder of the event files", default="tensorboard")
    every: int = Option(int, "batches between two points", default=1, minimum=1)

    def _post_init_(self) -> None:
        self._tool = load_extra("tensorboard", "torch.utils.tensorboard")
        self._events = load_extra("tensorboard", "tensorboard.compat.proto.event_pb2")
        self._writers: dict[str, Any] = {}

    def begin(self, start: RunStart) -> None:
        """Open a file in each folder; write the parameters as a table and for the HParams tab."""
        first_steps = {_BATCHES: start.step + 1, _EPOCHS: start.epoch + 1, _RUN: 0}
        for name, step in first_steps.items():
            folder = str(Path(self.folder) / name)
            self._writers[name] = self._tool.SummaryWriter(folder, purge_step=step)
        parameters = flat(start.parameters)
        rows = [f"| {name} | {as_text(value)} |" for name, value in parameters.items()]
        table = "\n".join(["| parameter | value |", "| --- | --- |", *rows])
        self._writers[_RUN].add_text("parameters", table, 0)
        self._writers[_RUN].add_hparams(parameters, {}, run_name=".")

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Add a scalar for each metric."""
        for name, value in qualified(level, metrics, "/"):
            self._writers[_FOLDERS[level]].add_scalar(name, value, step)

    def void(self, step: int, epoch: int) -> None:
        """Tell readers of the files to drop what is void."""
        for folder, last in ((_BATCHES, step), (_EPOCHS, epoch)):
            log = self._events.SessionLog(status=self._events.SessionLog.START)
            event = self._events.Event(step=last + 1, session_log=log)
            self._writers[folder].file_writer.add_event(event)

    def flush(self) -> None:
        """Write out what TensorBoard keeps back."""
        for writer in self._writers.values():
            writer.flush()

    def end(self, status: Status) -> None:
        """Close the files."""
        while self._writers:
            self._writers.popitem()[1].close()
