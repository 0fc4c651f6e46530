"""A phase: what is trained, by which objective and optimizers, and when it ends."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from jemtrack.events.events import Position
from jemtrack.train.optimizers import Interval
from jemtrack.train.recipe import Step

Models = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Turn:
    """A part of an optimization step: these optimizers minimise `losses["loss"]`.

    The gradient reaches the weights of these optimizers alone. Without names, all optimizers of
    the phase take the turn. The other losses are recorded; their names differ between turns.
    """

    losses: Mapping[str, Tensor]
    optimizers: tuple[str, ...] = ()


class Objective(Protocol):
    """A training method: the losses of a batch; `loss` is the one that is minimised.

    If models train against one another, it yields a `Turn` for each part of the step: code after
    a `yield` runs when the weights of that turn have been changed. A turn computes its loss by
    forward passes of its own, for the graph of the turn before is freed. Turns are one step
    together, and nothing of them outlives the batch.

    An objective with a state of its own, such as a replay buffer, has `state_dict` and
    `load_state_dict` too: a checkpoint holds it.
    """

    def __call__(self, models: Models, batch: Any) -> Mapping[str, Tensor] | Iterator[Turn]:
        """Compute the losses of `batch` by name, scalar tensors; `loss` carries the gradient."""
        ...


class Batches(Protocol):
    """Where batches come from; any one can be found again by its epoch and number.

    A batch that is a dataclass with a field `step` is handed `Phase.steps_before` it: what warms
    up by it, such as the weight of a loss, is a function of the batch, and exact after a kill.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch from the one numbered `start` on.

        After the `retry`-th return from a divergence, they have other noise.
        """
        ...


@dataclass(frozen=True)
class Validation:
    """Measures the models after every `every`-th epoch and after the last.

    A model of which there is an average is measured by its average.
    """

    measure: Callable[[Models], dict[str, float]]
    every: int = 1

    def due(self, epoch: int, n_epochs: int) -> bool:
        """Return whether it is due after `epoch` (counted from 0) of `n_epochs`."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == n_epochs


@dataclass(frozen=True)
class Phase:
    """Trains as its `step` says, by an objective on batches; a loss above `max_loss` diverged.

    The step names modules by dotted names, the model first: `network.trunk`. A frozen module's
    weights get no gradient, and its norms and dropout are in evaluation mode. Optimizers go by the
    model's name, or by a name for which the step's class says the modules.
    """

    step: Step
    objective: Objective
    batches: Batches
    validation: Validation | None = None
    max_loss: float = math.inf

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def n_epochs(self) -> int:
        """The number of epochs after which the phase ends in any case."""
        return self.step.most_epochs

    @property
    def n_batches(self) -> int:
        """The number of batches in an epoch."""
        return min(len(self.batches), self.step.max_steps or len(self.batches))

    def steps_before(self, position: Position) -> int:
        """Return the number of the phase's optimization steps before the one at `position`."""
        return position.epoch * self.n_batches + position.batch

    def warm_up(self, optimizer: str, position: Position) -> float:
        """Return the share of the learning rate with which the step at `position` is taken."""
        n_steps = self.step.optimizers[optimizer].warm_up_steps
        return min(1.0, (self.steps_before(position) + 1) / n_steps) if n_steps else 1.0

    def most_steps(self, interval: Interval) -> int:
        """Return the number of steps that a scheduler of that interval takes at most."""
        return self.n_epochs * (self.n_batches if interval == "batch" else 1)

    def frozen_modules(self, models: Models) -> list[nn.Module]:
        """Find the modules that are frozen; a model that no step needs is not among `models`."""
        names = (name for name in self.step.frozen if name.partition(".")[0] in models)
        return [_module(models, name) for name in names]

    def trained_modules(self, models: Models, optimizer: str) -> list[nn.Module]:
        """Find the modules whose weights the optimizer of that name changes."""
        names = self.step.optimized.get(optimizer, (optimizer,))
        return [_module(models, name) for name in names]


def _module(models: Models, name: str) -> nn.Module:
    model, _, path = name.partition(".")
    return models[model].get_submodule(path)
