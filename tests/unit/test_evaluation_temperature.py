"""The temperature that makes a classifier as sure as it should be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from scipy.optimize import minimize_scalar
from stated import classified

from jemtrack.evaluation.measures.calibration import nll
from jemtrack.evaluation.measures.temperature import HIGHEST, LOWEST, fit_temperature

few = at_most(30)


@few
@given(classified(limit=20.0))
def test_no_temperature_in_reach_is_better(data):
    """SciPy's bounded search over log T, and a grid, find nothing below."""
    logits_NC, labels_N = data

    fitted = nll(logits_NC / fit_temperature(logits_NC, labels_N), labels_N)

    span = math.log(LOWEST), math.log(HIGHEST)
    found = minimize_scalar(
        lambda log_t: nll(logits_NC / math.exp(log_t), labels_N), bounds=span, method="bounded"
    )
    grid = [nll(logits_NC / 10 ** (step / 4), labels_N) for step in range(-8, 9)]
    assert fitted <= min(found.fun, *grid) + 1e-9
    assert fitted <= nll(logits_NC, labels_N)


@few
@given(st.floats(0.2, 5.0), st.integers(0, 1000))
def test_a_stretched_model_is_shrunk_back(stretch, seed):
    """Logits that are some times too large have the temperature so many times as high."""
    stream = torch.Generator().manual_seed(seed)
    logits_NC = torch.randn(200, 4, dtype=torch.float64, generator=stream)
    labels_N = torch.multinomial(logits_NC.softmax(1), 1, generator=stream).squeeze(1)

    assert fit_temperature(logits_NC * stretch, labels_N) == pytest.approx(
        stretch * fit_temperature(logits_NC, labels_N), rel=1e-6
    )


def test_the_truth_is_found_with_many_images():
    stream = torch.Generator().manual_seed(1)
    logits_NC = 2 * torch.randn(20_000, 5, dtype=torch.float64, generator=stream)
    labels_N = torch.multinomial(logits_NC.softmax(1), 1, generator=stream).squeeze(1)

    assert fit_temperature(3 * logits_NC, labels_N) == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        pytest.param([[5.0, 0.0], [0.0, 5.0]], [0, 1], LOWEST, id="all right"),
        pytest.param([[5.0, 0.0], [0.0, 5.0]], [1, 0], HIGHEST, id="all wrong"),
        pytest.param([[5.0, 5.0], [0.0, 0.0]], [1, 0], 1.0, id="no opinion"),
        pytest.param([[0.0, 1.0]], [1], LOWEST, id="one image"),
        pytest.param([[0.0, math.log(3)]] * 4, [1, 1, 1, 0], 1.0, id="as it should be"),
        pytest.param([[1e6, 0.0], [0.0, 0.0]], [1, 0], HIGHEST, id="sure and wrong"),
    ],
)
def test_extremes_and_what_needs_no_change(logits, labels, expected):
    logits_NC = torch.tensor(logits, dtype=torch.float64)

    fitted = fit_temperature(logits_NC, torch.tensor(labels))

    assert fitted == expected
