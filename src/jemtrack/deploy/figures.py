"""What an exported model is worth: by its own outputs, and beside those of the PyTorch model.

Letters: N images, C classes.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.detection import Detection
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.scores import nll_by_image
from jemtrack.jem.networks.energy_model import JointEnergyModel, evaluation_mode

# Computes the outputs by name, arrays of N rows, of uint8 images (N, C, H, W).
Run = Callable[[np.ndarray], dict[str, np.ndarray]]

COMPARED = ("probabilities", "log_density", "mahalanobis")
_PER_PASS = 500


def answers(run: Run, images_NCHW: Tensor) -> dict[str, np.ndarray]:
    """Run a model on images of any number, a few at a time."""
    parts = [run(part.numpy()) for part in torch.split(images_NCHW, _PER_PASS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def reference(
    network: JointEnergyModel, score_features: Callable[[Tensor], Tensor], temperature: float
) -> Run:
    """Make what an exported model must agree with: the evaluation's own code, on PyTorch."""

    @torch.inference_mode()
    def run(images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        with evaluation_mode(network):
            features_NF = network.trunk(to_unit_range(torch.from_numpy(images_NCHW)))
            logits_NC, log_density_N = network.heads(features_NF)
        return {
            "logits": logits_NC.numpy(),
            "probabilities": (logits_NC.double() / temperature).softmax(dim=1).numpy(),
            "log_density": log_density_N.numpy(),
            "mahalanobis": score_features(features_NF).numpy(),
        }

    return run


def largest_differences(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Compute the largest difference of each output; of the Mahalanobis score, in units of it."""
    largest = {}
    for name in COMPARED:
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


def measured(
    run: Run, test: LabelledImages, outliers: Mapping[str, Tensor], temperature: float
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Run a model on the test images and the outliers; return the former's outputs, and figures."""
    found = answers(run, test.images_NCHW)
    others = {kind: answers(run, images) for kind, images in outliers.items()}
    return found, figures(found, test.labels_N, temperature, others)


def refuse_beyond(
    what: str,
    found: Mapping[str, float],
    expected: Mapping[str, float],
    bounds: Mapping[str, float],
) -> None:
    """Raise InputError if a figure is further from the expected one than its bound, or is NaN."""
    for name, bound in bounds.items():
        if name in found and not abs(apart := found[name] - expected[name]) <= bound:
            raise InputError(
                f"{what} is refused: its {name} must differ by at most {bound:.2g}, "
                f"got {apart:+.2g}"
            )
