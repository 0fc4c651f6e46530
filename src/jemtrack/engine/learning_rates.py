"""Learning rates, as the optimizers have them and as the schedulers remember them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


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
