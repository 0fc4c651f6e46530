"""Distances of features against SciPy's; what cannot be measured."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.mahalanobis import Mahalanobis


def features(count, n_features, seed):
    stream = torch.Generator().manual_seed(seed)
    mixed_FF = torch.randn(n_features, n_features, generator=stream)
    return torch.randn(count, n_features, generator=stream) @ mixed_FF


@at_most(20)
@given(
    st.integers(2, 60), st.integers(1, 8), st.integers(1, 4), st.integers(0, 1000), st.booleans()
)
def test_it_is_the_distance_to_the_nearest_class(count, n_features, n_classes, seed, one_missing):
    seen, asked = features(count, n_features, seed), features(5, n_features, seed + 1)
    labels = torch.arange(count) % n_classes + one_missing

    found = Mahalanobis(seen, labels)(asked)

    seen, asked = seen.double().numpy(), asked.double().numpy()
    present = np.unique(labels)
    means = {label: seen[labels.numpy() == label].mean(axis=0) for label in present}
    apart = seen - np.stack([means[label] for label in labels.tolist()])
    precision = np.linalg.pinv(LedoitWolf(assume_centered=True).fit(apart).covariance_)
    expected = [
        -min(mahalanobis(row, mean, precision) ** 2 for mean in means.values()) for row in asked
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_what_lies_across_the_spread_is_farther_than_what_lies_along_it():
    """Two features that go together, a wide spread along their sum."""
    stream = torch.Generator().manual_seed(0)
    along_N, across_N = 3 * torch.randn(400, generator=stream), torch.randn(400, generator=stream)
    seen = torch.stack([along_N + across_N / 10, along_N - across_N / 10], dim=1)

    score = Mahalanobis(seen, torch.zeros(400, dtype=torch.int64))

    along, across = score(torch.tensor([[3.0, 3.0], [3.0, -3.0]]))
    assert across < 50 * along


def test_images_that_do_not_vary_tell_nothing():
    score = Mahalanobis(torch.ones(1, 3), torch.tensor([4]))

    torch.testing.assert_close(score(torch.randn(2, 3)), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("seen", "labels"),
    [
        (torch.ones(0, 3), torch.ones(0)),
        (torch.ones(2, 3), torch.ones(3)),
        (torch.ones(2), torch.ones(2)),
    ],
)
def test_what_does_not_fit_together_is_refused(seen, labels):
    with pytest.raises(InputError, match="the features and the label of one image or more"):
        Mahalanobis(seen, labels)
