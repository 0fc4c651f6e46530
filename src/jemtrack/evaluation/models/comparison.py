"""Classifiers side by side: their figures with intervals, and which differ by more than chance.

Letters: N images, C classes, R resamples.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration import calibration_error, reliability_table
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.scores import brier_by_image, nll_by_image
from jemtrack.evaluation.statistics.calibration_interval import (
    calibration_error_bias,
    calibration_error_interval,
)
from jemtrack.evaluation.statistics.paired_tests import (
    NO_BIAS,
    mcnemar,
    paired_bootstrap,
    with_correction,
)
from jemtrack.evaluation.statistics.resampling import (
    N_RESAMPLES,
    Interval,
    bootstrap,
    calibration_error_of,
    enough_resamples,
    mean_of,
    percentile_interval,
    wilson_interval,
)

MEASURES = ("accuracy", "nll", "brier", "ece")


@dataclass(frozen=True)
class Comparison:
    """The figures of several models on the same images.

    Attributes:
        figures: a row a model and measure, with the columns `model`, `measure`, `value`, `low`,
            `high` and `interval` (by which method).
        pairs: a row a measure and pair of models, with the columns `measure`, `first`, `second`,
            `difference` (first less second), `low`, `high`, `p_value`, `test` and `p_corrected`
            (Holm's, for the number of rows).
    """

    figures: pd.DataFrame
    pairs: pd.DataFrame


def compare_classifiers(
    logits: Mapping[str, Tensor],
    labels_N: Tensor,
    *,
    seed: int,
    reliability: Mapping[str, pd.DataFrame] | None = None,
    n_resamples: int = N_RESAMPLES,
    level: float = 0.95,
) -> Comparison:
    """Measure accuracy, NLL, Brier score and ECE of each model's logits (N, C), and each pair's.

    The ECE is that of the `reliability` tables; without them, in 20 bins of equal width.
    Intervals: Wilson's for accuracy, percentile bootstrap for NLL and Brier score, simulated bins
    for ECE. Tests: McNemar's for accuracy, a paired bootstrap for the rest, all from the same
    resamples; that of ECE allows for the bias of few images, so it finds less. One model has no
    pairs. There are at least `enough_resamples` for the number of tests.

    Raises:
        InputError: when there is no model, no image, or logits and labels do not fit together.
    """
    if not logits:
        raise InputError("there are no models to compare")
    models = {
        name: _Model(LabelledLogits(each, labels_N), reliability[name] if reliability else None)
        for name, each in logits.items()
    }
    n_tests = len(MEASURES) * math.comb(len(models), 2)
    n_resamples = max(n_resamples, enough_resamples(n_tests))
    figures = {(name, key): each for name in models for key, each in models[name].figures.items()}
    for (name, measure), resampled_R in bootstrap(
        figures, len(labels_N), seed, n_resamples
    ).items():
        models[name].resampled[measure] = resampled_R
    rows = [
        {"model": name, "measure": measure, **model.with_interval(measure, seed, level)}
        for name, model in models.items()
        for measure in MEASURES
    ]
    biases = {
        name: calibration_error_bias(each.table, seed, level) for name, each in models.items()
    }
    pairs = []
    for measure in MEASURES:
        for one, two in combinations(models, 2):
            bias = _less(biases[one], biases[two]) if measure == "ece" else NO_BIAS
            test = models[one].test_against(models[two], measure, level, bias)
            pairs.append({"measure": measure, "first": one, "second": two, **test})
    return Comparison(pd.DataFrame(rows), with_correction(pairs))


class _Model:
    """One classifier's value of each measure, on the images and on each resample of them."""

    def __init__(self, checked: LabelledLogits, table: pd.DataFrame | None) -> None:
        self.correct_N = checked.correct_N
        if table is None:
            table = reliability_table(checked.confidence_N, checked.correct_N)
        self.table = table
        by_image = {
            "accuracy": checked.correct_N.astype(np.float64),
            "nll": nll_by_image(checked.logits_NC, checked.labels_N),
            "brier": brier_by_image(checked.probabilities_NC, checked.labels_N),
        }
        self.values = {name: float(values_N.mean()) for name, values_N in by_image.items()}
        self.values["ece"] = calibration_error(table)
        self.figures = {name: mean_of(values_N) for name, values_N in by_image.items()}
        self.figures["ece"] = calibration_error_of(
            table["bin_left"].to_numpy(), checked.confidence_N, checked.correct_N
        )
        self.resampled: dict[str, np.ndarray] = {}

    def with_interval(self, measure: str, seed: int, level: float) -> dict[str, float | str]:
        """Pair the value of a measure with its interval, and name the method."""
        if measure == "accuracy":
            bounds = wilson_interval(self.correct_N.sum(), len(self.correct_N), level)
            interval, method = Interval(*map(float, bounds)), "Wilson"
        elif measure == "ece":
            interval = calibration_error_interval(self.table, seed, level)
            method = "simulated bins"
        else:
            interval, method = percentile_interval(self.resampled[measure], level), "bootstrap"
        return {"value": self.values[measure], **interval._asdict(), "interval": method}

    def test_against(
        self, other: "_Model", measure: str, level: float, bias: Interval
    ) -> dict[str, float | str]:
        """Test the difference to another model; `bias` bounds how much it is too high."""
        if measure == "accuracy":
            return {**mcnemar(self.correct_N, other.correct_N, level)._asdict(), "test": "McNemar"}
        difference = self.values[measure] - other.values[measure]
        resampled_R = self.resampled[measure] - other.resampled[measure]
        found = paired_bootstrap(difference, resampled_R, level, bias)
        return {**found._asdict(), "test": "paired bootstrap"}


def _less(one: Interval, other: Interval) -> Interval:
    """Bound the difference of two values from the bounds of each."""
    return Interval(one.low - other.high, one.high - other.low)
