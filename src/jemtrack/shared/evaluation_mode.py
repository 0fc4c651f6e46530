"""The mode of a network's norms and dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put `network` into evaluation mode for the block, then restore the mode of each module.

    `network.train()` would not do: a frozen module that was in evaluation mode must stay in it.
    """
    trained = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True
