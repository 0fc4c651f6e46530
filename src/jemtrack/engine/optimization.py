"""From the choices of a recipe to the optimizers and schedulers of torch."""

import dataclasses
from functools import partial
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from jemtrack.engine.choices import (
    SGD,
    Adam,
    AdamW,
    CosineAnnealingLR,
    OptimizerChoice,
    ReduceLROnPlateau,
    SchedulerChoice,
)
from jemtrack.engine.eager_optimizers import eager_optimizer
from jemtrack.engine.phase import OptimizerFactory, Schedule

# What a choice has beside the options of torch's own class.
_OURS = {"clip_norm", "warm_up_steps", "metric"}

# Those of which torch has a fused form, which takes one pass over the weights, on CPUs and GPUs.
_FUSED = (Adam, AdamW, SGD)


def optimizer_factory(choice: OptimizerChoice) -> OptimizerFactory:
    """Give what makes the chosen optimizer of weights; a choice's class is called as torch's is."""
    fused: dict[str, Any] = {"fused": True} if isinstance(choice, _FUSED) else {}
    return partial(eager_optimizer, type(choice).__name__, **_options(choice), **fused)


def schedule(choice: SchedulerChoice, n_epochs: int) -> Schedule:
    """Give what makes the chosen scheduler, for a phase of at most `n_epochs`."""
    if isinstance(choice, CosineAnnealingLR):
        return Schedule(partial(_cosine, choice=choice, n_epochs=n_epochs))
    make = partial(getattr(lr_scheduler, type(choice).__name__), **_options(choice))
    return Schedule(make, choice.metric if isinstance(choice, ReduceLROnPlateau) else "")


def _cosine(optimizer: Optimizer, choice: CosineAnnealingLR, n_epochs: int) -> LRScheduler:
    # The rate that the optimizer has: after a divergence it is lower than the chosen one.
    eta_min = optimizer.param_groups[0]["lr"] * choice.eta_min_factor
    return lr_scheduler.CosineAnnealingLR(optimizer, choice.t_max or n_epochs, eta_min)


def _options(choice: OptimizerChoice | SchedulerChoice) -> dict[str, Any]:
    fields = (field.name for field in dataclasses.fields(choice))
    return {name: getattr(choice, name) for name in fields if name not in _OURS}
