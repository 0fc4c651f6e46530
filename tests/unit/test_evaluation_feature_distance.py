"""The kernel distance against torchmetrics' and a double loop; what it is on average."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from torchmetrics.image.kid import poly_mmd

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.feature_distance import squared_mmd


def features(n, seed, shift=0.0, n_features=5):
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_features, dtype=torch.float64, generator=stream) + shift


@at_most(25)
@given(n=st.integers(2, 30), seed=st.integers(0, 99), shift=st.floats(-2, 2))
def test_it_is_that_of_torchmetrics(n, seed, shift):
    """It takes two sets of one size only."""
    one, other = features(n, seed), features(n, seed + 100, shift)

    assert squared_mmd(one, other) == pytest.approx(poly_mmd(one, other).item(), abs=1e-9)


def test_sets_of_other_sizes_by_a_double_loop():
    one, other = features(3, 0), features(4, 1)

    def mean(pairs):
        values = [(x @ y / 5 + 1) ** 3 for x, y in pairs]
        return sum(values) / len(values)

    within = [
        mean([(x, y) for i, x in enumerate(each) for j, y in enumerate(each) if i != j])
        for each in (one, other)
    ]
    across = mean([(x, y) for x in one for y in other])
    assert squared_mmd(one, other) == pytest.approx(float(sum(within) - 2 * across))


def test_it_is_0_on_average_for_one_distribution_and_more_for_two():
    same = [squared_mmd(features(20, seed), features(20, seed + 1000)) for seed in range(200)]
    apart = [squared_mmd(features(20, seed), features(20, seed + 1000, 0.5)) for seed in range(200)]

    spread = torch.tensor(same).std() / 200**0.5
    assert abs(torch.tensor(same).mean()) < 4 * spread
    assert torch.tensor(apart).mean() > 20 * spread


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="two images or more"):
        squared_mmd(features(1, 0), features(5, 1))
    with pytest.raises(InputError, match="equally many features"):
        squared_mmd(features(3, 0, n_features=4), features(5, 1))
