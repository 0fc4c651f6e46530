"""Means of a value per image, of several models on the same images: intervals and tests.

Letters: N images.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from jemtrack.evaluation.statistics.paired_tests import paired_bootstrap, with_correction
from jemtrack.evaluation.statistics.resampling import (
    N_RESAMPLES,
    bootstrap,
    enough_resamples,
    mean_of,
    percentile_interval,
)


class MeansCompared(NamedTuple):
    """Tables of means and of their differences.

    Attributes:
        figures: a row for each measure and model: `measure`, `model`, `value`, `low`, `high`.
        pairs: a row for each measure and pair of models, with the columns of
            `jemtrack.evaluation.models.comparison.Comparison.pairs`.
    """

    figures: pd.DataFrame
    pairs: pd.DataFrame


def compare_means(
    values: Mapping[str, Mapping[str, np.ndarray]], seed: int, level: float = 0.95
) -> MeansCompared:
    """Compute the mean of each measure and model, from a value per image (N,), and each difference.

    Intervals and tests are by the bootstrap; the models of a measure share the resamples, and
    p-values are corrected for all measures.
    """
    n_pairs = sum(len([*combinations(by_model, 2)]) for by_model in values.values())
    n_resamples = max(N_RESAMPLES, enough_resamples(n_pairs))
    rows, pairs = [], []
    for measure, by_model in values.items():
        n_images = len(next(iter(by_model.values())))
        means_of = {model: mean_of(each_N) for model, each_N in by_model.items()}
        resampled = bootstrap(means_of, n_images, seed, n_resamples)
        means = {model: float(each_N.mean()) for model, each_N in by_model.items()}
        for model, mean in means.items():
            interval = percentile_interval(resampled[model], level)
            rows.append({"measure": measure, "model": model, "value": mean, **interval._asdict()})
        for one, two in combinations(by_model, 2):
            apart_R = resampled[one] - resampled[two]
            test = paired_bootstrap(means[one] - means[two], apart_R, level)
            which = {"measure": measure, "first": one, "second": two}
            pairs.append({**which, **test._asdict(), "test": "paired bootstrap"})
    figures = pd.DataFrame(rows, columns=["measure", "model", "value", "low", "high"])
    return MeansCompared(figures, with_correction(pairs))
