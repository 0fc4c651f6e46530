"""Scores from logits and log density, against SciPy."""

import pytest
import torch
from hypothesis import given
from profiles import at_most
from scipy.stats import entropy
from stated import classified

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.outlier_scores import outlier_scores


@at_most(20)
@given(classified(limit=1000.0))
def test_scores_agree_with_scipy_and_lie_within_their_bounds(data):
    logits_NC, _ = data
    probabilities_NC = logits_NC.softmax(dim=1)
    n_classes = logits_NC.shape[1]

    found = outlier_scores(logits_NC, logits_NC.logsumexp(1))

    assert list(found) == ["log_density", "max_probability", "negative_entropy"]
    torch.testing.assert_close(found["log_density"], logits_NC.logsumexp(1))
    torch.testing.assert_close(found["max_probability"], probabilities_NC.amax(1))
    expected = torch.from_numpy(-entropy(probabilities_NC.numpy(), axis=1))
    torch.testing.assert_close(found["negative_entropy"], expected)
    assert (found["max_probability"] >= 1 / n_classes - 1e-12).all()
    assert (found["negative_entropy"] <= 0).all()


def test_another_log_density_is_taken_as_it_is():
    """A model with an energy head has a density that is not the logits' own."""
    log_density_N = torch.tensor([3.0, -1.0])

    found = outlier_scores(torch.zeros(2, 4), log_density_N)

    assert found["log_density"].tolist() == [3.0, -1.0]
    assert found["max_probability"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("logits_NC", "log_density_N"),
    [(torch.zeros(2, 3), torch.zeros(3)), (torch.zeros(2), torch.zeros(2))],
)
def test_what_does_not_fit_is_refused(logits_NC, log_density_N):
    with pytest.raises(InputError, match="one row of logits and one log density an image"):
        outlier_scores(logits_NC, log_density_N)
