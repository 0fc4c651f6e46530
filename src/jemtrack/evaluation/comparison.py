"""Classifiers side by side: their figures with intervals, and which differ by more than chance.

Letters: N images, C classes, M bins, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.binning import bin_indices, equal_width
from jemtrack.evaluation.measures.calibration import reliability_table
from jemtrack.evaluation.measures.inputs import checked_scores
from jemtrack.evaluation.measures.scores import brier_by_image, correct, nll_by_image
from jemtrack.evaluation.statistics.calibration_interval import (
    calibration_error_bias,
    calibration_error_interval,
)
from jemtrack.evaluation.statistics.paired_tests import NO_BIAS, holm, mcnemar, paired_bootstrap
from jemtrack.evaluation.statistics.resampling import (
    N_RESAMPLES,
    Figure,
    Interval,
    bootstrap,
    mean_of,
    percentile_interval,
    wilson_interval,
)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Give each row by the names of its columns; the index is left out."""
    return cast(list[dict[str, Any]], table.to_dict("records"))


MEASURES = ("accuracy", "nll", "brier", "ece")


@dataclass(frozen=True)
class Comparison:
    """What several models are worth on the same images.

    Attributes:
        figures: a row a model and measure, with the columns `model`, `measure`, `value`, `low`,
            `high` and `interval` (by which method).
        pairs: a row a measure and pair of models, with the columns `measure`, `first`, `second`,
            `difference` (first less second), `low`, `high`, `p_value`, `p_corrected` (Holm's,
            for the number of rows) and `test`.
    """

    figures: pd.DataFrame
    pairs: pd.DataFrame


@dataclass(frozen=True)
class _Model:
    correct_N: np.ndarray
    table: pd.DataFrame
    figures: dict[str, Figure]
    ece_bias: Interval

    @classmethod
    def of(
        cls, logits_NC: Tensor, labels_N: Tensor, n_bins: int, seed: int, level: float
    ) -> "_Model":
        logits_NC, labels_N = checked_scores(logits_NC, labels_N)
        probabilities_NC, correct_N = logits_NC.softmax(dim=1), correct(logits_NC, labels_N)
        confidence_N = probabilities_NC.max(dim=1).values.numpy()
        figures = (
            mean_of(correct_N.astype(float)),
            mean_of(nll_by_image(logits_NC, labels_N)),
            mean_of(brier_by_image(probabilities_NC, labels_N)),
            calibration_error(confidence_N, correct_N, n_bins),
        )
        table = reliability_table(probabilities_NC, labels_N, n_bins)
        return cls(
            correct_N,
            table,
            dict(zip(MEASURES, figures, strict=True)),
            calibration_error_bias(table, seed, level),
        )

    def bias_above(self, other: "_Model", measure: str) -> Interval:
        """Bound how much the difference to `other` is too high: means over images are not."""
        if measure != "ece":
            return NO_BIAS
        own, its = self.ece_bias, other.ece_bias
        return Interval(own.low - its.high, own.high - its.low)


def calibration_error(confidence_N: np.ndarray, correct_N: np.ndarray, n_bins: int = 20) -> Figure:
    """Make the figure that is the calibration error in bins of equal width.

    For the difference of two models: the figure itself needs `calibration_error_interval`.
    """
    bin_N = bin_indices(confidence_N, equal_width(confidence_N, n_bins))
    gaps_NM = np.zeros((len(bin_N), n_bins))
    gaps_NM[np.arange(len(bin_N)), bin_N] = correct_N - confidence_N
    return lambda counts_RN: np.abs(counts_RN @ gaps_NM).sum(axis=1) / len(bin_N)


def compare_classifiers(
    logits: Mapping[str, Tensor],
    labels_N: Tensor,
    *,
    seed: int,
    n_bins: int = 20,
    n_resamples: int = N_RESAMPLES,
    level: float = 0.95,
) -> Comparison:
    """Measure accuracy, NLL, Brier score and ECE of each model's logits (N, C), and each pair's.

    Intervals: Wilson's for accuracy, percentile bootstrap for NLL and Brier score, simulated bins
    for ECE. Tests: McNemar's for accuracy, a paired bootstrap for the rest, all from the same
    resamples; that of ECE allows for the bias of few images, so it finds less. One model has no
    pairs.

    Raises:
        InputError: when there is no model, no image, or logits and labels do not fit together.
    """
    if not logits:
        raise InputError("there are no models to compare")
    given = (labels_N, n_bins, seed, level)
    models = {name: _Model.of(each, *given) for name, each in logits.items()}
    figures = {
        (name, measure): figure
        for name, model in models.items()
        for measure, figure in model.figures.items()
    }
    resampled = bootstrap(figures, len(labels_N), seed, n_resamples)
    values = {key: float(figure(np.ones((1, len(labels_N))))[0]) for key, figure in figures.items()}
    rows = [
        {
            **{"model": name, "measure": measure, "value": value},
            **_interval(models[name], measure, resampled[name, measure], seed, level),
        }
        for (name, measure), value in values.items()
    ]
    pairs = [
        {
            **{"measure": measure, "first": one, "second": two},
            **_test(models, values, resampled, (one, two, measure), level),
        }
        for measure in MEASURES
        for one, two in combinations(models, 2)
    ]
    return Comparison(pd.DataFrame(rows), with_correction(pairs))


def _interval(
    model: _Model, measure: str, resampled_R: np.ndarray, seed: int, level: float
) -> dict[str, float | str]:
    if measure == "accuracy":
        bounds = wilson_interval(model.correct_N.sum(), len(model.correct_N), level)
        return {"low": float(bounds[0]), "high": float(bounds[1]), "interval": "Wilson"}
    if measure == "ece":
        found = calibration_error_interval(model.table, seed, level)
        return {**found._asdict(), "interval": "simulated bins"}
    return {**percentile_interval(resampled_R, level)._asdict(), "interval": "bootstrap"}


def _test(
    models: Mapping[str, _Model],
    values: Mapping[tuple[str, str], float],
    resampled: Mapping[tuple[str, str], np.ndarray],
    which: tuple[str, str, str],
    level: float,
) -> dict[str, float | str]:
    one, two, measure = which
    if measure == "accuracy":
        found = mcnemar(models[one].correct_N, models[two].correct_N, level)
        return {**found._asdict(), "test": "McNemar"}
    first, second = (one, measure), (two, measure)
    found = paired_bootstrap(
        values[first] - values[second],
        resampled[first] - resampled[second],
        level,
        models[one].bias_above(models[two], measure),
    )
    return {**found._asdict(), "test": "paired bootstrap"}


def with_correction(pairs: list[dict[str, float | str]]) -> pd.DataFrame:
    """Make a table of tests with `p_corrected`: Holm's, for their number."""
    columns = ["measure", "first", "second", "difference", "low", "high", "p_value", "test"]
    columns += [name for name in (pairs[0] if pairs else ()) if name not in columns]
    table = pd.DataFrame(pairs, columns=columns)
    return table.assign(p_corrected=holm(table["p_value"].to_numpy(dtype=float)))
