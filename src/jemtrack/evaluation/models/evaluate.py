"""From the outputs of several models to all results of an evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import pandas as pd
from torch import Tensor

from jemtrack.evaluation.measures.calibration import N_BINS
from jemtrack.evaluation.measures.calibration_measures import Calibration
from jemtrack.evaluation.measures.energy_histograms import energy_histograms
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.scores import confusion, nll_by_image
from jemtrack.evaluation.measures.selective import risk_coverage
from jemtrack.evaluation.measures.temperature import scaled_measures
from jemtrack.evaluation.models.comparison import compare_classifiers
from jemtrack.evaluation.models.model_outputs import ModelOutputs
from jemtrack.evaluation.models.outlier_detection import OutlierDetection, detect_outliers
from jemtrack.evaluation.models.results import EvaluationResults, measures_table
from jemtrack.evaluation.statistics.resampling import N_RESAMPLES

# The image sets that are not outliers: those that are measured, some training images, and the
# validation images.
MEASURED, TRAIN, VALID = "measured", "train", "valid"

Outputs = Mapping[str, Mapping[str, ModelOutputs]]


@dataclass(frozen=True)
class Statistics:
    """The seed and number of resamples, and the level of confidence, of all intervals and tests."""

    seed: int
    n_resamples: int = N_RESAMPLES
    level: float = 0.95


def evaluate(
    outputs: Outputs,
    labels: Mapping[str, Tensor],
    *,
    split: str,
    measures: Callable[[Tensor, Tensor], Calibration],
    statistics: Statistics,
) -> EvaluationResults:
    """Measure and compare models by their outputs for the same image sets.

    Args:
        outputs: by model and image set: `MEASURED`, `TRAIN`, and `VALID` if there are validation
            images; each other set is a kind of outliers.
        labels: of `MEASURED`, and of `VALID` if temperatures are to be fitted.
        split: what the measured images are called in the histograms of energies.
        measures: what to compute from logits and labels, such as `CalibrationMeasures`; if it has
            `n_bins`, the ECE at the temperature is in as many.
        statistics: of all intervals and tests.

    Raises:
        InputError: when labels and outputs do not fit together.
    """
    checked = {
        model: LabelledLogits(sets[MEASURED].logits_NC, labels[MEASURED])
        for model, sets in outputs.items()
    }
    calibrations = {
        model: measures(each.logits_NC, each.labels_N) for model, each in checked.items()
    }
    metrics = {model: dict(each.metrics) for model, each in calibrations.items()}
    if VALID in labels:
        n_bins = getattr(measures, "n_bins", N_BINS)
        for model, each in checked.items():
            valid = LabelledLogits(outputs[model][VALID].logits_NC, labels[VALID])
            metrics[model] |= _validated(valid, each, n_bins)
    reliability = {model: each.reliability for model, each in calibrations.items()}
    tables = {"confusion": _confusions(checked)}
    comparison = compare_classifiers(
        {model: each.logits_NC for model, each in checked.items()},
        labels[MEASURED],
        reliability=reliability,
        **asdict(statistics),
    )
    tables |= {"figures": comparison.figures, "tests": comparison.pairs}
    if detection := _detection(outputs, statistics):
        tables |= {"outliers": detection.figures, "tests_outliers": detection.pairs}
        for model, found in metrics.items():
            found["auroc"] = detection.mean_auroc(model)
    return EvaluationResults(
        metrics=metrics,
        tables={"measures": measures_table(metrics), **tables},
        calibration=reliability,
        energies={model: _energies(sets, split) for model, sets in outputs.items()},
        risk_coverage={
            model: risk_coverage(each.confidence_N, each.correct_N)
            for model, each in checked.items()
        },
        roc=detection.roc if detection else {},
    )


def _validated(valid: LabelledLogits, measured: LabelledLogits, n_bins: int) -> dict[str, float]:
    """Measure the validation images, and the others at the temperature that fits them."""
    nll = float(nll_by_image(valid.logits_NC, valid.labels_N).mean())
    return {**scaled_measures(valid, measured, n_bins), "valid_nll": nll}


def _outlier_sets(sets: Mapping[str, ModelOutputs]) -> dict[str, ModelOutputs]:
    return {name: each for name, each in sets.items() if name not in (MEASURED, TRAIN, VALID)}


def _detection(outputs: Outputs, statistics: Statistics) -> OutlierDetection | None:
    """Detect each kind of outliers by the scores of each model; None if there are no outliers."""
    scores = {
        model: {name: each.scores() for name, each in sets.items()}
        for model, sets in outputs.items()
    }
    partners = _outlier_sets(next(iter(outputs.values()), {}))
    if not partners:
        return None
    return detect_outliers(
        {model: of_model[MEASURED] for model, of_model in scores.items()},
        {
            partner: {model: of_model[partner] for model, of_model in scores.items()}
            for partner in partners
        },
        **asdict(statistics),
    )


def _confusions(checked: Mapping[str, LabelledLogits]) -> pd.DataFrame:
    tables = {m: confusion(each.logits_NC, each.labels_N) for m, each in checked.items()}
    return pd.concat(tables, names=["model"]).reset_index("model")


def _energies(sets: Mapping[str, ModelOutputs], split: str) -> pd.DataFrame:
    shown = {split: sets[MEASURED], "train": sets[TRAIN], **_outlier_sets(sets)}
    return energy_histograms(
        {name: each.log_density_N.double().numpy() for name, each in shown.items()}
    )
