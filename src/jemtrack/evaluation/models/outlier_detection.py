"""How well each model's scores detect outliers, and which models differ in it.

Letters: N images, R resamples.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jemtrack.evaluation.measures.detection import MEASURES, Detection
from jemtrack.evaluation.statistics.delong import (
    Placements,
    auroc_interval,
    delong_test,
    mean_placements,
    placements,
)
from jemtrack.evaluation.statistics.paired_tests import with_correction
from jemtrack.evaluation.statistics.resampling import N_RESAMPLES, bootstrap, percentile_interval

# By model and score, the scores of a set of images, (N,).
Scores = Mapping[str, Mapping[str, np.ndarray]]
DENSITY = "log_density"  # the score that every energy-based model has by itself
MEAN = "mean"  # over all partners, in the place of one


class OutlierDetection(NamedTuple):
    """How well models separate the images from each partner's outliers, by each score.

    Attributes:
        figures: a row a model, partner and score: `model`, `partner`, `score`, the measures of
            `Detection`, each with its bounds such as `auroc_low` and `auroc_high`, `n_images` and
            `n_outliers`.
        pairs: a row a partner, score and pair of models, with the columns of
            `jemtrack.evaluation.models.comparison.Comparison.pairs` and `partner` and `score`; the
            difference is that of AUROC. Of several partners, the last rows are of the mean over
            all of them, by log p~(x).
        roc: by model, rows of `Detection.roc` with `partner` and `score`.
    """

    figures: pd.DataFrame
    pairs: pd.DataFrame
    roc: dict[str, pd.DataFrame]

    def mean_auroc(self, model: str) -> float:
        """Average a model's AUROC by its density, log p~(x), over the partners."""
        rows = self.figures[(self.figures["model"] == model) & (self.figures["score"] == DENSITY)]
        return float(rows["auroc"].mean())


def detect_outliers(
    images: Scores,
    outliers: Mapping[str, Scores],
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
    level: float = 0.95,
) -> OutlierDetection:
    """Measure how well each score of each model separates images from each partner's outliers.

    The intervals and tests of AUROC are DeLong's; those of the other measures are percentiles of
    the bootstrap.

    Args:
        images: the scores of the images, by model and score.
        outliers: by partner, those of its outliers.
        seed: of the bootstrap; models share the resamples.
        n_resamples: of the bootstrap.
        level: of confidence.
    """
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    placed: dict[str, dict[tuple[str, str], Placements]] = {}
    roc: dict[str, list[pd.DataFrame]] = {model: [] for model in images}
    scores = [(model, score) for model, of_model in images.items() for score in of_model]
    for partner, of_partner in outliers.items():
        samples = {(m, score): (images[m][score], of_partner[m][score]) for m, score in scores}
        detections = {key: Detection(*both) for key, both in samples.items()}
        placed[partner] = {key: placements(*both) for key, both in samples.items()}
        # Of one partner all have equally many images: a resample serves every model.
        sizes = next(iter(detections.values())).sizes
        resampled = bootstrap(detections, sizes, seed, n_resamples)
        for (model, score), detection in detections.items():
            which = {"model": model, "partner": partner, "score": score}
            bounds = _bounds(resampled[model, score], placed[partner][model, score], level)
            counts = dict(zip(("n_images", "n_outliers"), sizes, strict=True))
            rows.append({**which, **detection.measures(), **bounds, **counts})
            roc[model].append(detection.roc().assign(partner=partner, score=score))
        for score in dict.fromkeys(score for _, score in scores):
            pairs += _tests(placed[partner], partner, score, level)
    if len(outliers) > 1:
        means = {key: mean_placements([each[key] for each in placed.values()]) for key in scores}
        pairs += _tests(means, MEAN, DENSITY, level)
    curves = {model: pd.concat(parts, ignore_index=True) for model, parts in roc.items()}
    return OutlierDetection(pd.DataFrame(rows), with_correction(pairs), curves)


def _tests(
    placed: Mapping[tuple[str, str], Placements], partner: str, score: str, level: float
) -> list[dict[str, Any]]:
    """Test each pair of models by a score; `placed` is by model and score."""
    models = [model for model, name in placed if name == score]
    of = {"test": "DeLong", "partner": partner, "score": score}
    return [
        {"measure": "auroc", "first": one, "second": two}
        | delong_test(placed[one, score], placed[two, score], level)._asdict()
        | of
        for one, two in combinations(models, 2)
    ]


def _bounds(resampled_RK: np.ndarray, placed: Placements, level: float) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for name, resampled_R in zip(MEASURES, resampled_RK.T, strict=True):
        interval = percentile_interval(resampled_R, level)
        low, high = auroc_interval(placed, level) if name == "auroc" else interval
        bounds |= {f"{name}_low": low, f"{name}_high": high}
    return bounds
