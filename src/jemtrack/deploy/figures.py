"""What an exported model is worth: by its own outputs, and beside those of the PyTorch model.

Letters: N images, C classes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.detection import Detection
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.scores import nll_by_image
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.shared.evaluation_mode import evaluation_mode

# Computes the outputs by name, arrays of N rows, of uint8 images (N, C, H, W).
Run = Callable[[np.ndarray], dict[str, np.ndarray]]

# How far float32 may lead two orders of the same sums apart.
FP32_BOUNDS = {"probabilities": 1e-5, "log_density": 1e-4, "mahalanobis": 1e-4}
_HIGHER_IS_BETTER = {"accuracy": True, "nll": False, "auroc": True}
_PER_PASS = 500


def answers(run: Run, images_NCHW: Tensor) -> dict[str, np.ndarray]:
    """Run a model on images of any number, a few at a time."""
    parts = [run(part.numpy()) for part in torch.split(images_NCHW, _PER_PASS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def evaluated(network: JointEnergyModel, score_features: Callable[[Tensor], Tensor]) -> Run:
    """Make what an exported model must agree with: the evaluation's own code, on PyTorch."""

    @torch.inference_mode()
    def run(images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        with evaluation_mode(network):
            features_NF = network.trunk(to_unit_range(torch.from_numpy(images_NCHW)))
            logits_NC, log_density_N = network.heads(features_NF)
        return {
            "logits": logits_NC.numpy(),
            "log_density": log_density_N.numpy(),
            "mahalanobis": score_features(features_NF).numpy(),
        }

    return run


def largest_differences(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Compute the largest difference of each output; of the Mahalanobis score, in units of it."""
    largest = {}
    for name in FP32_BOUNDS:
        apart_N = np.abs(found[name].astype(np.float64) - expected[name])
        if name == "mahalanobis":
            apart_N = apart_N / np.abs(expected[name])
        largest[name] = float(apart_N.max())
    return largest


def figures(
    found: Mapping[str, np.ndarray],
    labels_N: Tensor,
    temperature: float,
    outliers: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """Measure the outputs `found` for labelled images, and those for each kind of outliers.

    Returns:
        accuracy; nll, of the probabilities at the temperature; refused, the share of the images;
        if there are outliers, means over their kinds: auroc, by log p~(x), and outliers_refused.
    """
    checked = LabelledLogits(torch.from_numpy(found["logits"]), labels_N)
    measured: dict[str, float] = {
        "accuracy": float(checked.correct_N.mean()),
        "nll": float(nll_by_image(checked.logits_NC / temperature, checked.labels_N).mean()),
        "refused": float(found["refused"].mean()),
    }
    if outliers:
        density_N = found["log_density"].astype(np.float64)
        pairs = [
            Detection(density_N, each["log_density"].astype(np.float64)).measures()["auroc"]
            for each in outliers.values()
        ]
        measured["auroc"] = float(np.mean(pairs))
        shares = [each["refused"].mean() for each in outliers.values()]
        measured["outliers_refused"] = float(np.mean(shares))
    return measured


class Measurement(NamedTuple):
    """What a model is worth: its `figures`, and its largest differences to PyTorch, by output."""

    figures: dict[str, float]
    differences: dict[str, float]


class Measuring:
    """Measures exports of a model on test images and outliers, beside PyTorch, which runs once.

    Args:
        pytorch: what they must agree with; see `evaluated`.
        test: the test images.
        outliers: uint8 images (N, C, H, W), by kind.
    """

    def __init__(self, pytorch: Run, test: LabelledImages, outliers: Mapping[str, Tensor]) -> None:
        self._expected = answers(pytorch, test.images_NCHW)
        self._test, self._outliers = test, outliers

    def __call__(self, run: Run, temperature: float) -> Measurement:
        """Measure what `run` answers at a temperature."""
        found = answers(run, self._test.images_NCHW)
        others = {kind: answers(run, images) for kind, images in self._outliers.items()}
        logits_NC = torch.from_numpy(self._expected["logits"]).double()
        probabilities = (logits_NC / temperature).softmax(dim=1).numpy()
        return Measurement(
            figures(found, self._test.labels_N, temperature, others),
            largest_differences(found, {**self._expected, "probabilities": probabilities}),
        )


def refuse_fp32(what: str, found: Measurement) -> None:
    """Raise InputError if a model that computes in float32 does not agree with PyTorch."""
    _refuse(what, "must differ", found.differences, FP32_BOUNDS)


def worse_by(found: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Return by how much accuracy, NLL and AUROC are worse in `found`; below 0, they are better."""
    return {
        name: (expected[name] - found[name]) * (1 if is_higher_better else -1)
        for name, is_higher_better in _HIGHER_IS_BETTER.items()
        if name in found
    }


def refuse_worse(
    what: str,
    found: Mapping[str, float],
    expected: Mapping[str, float],
    bounds: Mapping[str, float],
) -> None:
    """Raise InputError if a figure is worse than the expected one by more than its bound, or NaN.

    Better it may be: by chance, it is as often.
    """
    _refuse(what, "may be worse", worse_by(found, expected), bounds)


def _refuse(what: str, limit: str, apart: Mapping[str, float], bounds: Mapping[str, float]) -> None:
    for name, bound in bounds.items():
        if name in apart and not apart[name] <= bound:
            raise InputError(
                f"{what} is refused: its {name} {limit} by at most {bound:.2g}, "
                f"got {apart[name]:.2g}"
            )
