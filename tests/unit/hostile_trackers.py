"""Trackers that do what no tracker should, by themselves or with a backend that is broken."""

import ctypes
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

from jemtrack.events.events import BatchEnd, BatchStart, Event, RunStart
from jemtrack.events.handlers import Callback, Tracker
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import Option
from jemtrack.trackers.base import CurveTracker
from jemtrack.trackers.tensorboard import TensorBoard


def upset() -> None:
    """Change all that the code of a process shares, as far as it changes a training."""
    import numpy as np
    import torch

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1 + torch.get_num_threads() % 2)
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    torch.set_float32_matmul_precision("medium")


class Hostile(Tracker):
    """Upsets its process where it is made and at each event, and makes nonsense of PyTorch."""

    path: str = RunPath(str, "file for the events", default="events.txt")

    def _post_init_(self) -> None:
        upset()

    def __call__(self, event: Event) -> None:
        from torch.nn import functional

        upset()
        functional.linear = functional.batch_norm = functional.dropout = None
        os.chdir("/")
        with Path(self.path).open("a") as file:
            print(type(event).__name__, file=file)


class Ending(Tracker):
    """Ends in the way `how` at the first batch."""

    how: str = Option(str, "how to end")

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchStart):
            getattr(self, self.how)()

    def raises(self) -> None:
        raise ConnectionError("two\nlines")

    def exits(self) -> None:
        sys.exit(3)

    def vanishes(self) -> None:
        os._exit(3)

    def crashes(self) -> None:
        ctypes.string_at(0)

    def hangs(self) -> None:
        time.sleep(3600)

    def holds_python(self) -> None:
        """Hang as a call of C does that keeps the interpreter's lock."""
        ctypes.PyDLL(None).sleep(3600)


class HangingInClose(Tracker):
    def __call__(self, event: Event) -> None:
        pass

    def close(self) -> None:
        time.sleep(3600)


class WithState(Tracker):
    """Hands over a state that no checkpoint can hold, or fails to."""

    kind: str = Option(str, "set or error")

    def __call__(self, event: Event) -> None:
        pass

    def state_dict(self):
        if self.kind == "error":
            raise ValueError("no state")
        return {"state": {1, 2}}


class Lines(CurveTracker):
    """Appends each point to `path`, `seconds` late; void what comes again."""

    path: str = RunPath(str, "the file", default="points.txt")
    seconds: float = Option(float, "for each point", default=0.0)

    def begin(self, start: RunStart) -> None:
        self._write("begin", start.step)

    def points(self, level, step, metrics) -> None:
        time.sleep(self.seconds)
        self._write(level, step)

    def end(self, status) -> None:
        self._write("end", status)

    def _write(self, *what: object) -> None:
        with Path(self.path).open("a") as file:
            print(*what, file=file)


class Slow(Callback):
    """Makes each batch take a tenth of a second, and the tenth one wait for the file `until`."""

    until: str | None = Option(str | None, "file to wait for", default=None)

    def __call__(self, event: Any, state: Any) -> None:
        if isinstance(event, BatchEnd):
            time.sleep(0.1)
            while self.until and event.step == 10 and not Path(self.until).exists():
                time.sleep(0.1)


class FullDisk(TensorBoard):
    """TensorBoard, in whose process no file grows beyond 5 kB, as on a disk that is full."""

    def begin(self, start: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        super().begin(start)
