"""All that an evaluation found out, in tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
from torch import Tensor

from jemtrack.evaluation.calibration_measures import Calibration
from jemtrack.evaluation.comparison import Comparison, compare_classifiers
from jemtrack.evaluation.measures.energy_histograms import energy_histograms
from jemtrack.evaluation.measures.scores import confusion, correct
from jemtrack.evaluation.measures.selective import risk_coverage
from jemtrack.evaluation.measures.temperature import scaled_measures
from jemtrack.evaluation.model_outputs import Look, ModelOutputs
from jemtrack.evaluation.outlier_detection import OutlierDetection
from jemtrack.evaluation.statistics.resampling import N_RESAMPLES

N_BINS = 20


@dataclass(frozen=True)
class Findings:
    """What was found out about several models on the same images.

    Attributes:
        metrics: by model, one number a measure.
        calibration: by model, the rows of a reliability diagram.
        comparison: the main measures with intervals, and which models differ.
        detection: how well each model notices outliers; None where there were none to notice.
        energies: by model, energies of images, training images and outliers in bins.
        risk_coverage: by model, the risk of the most certain part of the images.
        confusion: by model, counts by label and predicted class.
        level: of confidence, of the intervals in `comparison` and `detection`.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    calibration: Mapping[str, pd.DataFrame]
    comparison: Comparison
    detection: OutlierDetection | None
    energies: Mapping[str, pd.DataFrame]
    risk_coverage: Mapping[str, pd.DataFrame]
    confusion: Mapping[str, pd.DataFrame]
    level: float = 0.95

    @property
    def models(self) -> list[str]:
        """Name the models."""
        return [*self.metrics]

    @property
    def roc(self) -> dict[str, pd.DataFrame]:
        """Give by model the ROC curves of each score against each kind of outliers."""
        if self.detection is None:
            return {}
        curves = self.detection.roc()
        return {str(name): rows.drop(columns="model") for name, rows in curves.groupby("model")}

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Give the figures with their intervals and all tests, by name."""
        tables = {"figures": self.comparison.figures, "tests": self.comparison.pairs}
        if self.detection is not None:
            tables |= {"outliers": self.detection.figures, "tests_outliers": self.detection.pairs}
        return tables


@dataclass(frozen=True)
class OtherFindings:
    """What other stages found out about the models.

    Attributes:
        robustness: rows with the columns `model`, `group` (corruption or attack), `kind`,
            `strength`, `accuracy`, `low`, `high`, `count`; or none.
        grids: by model, a PNG file of samples with a row a class.
        samples: by model, what was measured on its samples.
    """

    robustness: pd.DataFrame
    grids: Mapping[str, bytes]
    samples: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Statistics:
    """How sure a figure has to be, and by how many resamples."""

    seed: int
    n_resamples: int = N_RESAMPLES
    level: float = 0.95


def outlier_detection(
    images: Mapping[str, ModelOutputs],
    outliers: Mapping[str, Mapping[str, ModelOutputs]],
    statistics: Statistics,
) -> OutlierDetection | None:
    """Set each model's images against its outliers, by partner and model; None without partners."""
    if not outliers:
        return None
    return OutlierDetection(
        {model: said.scores() for model, said in images.items()},
        {
            partner: {model: said.scores() for model, said in by_model.items()}
            for partner, by_model in outliers.items()
        },
        seed=statistics.seed,
        n_resamples=statistics.n_resamples,
        level=statistics.level,
    )


def compared(
    images: Mapping[str, ModelOutputs],
    labels_N: Tensor,
    statistics: Statistics,
    n_bins: int = N_BINS,
) -> Comparison:
    """Compare the models' logits on the same images."""
    return compare_classifiers(
        {model: said.logits_NC for model, said in images.items()},
        labels_N,
        n_bins=n_bins,
        seed=statistics.seed,
        n_resamples=statistics.n_resamples,
        level=statistics.level,
    )


def histogram(
    measured: ModelOutputs, train: ModelOutputs, outliers: Mapping[str, ModelOutputs], split: str
) -> pd.DataFrame:
    """Spread the energies of one model over bins: the measured `split`, training, outliers."""
    sets = {split: measured, "train": train, **outliers}
    return energy_histograms({name: said.log_density_N for name, said in sets.items()})


def selective_curve(measured: ModelOutputs, labels_N: Tensor) -> pd.DataFrame:
    """Give risk over coverage of one model, by its maximum probability."""
    confidence_N = measured.scores()["max_probability"]
    return risk_coverage(confidence_N, correct(measured.logits_NC, labels_N))


def confusions(images: Mapping[str, ModelOutputs], labels_N: Tensor) -> dict[str, pd.DataFrame]:
    """Count each model's images by label and predicted class."""
    return {model: confusion(said.logits_NC, labels_N) for model, said in images.items()}


class Measures(Protocol):
    """What gives a classifier's numbers and reliability diagram; see `CalibrationMeasures`."""

    def __call__(self, logits_NC: Tensor, labels_N: Tensor) -> Calibration:
        """Measure on N images with C logits each."""
        ...


def find_out(
    looked: Mapping[str, Look],
    labels_N: Tensor,
    valid_labels_N: Tensor | None,
    *,
    split: str,
    measures: Measures,
    statistics: Statistics,
) -> Findings:
    """Measure and compare what the models said of the `split` with these labels.

    With the labels of the validation images, temperatures are fitted on them. All calibration
    errors are in the bins of `measures`, or in 20 where these say nothing of bins.
    """
    n_bins = getattr(measures, "n_bins", N_BINS)
    measured = {name: look.measured for name, look in looked.items()}
    partners = next(iter(looked.values())).outliers if looked else ()
    outliers = {
        partner: {name: look.outliers[partner] for name, look in looked.items()}
        for partner in partners
    }
    calibrations = {name: measures(said.logits_NC, labels_N) for name, said in measured.items()}
    detection = outlier_detection(measured, outliers, statistics)
    metrics: dict[str, dict[str, Any]] = {}
    for name, found in calibrations.items():
        metrics[name] = dict(found.metrics)
        valid_NC = looked[name].valid_logits_NC
        if valid_NC is not None and valid_labels_N is not None:
            logits_NC = measured[name].logits_NC
            metrics[name] |= scaled_measures(valid_NC, valid_labels_N, logits_NC, labels_N, n_bins)
        if detection is not None:
            metrics[name]["auroc"] = detection.auroc(name)
    return Findings(
        metrics=metrics,
        calibration={name: each.reliability for name, each in calibrations.items()},
        comparison=compared(measured, labels_N, statistics, n_bins),
        detection=detection,
        energies={
            name: histogram(look.measured, look.train, look.outliers, split)
            for name, look in looked.items()
        },
        risk_coverage={name: selective_curve(each, labels_N) for name, each in measured.items()},
        confusion=confusions(measured, labels_N),
        level=statistics.level,
    )
