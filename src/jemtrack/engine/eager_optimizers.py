"""Torch's optimizers without what they tell its compiler, whose import takes as long as torch's."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

# What torch decorates only so that its compiler leaves it alone: each imports the compiler first.
_KEPT_FROM_THE_COMPILER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def eager_optimizer(name: str, weights: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    """Make torch's optimizer of that name; it takes the same steps, bit for bit.

    Its own `step` must not be compiled; nothing else is closed to `torch.compile`.
    """
    return _eager(name)(weights, **options)


@functools.cache
def _eager(name: str) -> Callable[..., Optimizer]:
    kind: type[Optimizer] = getattr(torch.optim, name)
    plain = {method: _undecorated(kind, method) for method in _KEPT_FROM_THE_COMPILER}
    # Beside the compiler's, step's decorators switch gradients off, and add hooks that every
    # optimizer adds to its class's step when it is made.
    plain["step"] = torch.no_grad()(_undecorated(kind, "step"))
    return type(name, (kind,), {**plain, "__module__": kind.__module__, "__doc__": kind.__doc__})


def _undecorated(kind: type[Optimizer], method: str) -> Callable[..., Any]:
    plain: Callable[..., Any] = inspect.unwrap(getattr(kind, method))
    return plain
