"""Curves for TensorBoard."""

from pathlib import Path
from typing import Any

from jemtrack.events.events import Metrics, RunStart, Status
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import Option, component, load_extra
from jemtrack.shared.plain import Scalar, as_text, flat
from jemtrack.trackers.base import SHORT, CurveTracker, Level, qualified


@component("tensorboard")
class TensorBoard(CurveTracker):
    """Writes event files into `folder/<run>`, in TensorBoard's single precision.

    `<run>` are the first digits of the run's id, so that a later run of the stage is shown beside
    this one. All curves go by optimization step: `batch/<metric>`, `measured/<metric>`, each
    epoch's metrics under their own names with its number as `epoch`, and `run/<metric>`. The
    parameters are a text and the run's row in the tab HParams.
    """

    folder: str = RunPath(str, "the folder of the event files", default="tensorboard")
    every: int = Option(int, "batches between two points", default=1, minimum=1)

    def _post_init_(self) -> None:
        self._tool = load_extra("tensorboard", "torch.utils.tensorboard")
        self._events = load_extra("tensorboard", "tensorboard.compat.proto.event_pb2")
        self._summary = load_extra("tensorboard", "torch.utils.tensorboard.summary")
        self._writer: Any = None
        self._last = 0  # the last step that has points
        self._points: dict[str, float] = {}  # of that step

    def begin(self, start: RunStart) -> None:
        """Open a file; write the parameters as a table and for the HParams tab.

        Readers drop what there is from a step on. So the points of the step at which the run
        resumes, some of which may come again, are dropped and written once more.
        """
        again = self._points if self._last == start.step else {}
        folder = Path(self.folder) / start.run_id[:SHORT]
        first = start.step if again or not start.step else start.step + 1
        self._writer = self._tool.SummaryWriter(str(folder), purge_step=first)
        for name, value in again.items():
            self._writer.add_scalar(name, value, start.step)
        if not self._last:  # no earlier session has
            self._add_parameters(flat(start.parameters), start.step)

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Add a scalar for each metric."""
        if self.step > self._last:
            self._last, self._points = self.step, {}
        number = {"epoch": float(step)} if level == Level.EPOCH else {}
        for name, value in {**number, **dict(qualified(level, metrics))}.items():
            self._points[name] = value
            self._writer.add_scalar(name, value, self.step)

    def void(self, step: int, epoch: int) -> None:
        """Tell readers of the files to drop what is void."""
        log = self._events.SessionLog(status=self._events.SessionLog.START)
        event = self._events.Event(step=step + 1, session_log=log)
        self._writer.file_writer.add_event(event)
        self._last, self._points = step, {}

    def artifact(self, path: Path, kind: str) -> None:
        """Show an image; TensorBoard keeps no other files."""
        if path.suffix == ".png":
            import numpy as np
            from PIL import Image

            pixels_HWC = np.asarray(Image.open(path).convert("RGB"))
            self._writer.add_image(path.stem, pixels_HWC, self.step, dataformats="HWC")

    def flush(self) -> None:
        """Write out what TensorBoard keeps back."""
        self._writer.flush()

    def end(self, status: Status) -> None:
        """Close the file."""
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the points of the last step, beside writing out all of them."""
        super().state_dict()
        return {"step": self._last, "points": {**self._points}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore those points."""
        self._last, self._points = state["step"], state["points"]

    def _add_parameters(self, parameters: dict[str, Scalar], step: int) -> None:
        rows = [f"| {name} | {as_text(value)} |" for name, value in parameters.items()]
        table = "\n".join(["| parameter | value |", "| --- | --- |", *rows])
        self._writer.add_text("parameters", table, step)
        # Without the list of metrics that usually comes with it, the tab offers all curves.
        _, session, _ = self._summary.hparams(parameters, {})
        self._writer.file_writer.add_summary(session)
