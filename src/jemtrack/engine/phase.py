"""A phase: what is trained, by which objective, for how long."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Models = Mapping[str, nn.Module]


class Objective(Protocol):
    """A training method: the losses of a batch; `loss` is the one that is minimised."""

    def __call__(self, models: Models, batch: Any) -> dict[str, Tensor]:
        """Give the named losses of `batch`, each a scalar tensor; `loss` carries the gradient."""
        ...


class Batches(Protocol):
    """Where batches come from; any one can be found again by its epoch and number."""

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Give the batches of an epoch from the one numbered `start` on."""
        ...


@dataclass(frozen=True)
class Validation:
    """Measures the models after every `every`-th epoch and after the last."""

    measure: Callable[[Models], dict[str, float]]
    every: int = 1

    def due(self, epoch: int, n_epochs: int) -> bool:
        """Say whether it is due after `epoch` (counted from 0) of `n_epochs`."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == n_epochs


@dataclass(frozen=True)
class Phase:
    """Trains by one objective for `n_epochs`; what `frozen` names stays as it is.

    `frozen` holds dotted names of modules, the model first: `network.trunk`. A frozen
    module's weights get no gradient, and its norms and dropout are in evaluation mode.
    """

    name: str
    objective: Objective
    batches: Batches
    n_epochs: int
    frozen: tuple[str, ...] = ()
    validation: Validation | None = None

    def frozen_modules(self, models: Models) -> list[nn.Module]:
        """Find the modules that `frozen` names."""
        parts = (name.partition(".") for name in self.frozen)
        return [models[model].get_submodule(path) for model, _, path in parts]
