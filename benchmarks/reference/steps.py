"""The reference's training steps of a classifier, and of maximum entropy by squared deviations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.reference.network import Classifier

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]
Loaded = Iterator[tuple[Tensor, Tensor]]

LARGEST_LOSS = 1e8


@contextmanager
def searched_convolutions() -> Iterator[None]:
    """Let cuDNN search for the fastest algorithms, as the published scripts do."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def cross_entropy_loss(network: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Compute the cross entropy, in one forward pass."""
    return cross_entropy(network.classify(x), y)


def max_entropy_loss(network: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Compute the cross entropy plus the variance of log p~(x), with a forward pass for each."""
    log_density = network(x)
    penalty = (log_density.mean() - log_density).square().mean()
    return cross_entropy(network.classify(x), y) + penalty


@dataclass
class PlainStep:
    """Train on a batch of one loader, and read a batch of another one without using it."""

    network: Classifier
    loss: Loss
    labelled: Loaded
    others: Loaded
    device: torch.device
    lr: float

    def __post_init__(self) -> None:
        self.network.to(self.device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.lr)

    @searched_convolutions()
    def __call__(self) -> float:
        """Take a step; return its loss."""
        # The published script reads this batch for p(x) in all methods, even without chains.
        next(self.others)[0].to(self.device)
        x, y = (each.to(self.device) for each in next(self.labelled))
        loss = self.loss(self.network, x, y)
        return descend(self.optimizer, loss)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take an optimizer step on the loss; return its value.

    Raises:
        FloatingPointError: if the loss is too large.
    """
    value = loss.item()
    if abs(value) > LARGEST_LOSS:
        raise FloatingPointError(f"the loss is {value}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value
