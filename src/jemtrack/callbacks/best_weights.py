"""The weights of the best epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.callbacks.watching import Watching
from jemtrack.events.events import ArtifactSaved, Diverged, EpochEnd, Event, PhaseEnd, RunStart
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import Option, component

if TYPE_CHECKING:
    from torch import Tensor, nn

    from jemtrack.train.state import TrainState

log = logging.getLogger("jemtrack")

Weights = dict[str, "dict[str, Tensor]"]  # of each model


@component("best_weights")
class BestWeights(Watching):
    """Keeps the weights of the epoch with the best `metric` of all phases in a file.

    With `restore` the models end the run with these weights, and the run with the metrics of that
    epoch. A checkpoint holds the weights too, so that the file and the restored weights are right
    after a kill or a return from a divergence as well.
    """

    file: str = RunPath(str, "the file, in the run's folder", default="best.safetensors")
    restore: bool = Option(bool, "whether the run ends with these weights", default=False)

    def _post_init_(self) -> None:
        super()._post_init_()
        self.epoch = 0
        self._metrics: dict[str, float] = {}
        self._weights: Weights = {}

    def __call__(self, event: Event, state: TrainState) -> None:
        """Judge an epoch; rewrite the file when training resumes; restore at the end."""
        super().__call__(event, state)
        if isinstance(event, RunStart | Diverged):
            self._rewrite(state)
        elif isinstance(event, PhaseEnd):
            is_last = state.stop or event.position.phase + 1 == self.n_phases
            if is_last and self.restore and self._weights:
                self._restore(state)

    def look(self, value: float, event: EpochEnd, state: TrainState) -> None:
        """Keep the weights if `value` is the best."""
        if self.is_better(value):
            self.best, self.epoch = value, event.epoch
            self._metrics = {**event.metrics}
            self._weights = _copies(state.served)
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch: its value, its metrics and its weights."""
        best = {"epoch": self.epoch, "metrics": self._metrics, "weights": self._weights}
        return {**super().state_dict(), **best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore that best epoch."""
        super().load_state_dict(state)
        self.epoch, self._metrics = state["epoch"], state["metrics"]
        self._weights = state["weights"]

    @property
    def _path(self) -> Path:
        return self.run_folder / self.file

    def _write(self) -> None:
        self.save_weights(self._path)
        self.dispatch(ArtifactSaved(self._path, "weights"))

    def _rewrite(self, state: TrainState) -> None:
        """Write the weights of the checkpoint; remove the file of another run or a void one."""
        if not self._weights:
            self._path.unlink(missing_ok=True)
            return
        current = _copies(state.served)
        _load(state.served, self._weights)
        try:
            self._write()
        finally:
            _load(state.served, current)

    def _restore(self, state: TrainState) -> None:
        _load(state.served, self._weights)
        state.latest = {**self._metrics}
        log.info(f"the weights are those of epoch {self.epoch}: {self.metric} {self.best:g}")


def _copies(models: Mapping[str, nn.Module]) -> Weights:
    return {
        name: {
            key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()
        }
        for name, model in models.items()
    }


def _load(models: Mapping[str, nn.Module], weights: Weights) -> None:
    for name, model in models.items():
        model.load_state_dict(weights[name])
