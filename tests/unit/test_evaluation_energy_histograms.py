"""Energies in bins: shares, the same bins for all, what lies beyond them."""

import numpy as np
import pytest
import torch

from jemtrack.evaluation.measures.energy_histograms import energy_histograms


def normal(n, mean, seed):
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed)) + mean
    return values.double().numpy()


def test_shares_are_those_of_numpy_in_the_same_bins_for_all_sets():
    sets = {"test": normal(3000, 5.0, 1), "uniform": normal(500, -3.0, 2)}

    table = energy_histograms(sets, n_bins=30)

    assert [*table["images"].unique()] == ["test", "uniform"]
    edges = [rows["left"].tolist() for _, rows in table.groupby("images")]
    assert edges[0] == edges[1]
    for name, rows in table.groupby("images"):
        assert rows["share"].sum() == pytest.approx(1)
        bins = [*rows["left"], rows["right"].iloc[-1]]
        inside, _ = np.histogram(-sets[name], bins)
        middle = slice(1, -1)
        expected = inside[middle] / len(sets[name])
        assert rows["share"].to_numpy()[middle] == pytest.approx(expected)
        assert ((rows["left"] + rows["right"]) / 2).tolist() == pytest.approx(rows["energy"])
    mean = {name: (rows["energy"] * rows["share"]).sum() for name, rows in table.groupby("images")}
    assert mean["test"] == pytest.approx(-5, abs=0.2)
    assert mean["uniform"] == pytest.approx(3, abs=0.2)


def test_what_lies_far_beyond_stands_in_the_outermost_bin():
    log_density_N = normal(1000, 0.0, 3)
    log_density_N[0] = -1e6

    table = energy_histograms({"test": log_density_N})

    assert table["right"].max() < 10
    assert table["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0, 2.0]])
def test_equal_energies_have_a_bin(values):
    table = energy_histograms({"test": np.array(values)})

    assert table["share"].max() == 1
    assert table["left"].is_monotonic_increasing
