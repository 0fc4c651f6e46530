"""The variance of an AUROC, and the test of whether those of two models differ.

DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver
Operating Characteristic Curves: A Nonparametric Approach" (1988), computed from ranks as in Sun and
Xu, "Fast Implementation of DeLong's Algorithm for Comparing the Areas Under Correlated Receiver
Operating Characteristic Curves" (2014): N log N steps instead of one for each pair of images.

SciPy and scikit-learn have neither. Letters: I images, O outliers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jemtrack.evaluation.statistics.paired_tests import PairedTest
from jemtrack.evaluation.statistics.resampling import Interval, normal_quantile


class Placements(NamedTuple):
    """Where each score is among those of the other kind, 0 to 1; ties count half.

    Attributes:
        image_I: of each image, the share of outliers with a lower score.
        outliers: of each outlier, the share of images with a higher score, (O,); an array for
            each kind of outliers, of whose AUROCs this is the mean.
    """

    image_I: np.ndarray
    outliers: tuple[np.ndarray, ...]

    @property
    def auroc(self) -> float:
        """The chance that an image has a higher score than an outlier: the mean of either."""
        return float(self.image_I.mean())

    @property
    def variance(self) -> float:
        """Estimate the variance of `auroc` over images and outliers; infinite if there is one."""
        if min(map(len, (self.image_I, *self.outliers))) < 2:
            return math.inf
        parts = [each.var(ddof=1) / len(each) for each in self.outliers]
        return float(self.image_I.var(ddof=1) / len(self.image_I) + sum(parts) / len(parts) ** 2)


def placements(image_scores_I: np.ndarray, outlier_scores_O: np.ndarray) -> Placements:
    """Compute the placements of both from their ranks among all scores and among their own."""
    from scipy.stats import rankdata  # takes a while to import

    n_images, n_outliers = len(image_scores_I), len(outlier_scores_O)
    rank_N = rankdata(np.concatenate([image_scores_I, outlier_scores_O]))
    below_I = rank_N[:n_images] - rankdata(image_scores_I)
    below_O = rank_N[n_images:] - rankdata(outlier_scores_O)
    return Placements(below_I / n_outliers, (1 - below_O / n_images,))


def mean_placements(placed: Sequence[Placements]) -> Placements:
    """Make the placements whose AUROC is the mean over kinds of outliers, for the same images."""
    outliers = tuple(each for one in placed for each in one.outliers)
    return Placements(np.mean([one.image_I for one in placed], axis=0), outliers)


def auroc_interval(placed: Placements, level: float = 0.95) -> Interval:
    """Compute an interval by DeLong's variance of the AUROC's logit, which stays within 0 and 1.

    Qin and Hotilovac, "Comparison of non-parametric confidence intervals for the area under the
    ROC curve of a continuous-scale diagnostic test" (2008), find it closer to its level near 1 than
    one of the AUROC itself. It has no width where the scores separate all images: AUROC 0 or 1.

    Raises:
        InputError: if `level` is not between 0 and 1.
    """
    quantile, auroc = normal_quantile(level), placed.auroc
    if math.isinf(placed.variance):
        return Interval(0.0, 1.0)
    if not 0 < auroc < 1:
        return Interval(auroc, auroc)
    logit = math.log(auroc / (1 - auroc))
    half = quantile * math.sqrt(placed.variance) / (auroc * (1 - auroc))
    low, high = (0.5 * (1 + math.tanh(each / 2)) for each in (logit - half, logit + half))
    return Interval(low, high)


def delong_test(first: Placements, second: Placements, level: float = 0.95) -> PairedTest:
    """Test whether two models' AUROCs differ, on the same images and outliers.

    The p-value is not below that of the exact test which exchanges the models image by image
    (Bandos, Rockette and Gur, "A permutation test sensitive to differences in areas for comparing
    ROC curves from a paired design", 2005): few images cannot make sure of anything.

    Raises:
        InputError: if `level` is not between 0 and 1.
    """
    quantile = normal_quantile(level)
    outliers = zip(first.outliers, second.outliers, strict=True)
    apart = Placements(first.image_I - second.image_I, tuple(one - two for one, two in outliers))
    difference, error = apart.auroc, math.sqrt(apart.variance)
    # Models that rank all images alike have no difference, and no error of it.
    standardised = abs(difference) / error if error else math.inf if difference else 0.0
    n_images = sum(map(len, (apart.image_I, *apart.outliers)))
    return PairedTest(
        difference=difference,
        low=max(difference - quantile * error, -1.0),
        high=min(difference + quantile * error, 1.0),
        p_value=max(math.erfc(standardised / math.sqrt(2)), 2.0 ** (1 - n_images)),
    )
