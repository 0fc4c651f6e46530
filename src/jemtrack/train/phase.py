"""A phase: what is trained, by which objective and optimizers, and when it ends."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from jemtrack.train.events import Position
from jemtrack.train.optimizers import ReduceLROnPlateau, SchedulerOptions
from jemtrack.train.recipe import Family, Recipe, Step, Transition

Models = Mapping[str, nn.Module]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Objective(Protocol):
    """A training method: the losses of a batch; `loss` is the one that is minimised.

    An objective with a state of its own, such as a replay buffer, has `state_dict` and
    `load_state_dict` too: a checkpoint holds it.
    """

    def __call__(self, models: Models, batch: Any) -> dict[str, Tensor]:
        """Give the named losses of `batch`, each a scalar tensor; `loss` carries the gradient."""
        ...


class Batches(Protocol):
    """Where batches come from; any one can be found again by its epoch and number."""

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Any]:
        """Give the batches of an epoch from the one numbered `start` on.

        After the `retry`-th return from a divergence, the noise in them is another one.
        """
        ...


@dataclass(frozen=True)
class Validation:
    """Measures the models after every `every`-th epoch and after the last.

    It sees the averages in place of the models of which there are averages.
    """

    measure: Callable[[Models], dict[str, float]]
    every: int = 1

    def due(self, epoch: int, n_epochs: int) -> bool:
        """Say whether it is due after `epoch` (counted from 0) of `n_epochs`."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == n_epochs


@dataclass(frozen=True)
class Schedule:
    """Makes a scheduler, which steps after every epoch: by `metric` where it follows one."""

    make: SchedulerFactory
    metric: str = ""


@dataclass(frozen=True)
class Threshold:
    """Ends a phase when `metric` is below `value` at an epoch's end; NaN never is.

    A batch's metric is averaged over the last `window` batches; one that only epochs have, such
    as a validation metric, is taken as it is.
    """

    metric: str
    value: float
    window: int = 100


@dataclass(frozen=True)
class Phase:
    """Trains by one objective for `n_epochs`, or until the `threshold` is met.

    `frozen` holds dotted names of modules, the model first: `network.trunk`. A frozen
    module's weights get no gradient, and its norms and dropout are in evaluation mode.
    `optimizers` are by the model's name, or by any name that `trained` says the modules of;
    `schedules`, `clip_norms` and `warm_up_steps` are by the optimizer's. A clip norm is the norm
    of all of an optimizer's gradients together above which they are scaled down to it. Over the
    warm-up's steps the learning rate rises linearly to what it then is. A loss above `max_loss`
    counts as diverged. `max_steps` is the most batches that an epoch takes.
    """

    name: str
    objective: Objective
    batches: Batches
    n_epochs: int
    optimizers: Mapping[str, OptimizerFactory]
    trained: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    clip_norms: Mapping[str, float] = field(default_factory=dict)
    warm_up_steps: Mapping[str, int] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    validation: Validation | None = None
    threshold: Threshold | None = None
    max_steps: int | None = None
    max_loss: float = math.inf

    @property
    def n_batches(self) -> int:
        """Count the batches of an epoch."""
        return min(len(self.batches), self.max_steps or len(self.batches))

    def warm_up(self, optimizer: str, position: Position) -> float:
        """Give the share of the learning rate with which the step at `position` is taken."""
        n_steps = self.warm_up_steps.get(optimizer, 0)
        done = position.epoch * self.n_batches + position.batch
        return min(1.0, (done + 1) / n_steps) if n_steps else 1.0

    def frozen_modules(self, models: Models) -> list[nn.Module]:
        """Find the modules that `frozen` names."""
        return [_module(models, name) for name in self.frozen]

    def trained_modules(self, models: Models, optimizer: str) -> list[nn.Module]:
        """Find the modules whose weights the optimizer of that name changes."""
        return [_module(models, name) for name in self.trained.get(optimizer, (optimizer,))]


def _module(models: Models, name: str) -> nn.Module:
    model, _, path = name.partition(".")
    return models[model].get_submodule(path)


def phases(
    recipe: Recipe,
    family: Family,
    objectives: Sequence[Objective],
    batches: Callable[[int, Step], Batches],
    validation: Validation | None,
) -> list[Phase]:
    """Make a phase of each step, with its objective; `batches` gives those of a step by its number.

    A loss above the `max_loss` of the recipe's divergence counts as diverged in every phase.
    """
    return [
        Phase(
            name=step.name,
            objective=objective,
            batches=batches(number, step),
            n_epochs=step.most_epochs,
            optimizers={name: each.make for name, each in step.optimizers.items()},
            trained=family.optimizers,
            schedules={
                name: _schedule(each, step.most_epochs) for name, each in step.schedulers.items()
            },
            clip_norms={
                name: each.clip_norm for name, each in step.optimizers.items() if each.clip_norm
            },
            warm_up_steps={name: each.warm_up_steps for name, each in step.optimizers.items()},
            frozen=step.frozen,
            validation=validation,
            threshold=_threshold(step.transition),
            max_steps=step.max_steps,
            max_loss=recipe.divergence.max_loss,
        )
        for number, (step, objective) in enumerate(zip(recipe.steps, objectives, strict=True))
    ]


def _threshold(transition: Transition) -> Threshold | None:
    if transition.mode == "epoch":
        return None
    # A recipe that was checked has both.
    assert transition.metric is not None
    assert transition.threshold is not None
    return Threshold(transition.metric, transition.threshold, transition.window)


def _schedule(chosen: SchedulerOptions, n_epochs: int) -> Schedule:
    metric = chosen.metric if isinstance(chosen, ReduceLROnPlateau) else ""
    return Schedule(partial(chosen.make, n_epochs=n_epochs), metric)
