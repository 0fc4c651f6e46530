"""Out-of-distribution detection: how well a score separates images from outliers.

A score is higher where an image is more alike to the training images. Images of equal score
cannot be told apart: they pass a threshold together, whatever their order.

Letters: I images, O outliers, N = I + O of both, T distinct scores in descending order,
R resamples.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

MEASURES = ("auroc", "aupr_in", "aupr_out", "fpr95")
TRUE_POSITIVE_RATE = 0.95


class Passed(NamedTuple):
    """How many images and outliers have at least each distinct score, (R, T) each."""

    images_RT: np.ndarray
    outliers_RT: np.ndarray


class Detection:
    """Detects outliers by their scores; a call computes the four `MEASURES`.

    - `auroc`: chance that an image has a higher score than an outlier, ties counting half
      (Fawcett, "An introduction to ROC analysis", 2006).
    - `aupr_in`, `aupr_out`: area under precision and recall where images, or outliers, are what
      is looked for. It is the average precision, a sum of steps: straight lines between the
      points of this curve would be too high (Davis and Goadrich, "The Relationship Between
      Precision-Recall and ROC Curves", 2006). It depends on how many outliers there are.
    - `fpr95`: fraction of outliers that pass the highest threshold which 95% of the images pass
      (Liang et al., "Enhancing the reliability of out-of-distribution image detection in neural
      networks", 2018, section 4); 0 is best.

    Args:
        image_scores_I: of images like the training images; float64, not NaN.
        outlier_scores_O: of images unlike them.
    """

    def __init__(self, image_scores_I: np.ndarray, outlier_scores_O: np.ndarray) -> None:
        self.sizes = (len(image_scores_I), len(outlier_scores_O))
        scores_N = np.concatenate([image_scores_I, outlier_scores_O])
        self._order_N = np.argsort(-scores_N, kind="stable")
        descending_N = scores_N[self._order_N]
        self._is_image_N = self._order_N < len(image_scores_I)
        # Not a difference: that of two infinite scores is none.
        self._last_T = np.flatnonzero(np.append(descending_N[1:] != descending_N[:-1], True))

    def __call__(self, counts_RN: np.ndarray | None = None) -> np.ndarray:
        """Compute the measures, (R, 4), of resamples: how often each of N (images first) was drawn.

        Without counts, they are those of the scores themselves, (1, 4). A `bootstrap` takes this
        as a figure, and `sizes` as its numbers of images.
        """
        passed = self._passed(np.ones((1, sum(self.sizes))) if counts_RN is None else counts_RN)
        return np.column_stack([_auroc(passed), *_average_precisions(passed), _fpr95(passed)])

    def measures(self) -> dict[str, float]:
        """Compute the measures by name."""
        return dict(zip(MEASURES, self()[0].tolist(), strict=True))

    def roc(self, n_points: int = 200) -> pd.DataFrame:
        """Compute at most `n_points` rows of `false_positive_rate` and `true_positive_rate`.

        They ascend from (0, 0) to (1, 1), evenly spread along the curve; images are positive.
        """
        images_T, outliers_T = (each[0] for each in self._passed(np.ones((1, sum(self.sizes)))))
        points_P2 = np.vstack([[0, 0], np.column_stack([outliers_T, images_T])]) / self.sizes[::-1]
        if n_points < len(points_P2):
            along_P = points_P2.sum(axis=1)
            inner = np.searchsorted(along_P, np.linspace(0, 2, max(n_points, 2))[1:-1])
            points_P2 = points_P2[np.unique([0, *inner, len(points_P2) - 1])]
        return pd.DataFrame(points_P2, columns=["false_positive_rate", "true_positive_rate"])

    def _passed(self, counts_RN: np.ndarray) -> Passed:
        in_order_RN = counts_RN[:, self._order_N]
        both_RT = in_order_RN.cumsum(axis=1)[:, self._last_T]
        images_RT = (in_order_RN * self._is_image_N).cumsum(axis=1)[:, self._last_T]
        return Passed(images_RT, both_RT - images_RT)


def _new(passed_RT: np.ndarray) -> np.ndarray:
    """Count those that have exactly each score."""
    return np.diff(passed_RT, axis=1, prepend=0)


def _auroc(passed: Passed) -> np.ndarray:
    images_RT, outliers_RT = passed
    above_RT = images_RT - _new(images_RT) / 2
    area_R = np.einsum("rt,rt->r", _new(outliers_RT), above_RT)
    found: np.ndarray = area_R / (images_RT[:, -1] * outliers_RT[:, -1])
    return found


def _average_precisions(passed: Passed) -> tuple[np.ndarray, np.ndarray]:
    """Compute that of images, from the highest score on, and of outliers, from the lowest."""
    images_RT, outliers_RT = passed
    new_images_RT, new_outliers_RT = _new(images_RT), _new(outliers_RT)
    n_images_R1, n_outliers_R1 = images_RT[:, -1:], outliers_RT[:, -1:]
    left_images_RT = n_images_R1 - images_RT + new_images_RT
    left_outliers_RT = n_outliers_R1 - outliers_RT + new_outliers_RT
    return (
        _average_precision(new_images_RT, images_RT, outliers_RT) / n_images_R1[:, 0],
        _average_precision(new_outliers_RT, left_outliers_RT, left_images_RT) / n_outliers_R1[:, 0],
    )


def _average_precision(
    new_RT: np.ndarray, wanted_RT: np.ndarray, others_RT: np.ndarray
) -> np.ndarray:
    # A score that no resampled image has counts for nothing; there may be none at all beyond it.
    precision_RT = wanted_RT / np.maximum(wanted_RT + others_RT, 1)
    found: np.ndarray = np.einsum("rt,rt->r", new_RT, precision_RT)
    return found


def _fpr95(passed: Passed) -> np.ndarray:
    images_RT, outliers_RT = passed
    needed_R = np.ceil(TRUE_POSITIVE_RATE * images_RT[:, -1])
    first_R = (images_RT >= needed_R[:, None]).argmax(axis=1)
    found: np.ndarray = outliers_RT[np.arange(len(first_R)), first_R] / outliers_RT[:, -1]
    return found
