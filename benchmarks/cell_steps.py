"""Time inVAE's training step beside scVI's, and beside one whose likelihood is of all counts.

`.venv-cells/bin/python benchmarks/cell_steps.py FILE...`, of files that PrepareCells wrote, prints
a row for each: the CPU time of a step of 256 cells, the rows of the matrix made to a batch
included, all sides in turns in one process, on one thread. Without a file it draws cells by the
share of their counts that are not zero; without scvi-tools it leaves that side out.

The reference evaluates the negative binomial distribution at every count, as scvi-tools does, in
the same network. scVI's is its own module, of the same sizes, without Lightning.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from jemtrack.data.cells.cells import Cells, CellSplits
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


Side = Callable[[], float]


def own_side(cells: Cells, likelihood: Likelihood, seed: int = 0) -> Side:
    """Make the step of inVAE on these cells, which returns its loss."""
    torch.manual_seed(seed)
    n_labels, n_batches = (int(codes.max()) + 1 for codes in (cells.labels_N, cells.batches_N))
    shares_C = torch.full((n_labels,), 1 / n_labels)
    # Dropout draws from the global stream, which the sides take turns in.
    shape = InVAEShape(dropout=0.0)
    network = InVAE(shape, cells.counts_NG.shape[1], n_batches, shares_C)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    order = torch.arange(len(cells))
    return lambda: step(
        network, optimizer, cell_batch(cells, order, torch.device("cpu"), seed=1), likelihood
    )


def scvi_side(cells: Cells) -> Side:
    """Make the step of scVI on these cells, of the sizes that inVAE has."""
    from scvi.module import VAE

    shape = InVAEShape()
    n_batches = int(cells.batches_N.max()) + 1
    module = VAE(
        n_input=cells.counts_NG.shape[1],
        n_batch=n_batches,
        n_hidden=shape.hidden,
        n_latent=shape.z_i_dim,
        n_layers=shape.n_layers,
        dropout_rate=0.0,
        gene_likelihood="nb",
    )
    optimizer = torch.optim.Adam(module.parameters(), eps=0.01)
    codes_N1 = torch.from_numpy(cells.batches_N)[:, None]
    order = np.arange(len(cells))

    def take() -> float:
        optimizer.zero_grad()
        counts_BG = torch.from_numpy(cells.counts_NG[order].toarray().astype(np.float32))
        tensors = {"X": counts_BG, "batch": codes_N1, "labels": torch.zeros_like(codes_N1)}
        *_, losses = module(tensors, loss_kwargs={"kl_weight": 1.0})
        losses.loss.backward()
        optimizer.step()
        return float(losses.loss.item())

    return take


def timed(cells: Cells) -> dict[str, float]:
    """Return the median milliseconds of CPU of each side's step."""
    sides = {"own": own_side(cells, at_counts), "everywhere": own_side(cells, everywhere)}
    if importlib.util.find_spec("scvi"):
        sides["scVI"] = scvi_side(cells)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(WARM_UP + TURNS):
        losses = {}
        for name, take in sides.items():
            before = time.process_time()
            losses[name] = take()
            seconds[name] += [time.process_time() - before] * (turn >= WARM_UP)
        difference = abs(losses["own"] - losses["everywhere"])
        assert difference <= 1e-3 * abs(losses["own"]), losses
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def drawn_from(path: Path) -> Cells:
    """Draw training cells of a prepared file."""
    train = CellSplits.load(path).train
    chosen = np.random.default_rng(1).choice(len(train), N_CELLS, replace=False)
    parts = (train.counts_NG, train.batches_N, train.labels_N)
    return Cells(*(part[chosen] for part in parts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", type=Path, nargs="*", help="files that PrepareCells wrote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{N_CELLS} cells of {N_GENES} genes, ms of CPU a step, medians of {TURNS} turns")
    drawn = {} if options.paths else {f"drawn, {n:.0%}": drawn_cells(n) for n in SHARES}
    sets = {str(path): drawn_from(path) for path in options.paths}
    for name, cells in (sets or drawn).items():
        share = cells.counts_NG.nnz / np.prod(cells.counts_NG.shape)
        found = timed(cells)
        others = "".join(
            f", {side} {value:.1f} ({value / found['own']:.2f}x)"
            for side, value in found.items()
            if side != "own"
        )
        print(f"{name}, {share:.0%} not zero: {found['own']:.1f}{others}", flush=True)


if __name__ == "__main__":
    main()
