"""Results of stages that train nothing, shown to the trackers of `jemtrack.yaml`."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import ArtifactSaved, RunEnd, RunStart, Status, new_session
from jemtrack.events.handlers import Tracker
from jemtrack.project.runtime import runtime_trackers
from jemtrack.train.state import TrainState


class ResultTracking:
    """The trackers of a stage; made before its work, so that a problem of the file shows at once.

    Raises:
        InputError: with a line for each problem of `jemtrack.yaml`.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        found = runtime_trackers(Path("experiment", stage), live=False)
        self.trackers = [each for each in found if isinstance(each, Tracker)]

    def send(
        self, parameters: Mapping[str, Any], metrics: Mapping[str, Any], files: Sequence[Path]
    ) -> None:
        """Show the trackers a run of the stage: its parameters, metrics and files.

        A number in nested objects is named by its path: `run/MaxEntropyL2/auroc/fmnist`.
        """
        if not self.trackers:
            return
        dispatcher = EventDispatcher(self.trackers, [], TrainState({}))
        dispatcher.dispatch(RunStart(self.stage, parameters, uuid.uuid4().hex, new_session()))
        for path in files:
            dispatcher.dispatch(ArtifactSaved(path, "results"))
        values = dict(_numbers("", metrics))
        dispatcher.end(RunEnd(Status.SUCCESS, values))


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _numbers(f"{path}/{name}" if path else name, entry)
    elif isinstance(value, int | float):
        yield path, value
