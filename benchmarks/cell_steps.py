"""Time inVAE's training step: the likelihood at the counts that are not zero, and of all counts.

`python benchmarks/cell_steps.py` prints a row for each share of counts that are not zero. Both
sides take the same steps of the same network on the same batches, in turns, on one thread; the
reference evaluates the negative binomial distribution at every count, as scvi-tools writes it.
"""

import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from jemtrack.data.cells.cells import Cells
from jemtrack.invae.batches import CellBatch, cell_batch
from jemtrack.invae.counts import Decoded, SparseCounts, log_likelihood
from jemtrack.invae.network import InVAE
from jemtrack.invae.options import InVAEShape

N_CELLS, N_GENES, TURNS, WARM_UP = 256, 2000, 15, 3
SHARES = (0.05, 0.1, 0.42)
_EPSILON = 1e-8

Likelihood = Callable[[SparseCounts, Decoded], Tensor]


def at_counts(counts: SparseCounts, decoded: Decoded) -> Tensor:
    """Evaluate the likelihood as the family does."""
    return log_likelihood(counts, decoded, "nb")


def everywhere(counts: SparseCounts, decoded: Decoded) -> Tensor:
    """Evaluate each term at each count."""
    x_BG = counts.dense(counts.values_M)
    mu_BG = decoded.logits_BG.softmax(dim=1) * counts.totals_B[:, None]
    theta_G = decoded.log_dispersion_BG.exp()
    log_sum_BG = torch.log(theta_G + mu_BG + _EPSILON)
    return (
        theta_G * (torch.log(theta_G + _EPSILON) - log_sum_BG)
        + x_BG * (torch.log(mu_BG + _EPSILON) - log_sum_BG)
        + torch.lgamma(x_BG + theta_G)
        - torch.lgamma(theta_G)
        - torch.lgamma(x_BG + 1)
    ).sum(dim=1)


def step(
    network: InVAE, optimizer: torch.optim.Optimizer, batch: CellBatch, likelihood: Likelihood
) -> float:
    """Take a training step; return its loss."""
    optimizer.zero_grad()
    posterior = network.encoder(batch.counts.logs(), batch.condition)
    z_BZ = posterior.sample(torch.Generator().manual_seed(batch.seed))
    decoded = network.decoder(z_BZ, batch.condition.batches_B)
    kl_B = network.prior.kl_i(posterior, z_BZ, batch.condition)
    loss = (kl_B - likelihood(batch.counts, decoded)).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def drawn_cells(share: float) -> Cells:
    """Draw cells of which a share of the counts is not zero."""
    random = np.random.default_rng(1)
    is_count = random.random((N_CELLS, N_GENES)) < share
    counts = is_count * (1 + random.poisson(1.0, size=is_count.shape))
    codes = random.integers(3, size=(2, N_CELLS))
    return Cells(sparse.csr_matrix(counts.astype(np.int32)), codes[0], codes[1])


def timed(share: float) -> tuple[float, float]:
    """Return the median seconds of CPU of a step: at the counts, and everywhere."""
    batch = cell_batch(drawn_cells(share), torch.arange(N_CELLS), torch.device("cpu"), seed=1)
    torch.manual_seed(0)
    # Dropout draws from the global stream, which the sides take turns in.
    network = InVAE(InVAEShape(dropout=0.0), N_GENES, 3, torch.full((3,), 1 / 3))
    sides = []
    for likelihood in (at_counts, everywhere):
        own = copy.deepcopy(network)
        optimizer = torch.optim.Adam(own.parameters(), fused=True)
        sides.append((own, optimizer, likelihood, []))
    for turn in range(WARM_UP + TURNS):
        losses = []
        for own, optimizer, likelihood, seconds in sides:
            before = time.process_time()
            losses.append(step(own, optimizer, batch, likelihood))
            seconds += [time.process_time() - before] * (turn >= WARM_UP)
        assert abs(losses[0] - losses[1]) <= 1e-3 * abs(losses[1]), losses
    return statistics.median(sides[0][3]), statistics.median(sides[1][3])


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{N_CELLS} cells of {N_GENES} genes, ms of CPU a step, medians of {TURNS} turns")
    for share in SHARES:
        own, reference = (1e3 * seconds for seconds in timed(share))
        print(
            f"{share:.0%} not zero: {own:.1f}, everywhere {reference:.1f}, {reference / own:.2f}x"
        )


if __name__ == "__main__":
    main()
