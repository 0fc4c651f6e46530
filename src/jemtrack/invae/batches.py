"""Draw training batches of cells.

Letters: B cells of a batch, N all training cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jemtrack.data.cells.cells import Cells
from jemtrack.invae.counts import SparseCounts
from jemtrack.invae.network import Condition
from jemtrack.shared.random_streams import generator, stream_seed


@dataclass(frozen=True)
class CellBatch:
    """Cells of a batch, with the seed of all that an objective draws for it.

    `step` is the number of the phase's optimization steps before this one; the engine sets it.
    """

    counts: SparseCounts
    condition: Condition
    seed: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class CellBatches:
    """The batches of an epoch; each is a pure function of seed, epoch, number and retry.

    Their sizes differ by one cell at most, so that no batch norm sees a few that are left over.
    """

    cells: Cells
    batch_size: int
    seed: int
    device: torch.device

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.cells) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[CellBatch]:
        """Yield the batches of an epoch from number `start` on.

        Each `retry` after a divergence has the same cells, and other noise.
        """
        order_N = torch.randperm(len(self.cells), generator=generator(self.seed, "order", epoch))
        for number, indices_B in enumerate(order_N.tensor_split(len(self))[start:], start):
            stream = (epoch, number, *([retry] if retry else []))
            seed = stream_seed(self.seed, "objective", *stream)
            yield cell_batch(self.cells, indices_B, self.device, seed)


def cell_batch(cells: Cells, indices_B: Tensor, device: torch.device, seed: int = 0) -> CellBatch:
    """Pick cells, in the order of `indices_B`."""
    chosen_B = indices_B.numpy()
    batches_B, labels_B = cells.batches_N[chosen_B], cells.labels_N[chosen_B]
    condition = Condition(
        torch.from_numpy(batches_B).to(device),
        torch.from_numpy(labels_B).to(device),
        all_labelled=bool((labels_B >= 0).all()),
    )
    return CellBatch(SparseCounts.of(cells.counts_NG[chosen_B], device), condition, seed)
