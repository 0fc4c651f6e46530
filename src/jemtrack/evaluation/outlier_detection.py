"""How well each model's scores detect outliers, and which models differ in it.

Letters: N images, R resamples.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from jemtrack.evaluation.measures.detection import MEASURES, Detection
from jemtrack.evaluation.statistics.paired_tests import paired_bootstrap, with_correction
from jemtrack.evaluation.statistics.resampling import N_RESAMPLES, bootstrap, percentile_interval

# By model and score, the scores of a set of images, (N,).
Scores = Mapping[str, Mapping[str, np.ndarray]]
Key = tuple[str, str, str]
_AUROC = MEASURES.index("auroc")


class OutlierDetection:
    """Separates the images from each partner's outliers, by every score of every model.

    Args:
        images: the scores of the images, by model and score.
        outliers: by partner, those of its outliers.
        seed: of the bootstrap; models share the resamples.
        n_resamples: of the bootstrap.
        level: of confidence.

    Attributes:
        figures: a row a model, partner and score: `model`, `partner`, `score`, the measures of
            `Detection`, each with its bounds such as `auroc_low` and `auroc_high`, `n_images` and
            `n_outliers`.
        pairs: a row a partner, score and pair of models, with the columns of
            `jemtrack.evaluation.comparison.Comparison.pairs` and `partner` and `score`; the
            difference is that of AUROC.
    """

    def __init__(
        self,
        images: Scores,
        outliers: Mapping[str, Scores],
        *,
        seed: int,
        n_resamples: int = N_RESAMPLES,
        level: float = 0.95,
    ) -> None:
        self.detections: dict[Key, Detection] = {
            (model, partner, score): Detection(images_N, of_partner[model][score])
            for partner, of_partner in outliers.items()
            for model, scores in images.items()
            for score, images_N in scores.items()
        }
        self._level = level
        self._values = {key: each.measures() for key, each in self.detections.items()}
        self._resampled: dict[Key, np.ndarray] = {}
        for partner in outliers:
            # Of one partner all have equally many images: a resample serves every model.
            some = {key: each for key, each in self.detections.items() if key[1] == partner}
            if some:
                sizes = next(iter(some.values())).sizes
                self._resampled |= bootstrap(some, sizes, seed, n_resamples)
        self.figures = pd.DataFrame([self._figures(key) for key in self.detections])
        self.pairs = with_correction(
            [
                self._pair(one, two, partner, score)
                for partner in outliers
                for score in next(iter(images.values()), {})
                for one, two in combinations(images, 2)
            ]
        )

    def auroc(self, model: str) -> dict[str, dict[str, float]]:
        """Group a model's AUROC by partner and score."""
        by_partner: dict[str, dict[str, float]] = {}
        for (of_model, partner, score), values in self._values.items():
            if of_model == model:
                by_partner.setdefault(partner, {})[score] = values["auroc"]
        return by_partner

    def roc(self, model: str) -> pd.DataFrame:
        """Compute a model's ROC curves: rows of `Detection.roc` with `partner` and `score`."""
        curves = [
            detection.roc().assign(partner=partner, score=score)
            for (of_model, partner, score), detection in self.detections.items()
            if of_model == model
        ]
        return pd.concat(curves, ignore_index=True)

    def _figures(self, key: Key) -> dict[str, float | str]:
        bounds: dict[str, float] = {}
        for name, resampled_R in zip(MEASURES, self._resampled[key].T, strict=True):
            low, high = percentile_interval(resampled_R, self._level)
            bounds |= {f"{name}_low": low, f"{name}_high": high}
        n_images, n_outliers = self.detections[key].sizes
        return {
            **dict(zip(("model", "partner", "score"), key, strict=True)),
            **self._values[key],
            **bounds,
            **{"n_images": n_images, "n_outliers": n_outliers},
        }

    def _pair(self, one: str, two: str, partner: str, score: str) -> dict[str, float | str]:
        first, second = (one, partner, score), (two, partner, score)
        found = paired_bootstrap(
            self._values[first]["auroc"] - self._values[second]["auroc"],
            self._resampled[first][:, _AUROC] - self._resampled[second][:, _AUROC],
            self._level,
        )
        return {
            **{"measure": "auroc", "first": one, "second": two},
            **found._asdict(),
            **{"test": "paired bootstrap", "partner": partner, "score": score},
        }
