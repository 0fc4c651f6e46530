"""Optimizers and schedulers: each holds its options and makes itself.

Fields, names and defaults are PyTorch's, unless a docstring says otherwise. A recipe is checked
without PyTorch, which is imported where something is made.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
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
    by_type,
    parameters,
)
from jemtrack.shared.class_path import OPTIMIZER, SCHEDULER, ClassPath, Role

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Betas = Annotated[tuple[Share, Share], FROM_LIST]
Factor = Annotated[float, Field(ge=0, le=1)]
Interval = Literal["epoch", "batch"]

# Options that are the training loop's, and not PyTorch's.
_OWN_OPTIONS = {"type", "clip_norm", "warm_up_steps", "interval", "metric"}


@parameters
class OptimizerOptions:
    """What the training loop itself does for an optimizer.

    Where the norm of all of its gradients together is above `clip_norm`, they are scaled down to
    it. Over `warm_up_steps` the learning rate rises linearly to what it would otherwise be.
    """

    clip_norm: Positive | None = None
    warm_up_steps: Count = 0

    def make(self, weights: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer of these weights."""
        raise NotImplementedError


@parameters
class _Known(OptimizerOptions):
    type: str
    lr: Positive
    weight_decay: NotNegative = 0.0

    module: ClassVar[str] = "torch.optim"
    # Whether it has a fused form, which takes one pass over the weights, on CPUs and GPUs.
    fused: ClassVar[bool] = True

    def make(self, weights: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer of these weights."""
        fused = {"fused": True} if self.fused else {}
        return eager_optimizer(self.type, weights, self.module, **_options(self), **fused)


@parameters
class Adam(_Known):
    """Kingma & Ba 2015; `weight_decay` is an L2 penalty."""

    type: Literal["Adam"] = "Adam"
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


@parameters
class AdamW(_Known):
    """Loshchilov & Hutter 2019; `weight_decay` shrinks the weights apart from the gradient."""

    type: Literal["AdamW"] = "AdamW"
    weight_decay: NotNegative = 0.01
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


@parameters
class SGD(_Known):
    """Stochastic gradient descent; with `momentum`, Polyak's, or with `nesterov`, Nesterov's."""

    type: Literal["SGD"] = "SGD"
    momentum: Share = 0.0
    dampening: NotNegative = 0.0
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        # A field that has a problem itself is not in `data`, and was named already.
        if nesterov and not (info.data.get("momentum", 1) and not info.data.get("dampening", 0)):
            raise ValueError("must be false without momentum, and with dampening")
        return nesterov


@parameters
class RMSprop(_Known):
    """Division by a running root mean square of the gradient."""

    type: Literal["RMSprop"] = "RMSprop"
    alpha: Share = 0.99
    eps: Positive = 1e-8
    momentum: Share = 0.0
    centered: bool = False

    fused: ClassVar[bool] = False


@parameters
class Lion(_Known):
    """Chen et al. 2023 (https://arxiv.org/abs/2302.06675); it wants an `lr` 3 to 10 times lower."""

    type: Literal["Lion"] = "Lion"
    betas: Betas = (0.9, 0.99)

    module: ClassVar[str] = "jemtrack.train.lion"
    fused: ClassVar[bool] = False


@parameters
class OwnOptimizer(ClassPath, OptimizerOptions):
    """A subclass of `torch.optim.Optimizer` by its dotted path."""

    role: ClassVar[Role] = OPTIMIZER

    def make(self, weights: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer of these weights."""
        made: Optimizer = self.instantiate(weights)
        return made


@parameters
class SchedulerOptions:
    """What all schedulers share: each steps after an epoch, or after a batch, by its `interval`."""

    type: str
    interval: Interval = "epoch"

    def make(self, optimizer: Optimizer, n_steps: int) -> LRScheduler:
        """Make PyTorch's scheduler, for a phase in which it takes at most `n_steps`."""
        from torch.optim import lr_scheduler

        # The rate that the optimizer has: after a divergence it is lower than the chosen one.
        options = self._options(optimizer.param_groups[0]["lr"], n_steps)
        made: LRScheduler = getattr(lr_scheduler, self.type)(optimizer, **options)
        return made

    def _options(self, lr: float, n_steps: int) -> dict[str, Any]:
        return _options(self)


@parameters
class NoScheduler(SchedulerOptions):
    """Takes the scheduler away that the defaults name."""

    type: Literal["none"] = "none"


@parameters
class CosineAnnealingLR(SchedulerOptions):
    """From the initial rate to `eta_min_factor` times it, along half a cosine of `t_max` steps.

    `t_max` is the whole phase if it is not given.
    """

    type: Literal["CosineAnnealingLR"] = "CosineAnnealingLR"
    t_max: AtLeastOne | None = None
    eta_min_factor: Factor = 0.0

    def _options(self, lr: float, n_steps: int) -> dict[str, Any]:
        return {"T_max": self.t_max or n_steps, "eta_min": lr * self.eta_min_factor}


@parameters
class StepLR(SchedulerOptions):
    """The rate times `gamma` every `step_size` steps."""

    type: Literal["StepLR"] = "StepLR"
    step_size: AtLeastOne
    gamma: Positive = 0.1


@parameters
class ExponentialLR(SchedulerOptions):
    """The rate times `gamma` every step."""

    type: Literal["ExponentialLR"] = "ExponentialLR"
    gamma: Positive


@parameters
class OneCycleLR(SchedulerOptions):
    """Smith & Topin 2018: up to the optimizer's `lr`, the peak, and down over the phase."""

    type: Literal["OneCycleLR"] = "OneCycleLR"
    interval: Interval = "batch"
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: Share = 0.85
    max_momentum: Share = 0.95
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    three_phase: bool = False

    def _options(self, lr: float, n_steps: int) -> dict[str, Any]:
        return {"max_lr": lr, "total_steps": n_steps, **_options(self)}


@parameters
class ReduceLROnPlateau(SchedulerOptions):
    """The rate times `factor` if `metric` did not improve for more than `patience` epochs.

    `metric` is one of an epoch; a change by less than the share `threshold` does not count.
    """

    type: Literal["ReduceLROnPlateau"] = "ReduceLROnPlateau"
    interval: Literal["epoch"] = "epoch"
    metric: Annotated[str, Field(min_length=1)] = "train_loss"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Count = 10
    threshold: NotNegative = 1e-4
    min_lr: NotNegative = 0.0


@parameters
class OwnScheduler(ClassPath, SchedulerOptions):
    """A subclass of `torch.optim.lr_scheduler.LRScheduler` by its dotted path.

    One whose step takes a metric of an epoch names it by `metric`.
    """

    role: ClassVar[Role] = SCHEDULER

    metric: Annotated[str, Field(min_length=1)] | None = None

    def make(self, optimizer: Optimizer, n_steps: int) -> LRScheduler:
        """Make the scheduler; `n_steps` is not passed on."""
        made: LRScheduler = self.instantiate(optimizer)
        return made


_SCHEDULERS = (CosineAnnealingLR, StepLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau)
OPTIMIZERS: dict[str, type[OptimizerOptions]] = {
    cls.__name__: cls for cls in (Adam, AdamW, SGD, RMSprop, Lion)
}
SCHEDULERS: dict[str, type[SchedulerOptions]] = {
    "none": NoScheduler,
    **{cls.__name__: cls for cls in _SCHEDULERS},
}
choose_optimizer = by_type("an optimizer", OPTIMIZERS, OwnOptimizer)
choose_scheduler = by_type("a scheduler", SCHEDULERS, OwnScheduler)


def _options(chosen: Any) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(chosen))
    return {name: getattr(chosen, name) for name in names if name not in _OWN_OPTIONS}


# What torch decorates only so that its compiler leaves it alone: each imports the compiler, which
# takes as long as importing torch.
_NOT_COMPILED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def eager_optimizer(
    name: str, weights: Iterable[nn.Parameter], module: str = "torch.optim", **options: Any
) -> Optimizer:
    """Make the optimizer of that name; it takes the same steps as PyTorch's own, bit for bit.

    Its own `step` must not be compiled; nothing else is closed to `torch.compile`.
    """
    return _eager(module, name)(weights, **options)


@functools.cache
def _eager(module: str, name: str) -> Callable[..., Optimizer]:
    import torch

    kind: type[Optimizer] = getattr(importlib.import_module(module), name)
    plain = {method: inspect.unwrap(getattr(kind, method)) for method in (*_NOT_COMPILED, "step")}
    # Beside the compiler's, step's decorators switch gradients off, and add hooks that every
    # optimizer adds to its class's step when it is made.
    plain["step"] = torch.no_grad()(plain["step"])
    return type(name, (kind,), {**plain, "__module__": kind.__module__, "__doc__": kind.__doc__})


def learning_rates(optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
    """Return the learning rate of each optimizer; the first group's where there are several."""
    return {name: float(each.param_groups[0]["lr"]) for name, each in optimizers.items()}


def scale_learning_rates(
    optimizers: Mapping[str, Optimizer], schedulers: Mapping[str, LRScheduler], factor: float
) -> None:
    """Multiply all learning rates by `factor`, and those that the schedulers compute from."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            # The last two are OneCycleLR's, which keeps its rates in the optimizer.
            _scale(group, ("lr", "initial_lr", "max_lr", "min_lr"), factor)
    for scheduler in schedulers.values():
        _scale(vars(scheduler), ("base_lrs", "_last_lr", "eta_min", "min_lrs"), factor)


@contextmanager
def warming_up(optimizer: Optimizer, share: float) -> Iterator[None]:
    """Let the block's step have this share of the learning rates; they stand as before after it."""
    if share == 1.0:
        yield
        return
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
            rate = holder[name]
            many = isinstance(rate, list)
            holder[name] = [each * factor for each in rate] if many else rate * factor
