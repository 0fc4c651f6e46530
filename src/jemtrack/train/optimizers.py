"""Optimizers and schedulers: their options, and how torch's own are made of them.

Fields, names and defaults are torch's, unless a docstring says otherwise. A recipe is checked
without torch, so that torch is imported where something is made.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from jemtrack.parameters import (
    FROM_LIST,
    AtLeastOne,
    Count,
    NotNegative,
    Positive,
    Share,
    parameters,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Betas = Annotated[tuple[Share, Share], FROM_LIST]

# What a class here has beside the options of torch's own class.
_OWN_OPTIONS = {"clip_norm", "warm_up_steps", "metric"}


@parameters
class OptimizerOptions:
    """What all optimizers share.

    `clip_norm` is the norm of all of the optimizer's gradients together above which they are
    scaled down to it before a step; none: they never are. `warm_up_steps` are the optimization
    steps over which the learning rate rises linearly to `lr`, or to what a scheduler makes of it.
    """

    lr: Positive
    weight_decay: NotNegative = 0.0
    clip_norm: Positive | None = None
    warm_up_steps: Count = 0

    # Whether torch has a fused form, which takes one pass over the weights, on CPUs and GPUs.
    fused: ClassVar[bool] = True

    def make(self, weights: Iterable[nn.Parameter]) -> Optimizer:
        """Make torch's optimizer of these weights."""
        fused = {"fused": True} if self.fused else {}
        return eager_optimizer(type(self).__name__, weights, **_torch_options(self), **fused)


@parameters
class Adam(OptimizerOptions):
    """Kingma & Ba 2015; `weight_decay` is an L2 penalty."""

    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


@parameters
class AdamW(OptimizerOptions):
    """Loshchilov & Hutter 2019; `weight_decay` shrinks the weights apart from the gradient."""

    weight_decay: NotNegative = 0.01
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


@parameters
class SGD(OptimizerOptions):
    """Stochastic gradient descent, with momentum if asked for."""

    momentum: Share = 0.0
    dampening: NotNegative = 0.0
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        # A field that is itself at fault is not in `data`, and was named already.
        if nesterov and not (info.data.get("momentum", 1) and not info.data.get("dampening", 0)):
            raise ValueError("must be false without momentum, and with dampening")
        return nesterov


@parameters
class RMSprop(OptimizerOptions):
    """Division by a running root mean square of the gradient."""

    alpha: Share = 0.99
    eps: Positive = 1e-8
    momentum: Share = 0.0
    centered: bool = False

    fused: ClassVar[bool] = False


@parameters
class SchedulerOptions:
    """What a scheduler has in common with others: it acts at the end of each epoch."""

    def make(self, optimizer: Optimizer, n_epochs: int) -> LRScheduler:
        """Make torch's scheduler, for a phase of at most `n_epochs`."""
        from torch.optim import lr_scheduler

        made: LRScheduler = getattr(lr_scheduler, type(self).__name__)(
            optimizer, **_torch_options(self)
        )
        return made


@parameters
class CosineAnnealingLR(SchedulerOptions):
    """From the initial rate to `eta_min_factor` times it, along half a cosine of `t_max` epochs.

    `t_max` is the phase's number of epochs where none is given.
    """

    t_max: AtLeastOne | None = None
    eta_min_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    def make(self, optimizer: Optimizer, n_epochs: int) -> LRScheduler:
        """Make torch's scheduler, for a phase of at most `n_epochs`."""
        from torch.optim import lr_scheduler

        # The rate that the optimizer has: after a divergence it is lower than the chosen one.
        eta_min = optimizer.param_groups[0]["lr"] * self.eta_min_factor
        return lr_scheduler.CosineAnnealingLR(optimizer, self.t_max or n_epochs, eta_min)


@parameters
class StepLR(SchedulerOptions):
    """The rate times `gamma` every `step_size` epochs."""

    step_size: AtLeastOne
    gamma: Positive = 0.1


@parameters
class ExponentialLR(SchedulerOptions):
    """The rate times `gamma` every epoch."""

    gamma: Positive


@parameters
class ReduceLROnPlateau(SchedulerOptions):
    """The rate times `factor` when `metric` did not improve for more than `patience` epochs.

    `metric` is one of an epoch; a change by less than the share `threshold` does not count.
    """

    metric: Annotated[str, Field(min_length=1)] = "train_loss"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Count = 10
    threshold: NotNegative = 1e-4


OPTIMIZERS: dict[str, type[OptimizerOptions]] = {
    cls.__name__: cls for cls in (Adam, AdamW, SGD, RMSprop)
}
SCHEDULERS: dict[str, type[SchedulerOptions]] = {
    cls.__name__: cls for cls in (CosineAnnealingLR, StepLR, ExponentialLR, ReduceLROnPlateau)
}
NO_SCHEDULER = "none"


def _torch_options(chosen: OptimizerOptions | SchedulerOptions) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(chosen))
    return {name: getattr(chosen, name) for name in names if name not in _OWN_OPTIONS}


# What torch decorates only so that its compiler leaves it alone: each imports the compiler, which
# takes as long as importing torch.
_NOT_COMPILED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def eager_optimizer(name: str, weights: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    """Make torch's optimizer of that name; it takes the same steps, bit for bit.

    Its own `step` must not be compiled; nothing else is closed to `torch.compile`.
    """
    return _eager(name)(weights, **options)


@functools.cache
def _eager(name: str) -> Callable[..., Optimizer]:
    import torch

    kind: type[Optimizer] = getattr(torch.optim, name)
    plain = {method: _undecorated(kind, method) for method in _NOT_COMPILED}
    # Beside the compiler's, step's decorators switch gradients off, and add hooks that every
    # optimizer adds to its class's step when it is made.
    plain["step"] = torch.no_grad()(_undecorated(kind, "step"))
    return type(name, (kind,), {**plain, "__module__": kind.__module__, "__doc__": kind.__doc__})


def _undecorated(kind: type[Optimizer], method: str) -> Callable[..., Any]:
    plain: Callable[..., Any] = inspect.unwrap(getattr(kind, method))
    return plain


def learning_rates(optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
    """Give the learning rate of each optimizer; the first group's where there are several."""
    return {name: float(each.param_groups[0]["lr"]) for name, each in optimizers.items()}


def scale_learning_rates(
    optimizers: Mapping[str, Optimizer], schedulers: Mapping[str, LRScheduler], factor: float
) -> None:
    """Multiply all learning rates by `factor`, and those that the schedulers compute from."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            _scale(group, ("lr", "initial_lr"), factor)
    for scheduler in schedulers.values():
        _scale(vars(scheduler), ("base_lrs", "_last_lr", "eta_min", "min_lrs"), factor)


@contextmanager
def warming_up(optimizer: Optimizer, share: float) -> Iterator[None]:
    """Let the block's step have this share of the learning rates; they stand as before after it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * share
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def _scale(holder: dict[str, Any], names: tuple[str, ...], factor: float) -> None:
    for name in names:
        if name in holder:
            value = holder[name]
            scaled = (
                [each * factor for each in value] if isinstance(value, list) else value * factor
            )
            holder[name] = scaled
