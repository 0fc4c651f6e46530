"""Measures, likelihood and baselines beside the packages that define them: `make test-cells`."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from jemtrack.evaluation.integration import Neighbours, integration_scores, with_kbet
from jemtrack.invae.counts import Decoded, SparseCounts, log_likelihood


def embedded(seed: int, n_cells: int = 400):
    """Draw cells of four types in three batches, whose effects overlap; the last type is in two."""
    random = np.random.default_rng(seed)
    labels = random.integers(4, size=n_cells)
    batches = np.where(
        labels == 3, random.integers(2, size=n_cells), random.integers(3, size=n_cells)
    )
    after = random.normal(size=(n_cells, 6))
    after[np.arange(n_cells), labels] += 3
    before = after.copy()
    after[:, 4] += 0.7 * batches
    before[:, 4] += 3 * batches
    return after.astype(np.float32), before.astype(np.float32), labels, batches


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_of_scib_metrics_with_exact_neighbours(seed):
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults

    after, before, labels, batches = embedded(seed)

    def graph(n: int) -> NeighborsResults:
        found = Neighbours.of(after, n)
        return NeighborsResults(indices=found.indices_NK, distances=found.distances_NK)

    expected = {
        "ilisi": scib_metrics.ilisi_knn(graph(90), batches),
        "clisi": scib_metrics.clisi_knn(graph(90), labels),
        "silhouette_label": scib_metrics.silhouette_label(after, labels),
        "bras": scib_metrics.bras(after, labels, batches),
        "graph_connectivity": scib_metrics.graph_connectivity(graph(15), labels),
        "pcr": scib_metrics.pcr_comparison(before, after, batches, categorical=True),
        "isolated_labels": scib_metrics.isolated_labels(after, labels, batches),
        "kbet": scib_metrics.kbet_per_label(graph(50), batches, labels),
    }

    found = with_kbet(integration_scores(after, before, labels, batches), after, labels, batches)

    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    by_batch = [found[name] for name in ("bras", "ilisi", "graph_connectivity", "pcr", "kbet")]
    assert found["scib_total"] == pytest.approx(0.6 * found["bio"] + 0.4 * np.mean(by_batch))


def test_all_ten_measures_have_the_mean_of_scib_s_own_benchmark():
    """What is left to k-means' random starts and to approximate neighbours is small."""
    from anndata import AnnData
    from scib_metrics.benchmark import Benchmarker

    after, before, labels, batches = embedded(7)
    obs = pd.DataFrame({"batch": batches.astype(str), "label": labels.astype(str)})
    obs = obs.astype("category")
    obs.index = obs.index.astype(str)
    cells = AnnData(np.zeros((400, 2)), obs=obs, obsm={"after": after, "before": before})
    bench = Benchmarker(
        cells, "batch", "label", ["after"], pre_integrated_embedding_obsm_key="before",
        progress_bar=False,
    )  # fmt: skip
    bench.benchmark()
    theirs = bench.get_results(min_max_scale=False).loc["after"]

    ours = with_kbet(integration_scores(after, before, labels, batches), after, labels, batches)

    assert ours["scib_total"] == pytest.approx(float(theirs["Total"]), abs=0.01)


@pytest.mark.parametrize("kind", ["nb", "zinb"])
def test_the_likelihood_is_that_of_scvi(kind):
    from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

    random = np.random.default_rng(1)
    counts = random.poisson(random.gamma(0.3, 20, size=(6, 40)))
    stream = torch.Generator().manual_seed(2)
    logits, log_theta, zeros = (torch.randn(n, 40, generator=stream) for n in (6, 1, 6))
    rows = SparseCounts.of(sparse.csr_matrix(counts.astype(np.int32)), torch.device("cpu"))
    x = torch.from_numpy(counts).float()
    mean = logits.softmax(1) * x.sum(1, keepdim=True)
    theirs = (
        NegativeBinomial(mu=mean, theta=log_theta.exp().expand_as(mean))
        if kind == "nb"
        else ZeroInflatedNegativeBinomial(
            mu=mean, theta=log_theta.exp().expand_as(mean), zi_logits=zeros
        )
    )

    found = log_likelihood(
        rows, Decoded(logits, log_theta, zeros if kind == "zinb" else None), kind
    )

    # scvi-tools adds 1e-8 within its logarithms.
    torch.testing.assert_close(found, theirs.log_prob(x).sum(1), rtol=1e-4, atol=0)


def test_harmony_mixes_batches_and_is_of_the_cells_order():
    from jemtrack.stages.evaluate_cells import harmonised

    _, before, labels, batches = embedded(3)
    obs = pd.DataFrame({"batch": pd.Categorical(batches.astype(str))})

    after = harmonised(before, obs, seed=1)

    assert after.shape == before.shape
    scores = [integration_scores(each, before, labels, batches) for each in (before, after)]
    assert scores[1]["ilisi"] > scores[0]["ilisi"] + 0.2
    assert scores[1]["clisi"] > 0.9
