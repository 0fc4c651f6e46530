"""Exponential moving averages of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jemtrack.events.events import BatchEnd, Event, PhaseEnd, PhaseStart, RunStart, Status
from jemtrack.events.handlers import Callback
from jemtrack.shared.components import Option, component

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from jemtrack.train.state import TrainState

_OVER = (Status.SUCCESS, Status.STOPPED)  # a phase that was interrupted goes on later


@component("ema")
class Ema(Callback):
    """Averages the weights of each model; the averages are validated and saved instead of it.

    average <- decay * average + (1 - decay) * weight, starting with the weights after the first
    update. Buffers, such as the running statistics of batch norms, are copied from the model. The
    average approaches weights that a phase freezes, and equals those that were never trained.

    Attributes:
        paused: names of phases in which the averages are the weights.
    """

    decay: float = Option(
        float, "share of the average that an update keeps", default=0.999, minimum=0, maximum=1
    )
    warm_up: bool = Option(
        bool, "whether update n keeps no more than (1 + n) / (10 + n)", default=False
    )
    update_every: int = Option(int, "optimization steps between updates", default=1, minimum=1)

    adopt: bool = Option(
        bool, "whether the averages become the weights when a phase ends", default=False
    )

    def _post_init_(self) -> None:
        self.paused: frozenset[str] = frozenset()
        self._phase = ""
        self._averages: dict[str, AveragedModel] = {}
        self._loaded: dict[str, Any] = {}

    def __call__(self, event: Event, state: TrainState) -> None:
        """Create the averages when the run starts; update them after a step; adopt them."""
        if isinstance(event, RunStart):
            self._begin(state)
        elif isinstance(event, PhaseStart):
            self._phase = event.name
        elif isinstance(event, BatchEnd) and event.step % self.update_every == 0:
            self._update(state)
        elif isinstance(event, PhaseEnd) and self.adopt and event.status in _OVER:
            for name, average in self._averages.items():
                state.models[name].load_state_dict(average.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of their updates."""
        return {name: average.state_dict() for name, average in self._averages.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore those averages; before the run starts, as soon as it does."""
        self._loaded = state
        for name, average in self._averages.items():
            average.load_state_dict(state[name])

    def _begin(self, state: TrainState) -> None:
        # Imported here, so that the components can be listed without torch.
        from torch.optim.swa_utils import AveragedModel

        for name, model in state.models.items():
            average = AveragedModel(model).requires_grad_(False)
            if self._loaded:
                average.load_state_dict(self._loaded[name])
            self._averages[name] = average
            state.averages[name] = average.module.eval()

    def _update(self, state: TrainState) -> None:
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        for name, average in self._averages.items():
            n_updates = int(average.n_averaged)
            most = (1 + n_updates) / (10 + n_updates) if self.warm_up else 1.0
            keep = 0.0 if self._phase in self.paused else min(self.decay, most)
            average.multi_avg_fn = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
            average.update_parameters(state.models[name])
