"""Measure the coverage of confidence intervals for the calibration error.

    python -m benchmarks.ece_coverage

simulates classifiers with ten classes whose true probabilities are known, and so is their
calibration error in 20 bins of equal width for infinitely many images. They are calibrated, or
their logits are too large or too small by a factor, `sureness`. For each number of images, it
prints the true error and the mean of the estimated ones. For each 95% interval, it prints the
percentage of repetitions in which it contains the true error, lies above it and lies below it, and
its mean width:

- simulated: `calibration_error_interval`;
- percentile, basic (`--bootstrap`): the bootstrap's percentile interval, and the same mirrored
  at the estimate, which removes the bias that the bootstrap itself estimates.

The standard error of a percentage is 1.5 for 200 repetitions at 95%.
"""

import argparse
import functools
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch

from jemtrack.evaluation.measures.calibration import calibration_error, reliability_table
from jemtrack.evaluation.statistics.calibration_interval import calibration_error_interval
from jemtrack.evaluation.statistics.resampling import (
    bootstrap,
    calibration_error_of,
    percentile_interval,
)

N_CLASSES, N_BINS = 10, 20
ENDLESS = 500_000


class Classifier(NamedTuple):
    """A simulated classifier: the distance of its classes, and the factor of its logits."""

    separation: float
    sureness: float

    def draw(self, n_images: int, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the stated probabilities (N, C), and the true ones of the predicted class, (N,)."""
        logits_NC = 2 * stream.normal(size=(n_images, N_CLASSES))
        rows_N = np.arange(n_images)
        logits_NC[rows_N, stream.integers(N_CLASSES, size=n_images)] += 2 * self.separation
        stated_NC = _softmax(self.sureness * logits_NC)
        return stated_NC, _softmax(logits_NC)[rows_N, stated_NC.argmax(axis=1)]

    def labelled(
        self, n_images: int, stream: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw stated probabilities (N, C) and labels (N,) that follow the true ones.

        A label other than the predicted class is arbitrary: the calibration error ignores which.
        """
        stated_NC, chance_N = self.draw(n_images, stream)
        other_N = stream.random(n_images) >= chance_N
        labels_N = (stated_NC.argmax(axis=1) + other_N) % N_CLASSES
        return torch.from_numpy(stated_NC), torch.from_numpy(labels_N)

    @functools.cache  # noqa: B019 - a handful of classifiers
    def true_error(self) -> float:
        """Compute the calibration error in the bins from the true probabilities, without labels."""
        stated_NC, chance_N = self.draw(ENDLESS, np.random.default_rng(0))
        return calibration_error(reliability_table(stated_NC.max(axis=1), chance_N, N_BINS))


CLASSIFIERS = [
    Classifier(separation, sureness)
    for separation in (2.0, 4.0, 6.0)
    for sureness in (1.0, 1.2, 2.0, 0.6)
]


def _softmax(logits_NC: np.ndarray) -> np.ndarray:
    exponentials_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True)


def intervals(
    probabilities_NC: torch.Tensor, labels_N: torch.Tensor, seed: int, resample: bool
) -> tuple[float, dict[str, tuple[float, float]]]:
    """Compute the estimated error, and its intervals by name."""
    confidence_N, predicted_N = (each.numpy() for each in probabilities_NC.max(dim=1))
    correct_N = predicted_N == labels_N.numpy()
    table = reliability_table(confidence_N, correct_N, N_BINS)
    seen = calibration_error(table)
    found: dict[str, tuple[float, float]] = {"simulated": calibration_error_interval(table, seed)}
    if resample:
        figure = calibration_error_of(table["bin_left"].to_numpy(), confidence_N, correct_N)
        resampled_R = bootstrap({"ece": figure}, len(labels_N), seed, n_resamples=500)["ece"]
        low, high = percentile_interval(resampled_R)
        found["percentile"] = (low, high)
        found["basic"] = (max(2 * seen - high, 0.0), max(2 * seen - low, 0.0))
    return seen, found


def line(classifier: Classifier, n_images: int, repetitions: int, resample: bool) -> str:
    """Repeat the simulation; format the coverage of each interval."""
    truth = classifier.true_error()
    seen, bounds = [], defaultdict(list)
    for seed in range(repetitions):
        drawn = classifier.labelled(n_images, np.random.default_rng([seed, n_images]))
        error, found = intervals(*drawn, seed, resample)
        seen.append(error)
        for name, interval in found.items():
            bounds[name].append(interval)
    cells = []
    for name, each in bounds.items():
        low_R, high_R = np.array(each).T
        above, below = (100 * np.mean(missed) for missed in (low_R > truth, high_R < truth))
        width = np.mean(high_R - low_R)
        held = 100 - above - below
        cells.append(f"{name} {held:5.1f} ({above:.1f}, {below:.1f}) {width:.3f}")
    start = f"{n_images:6} {classifier.separation:4} {classifier.sureness:4}"
    return f"{start}  {truth:.4f} {np.mean(seen):.4f}  " + "  ".join(cells)


def main() -> None:
    """Print a line for each classifier and number of images."""
    parser = argparse.ArgumentParser(description="Coverage of intervals for the ECE.")
    parser.add_argument("--repetitions", type=int, default=200, help="per line (200)")
    parser.add_argument(
        "--images", type=int, action="append", help="number of images (100, 360, 2000, 10000)"
    )
    parser.add_argument("--bootstrap", action="store_true", help="also the intervals of bootstraps")
    options = parser.parse_args()
    if options.repetitions < 1 or any(each < 1 for each in options.images or []):
        parser.error("--repetitions and --images must be >= 1")
    print("images  separation  sureness  truth  seen  interval: held % (above, below) width")
    for n_images in options.images or (100, 360, 2000, 10_000):
        for classifier in CLASSIFIERS:
            print(line(classifier, n_images, options.repetitions, options.bootstrap), flush=True)


if __name__ == "__main__":
    main()
