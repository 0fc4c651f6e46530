"""The order in which training visits its data: a permutation and a cursor."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jemtrack.engine.seeds import generator


@dataclass(frozen=True)
class EpochSampler:
    """Visits each of `n_items` once an epoch, in an order that (seed, epoch) alone decides.

    Any batch can therefore be found again without drawing the ones before it.
    """

    n_items: int
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Count the batches of an epoch; the last may be smaller than `batch_size`."""
        return -(-self.n_items // self.batch_size)

    def batch(self, epoch: int, index: int) -> Tensor:
        """Give the item numbers (int64, at most `batch_size`) of one batch."""
        first = index * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Give the batches of an epoch from the one numbered `start` on."""
        yield from torch.split(self._order(epoch), self.batch_size)[start:]

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(self.n_items, generator=generator(self.seed, "order", epoch))
