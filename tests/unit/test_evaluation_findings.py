"""What is found out of several models' outputs, in one go."""

import pytest
import torch

from jemtrack.evaluation.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.model_outputs import Look, ModelOutputs
from jemtrack.evaluation.results import Statistics, find_out

LABELS = torch.arange(200) % 4


def said(seed: int) -> ModelOutputs:
    stream = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(200, 4, generator=stream)
    mass, distance = -torch.rand(2, 200, generator=stream)
    return ModelOutputs(logits, logits.logsumexp(1), mass, distance)


@pytest.mark.parametrize("n_bins", [3, 20])
def test_all_calibration_errors_are_in_the_bins_that_were_asked_for(n_bins):
    look = Look(said(1), said(2), None, {})

    found = find_out(
        {"one": look},
        LABELS,
        None,
        split="test",
        measures=CalibrationMeasures(n_bins=n_bins),
        statistics=Statistics(seed=0, n_resamples=100, level=0.9),
    )

    figures = found.comparison.figures.set_index("measure")["value"]
    assert figures["ece"] == pytest.approx(found.metrics["one"]["ece"])
    assert len(found.calibration["one"]) <= n_bins
    assert found.level == 0.9
