"""All that a training changes."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from itertools import chain
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from jemtrack.events.events import Position
from jemtrack.shared.random_streams import random_state, restore_random_state
from jemtrack.train.optimizers import scale_learning_rates
from jemtrack.train.phase import Phase


@dataclass
class TrainState:
    """The models, the place that training has reached and all that the next step depends on.

    `step` counts the optimization steps of the whole run, `epochs` its epochs. `totals` are the
    sums of this epoch's losses over its batches so far, `recent` the last values of the metric
    whose threshold ends the phase, `latest` the last epoch's metrics, and `stop` is why a
    callback wants the training to end, `stop_phase` why it wants the phase to. `averages` holds
    copies of models whose weights are averages over the training: where there is one, it is
    measured and saved in the model's place. `seconds` is how long the phase has trained.
    After `retries` returns from a divergence, the learning rates are `lr_scale` times the chosen.
    """

    models: dict[str, nn.Module]
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    schedulers: dict[str, LRScheduler] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    step: int = 0
    epochs: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)
    latest: dict[str, float] = field(default_factory=dict)
    stop: str = ""
    stop_phase: str = ""
    averages: dict[str, nn.Module] = field(default_factory=dict)
    last_losses: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    seconds: float = 0.0
    retries: int = 0
    lr_scale: float = 1.0

    @property
    def stopped(self) -> bool:
        """Whether a callback ended the run, or the last of its phases."""
        return bool(self.stop or self.stop_phase)

    @property
    def served(self) -> dict[str, nn.Module]:
        """The models to measure and to save: averages where there are some."""
        return {**self.models, **self.averages}

    def enter(self, phase: Phase) -> None:
        """Make the phase's optimizers and schedulers; say for every weight whether it trains.

        Nothing is left of another phase's.
        """
        self.optimizers = {
            name: chosen.make(_weights(phase.trained_modules(self.models, name)))
            for name, chosen in phase.step.optimizers.items()
        }
        for model in self.models.values():
            model.requires_grad_(False)
        for weight in chain(*map(trained_weights, self.optimizers.values())):
            weight.requires_grad_(True)
        for module in phase.frozen_modules(self.models):
            module.requires_grad_(False)
        self.schedulers = {
            name: chosen.make(self.optimizers[name], phase.most_steps(chosen.interval))
            for name, chosen in phase.step.schedulers.items()
        }
        # After the schedulers are made: they have rates of their own, such as the least one.
        scale_learning_rates(self.optimizers, self.schedulers, self.lr_scale)
        self.recent = deque(maxlen=phase.step.transition.window)
        self.seconds = 0.0
        self.stop_phase = ""

    def state_dict(self, stateful: Any) -> dict[str, Any]:
        """Return all of it, the state of `stateful` and the global random streams.

        It is a tree of tensors and JSON.
        """
        return {
            "position": astuple(self.position),
            **{kind: _states(getattr(self, kind)) for kind in _KINDS},
            "objective": own_state(stateful),
            "random": random_state(),
            "recent": [*self.recent],
            "last_losses": [*self.last_losses],
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def load_state_dict(self, state: Mapping[str, Any], stateful: Callable[[], Any]) -> None:
        """Restore what `state_dict` returned; `stateful` finds its object by the position."""
        self.position = Position(*state["position"])
        for kind in _KINDS:
            for name, holder in getattr(self, kind).items():
                holder.load_state_dict(state[kind][name])
        if state["objective"] is not None:
            stateful().load_state_dict(state["objective"])
        self.recent = deque(state["recent"], self.recent.maxlen)
        self.last_losses = deque(state["last_losses"], self.last_losses.maxlen)
        for name in _PLAIN:
            setattr(self, name, state[name])
        restore_random_state(state["random"])


_KINDS = ("models", "optimizers", "schedulers")
_PLAIN = (
    *("step", "epochs", "totals", "latest", "stop", "stop_phase"),
    *("seconds", "retries", "lr_scale"),
)


def own_state(holder: Any) -> Any:
    """Return the state of an object; None if it has none."""
    return holder.state_dict() if hasattr(holder, "state_dict") else None


def trained_weights(optimizer: Optimizer) -> list[nn.Parameter]:
    """List the weights that an optimizer changes."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def weights_are_finite(state: TrainState) -> bool:
    """Tell whether every weight that is trained is a finite number."""
    return all(
        bool(weight.isfinite().all())
        for optimizer in state.optimizers.values()
        for weight in trained_weights(optimizer)
    )


def _weights(modules: list[nn.Module]) -> list[nn.Parameter]:
    """List the weights of the modules, each once."""
    return list({id(w): w for module in modules for w in module.parameters()}.values())


def _states(holders: Mapping[str, Any]) -> dict[str, Any]:
    return {name: holder.state_dict() for name, holder in holders.items()}
