"""The likelihood at the counts that are not zero is that of all counts."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats
from torch.distributions import Bernoulli, NegativeBinomial, Normal

from jemtrack.invae.counts import Decoded, SparseCounts, log_likelihood

N_CELLS, N_GENES = 6, 11


def drawn(seed: int, share: float = 0.5) -> torch.Tensor:
    """Draw a matrix of counts, some of them large, in float64."""
    random = np.random.default_rng(seed)
    counts = random.poisson(random.gamma(0.3, 20, size=(N_CELLS, N_GENES)))
    counts[random.random(counts.shape) > share] = 0
    counts[:, 0] = 1 + random.poisson(3, size=N_CELLS)  # no cell is empty
    return torch.from_numpy(counts).double()


def in_rows(counts_BG: torch.Tensor) -> SparseCounts:
    """Put them into sparse rows; the values keep their precision."""
    rows = sparse.csr_matrix(counts_BG.numpy())
    made = SparseCounts.of(rows, torch.device("cpu"))
    exact = {"values_M": torch.from_numpy(rows.data), "totals_B": counts_BG.sum(1).clamp_min(1)}
    return dataclasses.replace(made, **exact)


def decoded(seed: int, *, zeros: bool = False, log_dispersion: float | None = None) -> Decoded:
    stream = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randn(n, N_GENES, dtype=torch.float64, generator=stream)  # noqa: E731
    dispersion = draw(1) if log_dispersion is None else torch.full((1, N_GENES), log_dispersion)
    return Decoded(2 * draw(N_CELLS), dispersion.double(), draw(N_CELLS) if zeros else None)


def means(counts_BG: torch.Tensor, of: Decoded) -> torch.Tensor:
    return of.logits_BG.softmax(1) * counts_BG.sum(1, keepdim=True)


@given(seed=st.integers(0, 99), log_dispersion=st.floats(-9, 9))
def test_a_negative_binomial_is_that_of_torch_and_of_scipy(seed, log_dispersion):
    counts_BG, of = drawn(seed), decoded(seed, log_dispersion=log_dispersion)
    theta, mu_BG = of.log_dispersion_BG.exp(), means(counts_BG, of)

    found_B = log_likelihood(in_rows(counts_BG), of, "nb")

    by_torch = NegativeBinomial(theta, logits=mu_BG.log() - theta.log()).log_prob(counts_BG)
    torch.testing.assert_close(found_B, by_torch.sum(1), rtol=1e-9, atol=1e-9)
    by_scipy = stats.nbinom(theta.numpy(), (theta / (theta + mu_BG)).numpy()).logpmf(counts_BG)
    np.testing.assert_allclose(found_B, by_scipy.sum(1), rtol=1e-6)


@pytest.mark.parametrize("log_dispersion", [-9.0, 0.0, 5.0])
def test_single_precision_keeps_five_digits(log_dispersion):
    """Beyond a dispersion of some thousands, the difference of two lgamma would lose them."""
    counts_BG, of = drawn(3), decoded(3, log_dispersion=log_dispersion)
    exact_B = log_likelihood(in_rows(counts_BG), of, "nb")

    rows = SparseCounts.of(sparse.csr_matrix(counts_BG.numpy()), torch.device("cpu"))
    single = Decoded(of.logits_BG.float(), of.log_dispersion_BG.float())
    found_B = log_likelihood(rows, single, "nb")

    assert found_B.dtype == torch.float32
    torch.testing.assert_close(found_B.double(), exact_B, rtol=1e-5, atol=0)


@given(seed=st.integers(0, 99))
def test_inflated_zeros_are_a_mixture(seed):
    counts_BG, of = drawn(seed), decoded(seed, zeros=True)
    theta = of.log_dispersion_BG.exp()
    plain_BG = NegativeBinomial(theta, logits=means(counts_BG, of).log() - theta.log())
    inflated_BG = Bernoulli(logits=of.zero_logits_BG).probs
    is_zero_BG = (counts_BG == 0).double()
    mixed_BG = inflated_BG * is_zero_BG + (1 - inflated_BG) * plain_BG.log_prob(counts_BG).exp()

    found_B = log_likelihood(in_rows(counts_BG), of, "zinb")

    torch.testing.assert_close(found_B, mixed_BG.log().sum(1), rtol=1e-8, atol=1e-8)


def test_a_normal_likelihood_is_of_logs_of_shares():
    counts_BG, of = drawn(1), decoded(1)
    targets_BG = (1e4 * counts_BG / counts_BG.sum(1, keepdim=True)).log1p()
    normal = Normal(of.logits_BG, (0.5 * of.log_dispersion_BG).exp())

    found_B = log_likelihood(in_rows(counts_BG), of, "normal")

    torch.testing.assert_close(found_B, normal.log_prob(targets_BG).sum(1))


@pytest.mark.parametrize("kind", ["nb", "zinb", "normal"])
def test_gradients_are_those_of_finite_differences(kind):
    rows, of = in_rows(drawn(5)), decoded(5, zeros=kind == "zinb")
    inputs = [part.requires_grad_() for part in of if part is not None]

    assert torch.autograd.gradcheck(
        lambda *parts: log_likelihood(rows, Decoded(*parts), kind), inputs
    )


def test_a_cell_without_counts_has_a_likelihood():
    rows = in_rows(torch.zeros(N_CELLS, N_GENES, dtype=torch.float64))

    assert log_likelihood(rows, decoded(1), "nb").isfinite().all()
