"""Compare the effect of bfloat16 on trained models with the effect of another seed.

    python -m benchmarks.precision_quality

trains each trainer on digits with several seeds, in fp32 and in bf16-mixed, and measures the
models on the test images in fp32. For accuracy, NLL and ECE it prints the mean and the standard
deviation over the seeds in both precisions, and the difference of the means in units of the
difference's standard error: a difference within about two of them is explained by the spread over
seeds. The seed determines the split, the initialisation and all noise.
"""

import argparse
import statistics
from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.data.sources.fetch import fetch
from jemtrack.data.splits import prepare
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.jem.networks.inference import predict
from jemtrack.shared.hardware import Precision
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.sampled_jem import SampledJEM
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.trainer import Trainer
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.train.launch import Runtime, launch

TRAINERS: dict[str, type[Trainer]] = {
    cls.__name__: cls for cls in (XEntropyAugmented, MaxEntropyL2, SampledJEM)
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16-mixed")
MEASURES = ("accuracy", "nll", "ece")
SIGMA = 0.03


def measured(
    runtime: Runtime, trainer: type[Trainer], data: DataSplits, params: TrainArgs
) -> dict[str, float]:
    """Train on the data; measure the model on its test images, in fp32."""
    training = trainer(data="unused", params=params).training(data, runtime)
    training.train((), None)
    predictions = predict(training.served, data.test, sigma=SIGMA, seed=data.seed)
    return CalibrationMeasures()(predictions.logits_NC, data.test.labels_N).metrics


def runs(trainer: str, params: TrainArgs, seeds: range) -> list[dict[str, float]]:
    """Train and measure a model for each seed."""
    found = []
    for seed in seeds:
        data = prepare("digits", Path("data"), n_classes=10, n_valid=180, seed=seed)
        found.append(launch(params, measured, TRAINERS[trainer], data, params))
    return found


def line(trainer: str, measure: str, values: dict[str, list[float]]) -> str:
    """Format the means, the standard deviations and the difference of a measure."""
    shown = "  ".join(
        f"{statistics.mean(each):.4f} +- {statistics.stdev(each):.4f}" for each in values.values()
    )
    exact, mixed = values.values()
    error = ((statistics.variance(exact) + statistics.variance(mixed)) / len(exact)) ** 0.5
    difference = statistics.mean(mixed) - statistics.mean(exact)
    apart = difference / error if error else 0.0
    return f"  {trainer:18} {measure:9} {shown}  {difference:+.4f}  {apart:+.1f}"


def main() -> None:
    """Train all models; print a line for each trainer and measure."""
    parser = argparse.ArgumentParser(description="fp32 and bf16-mixed side by side.")
    parser.add_argument("--trainer", choices=TRAINERS, action="append", help="one of them (all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many (5)")
    parser.add_argument("--epochs", type=int, default=20, help="of each training (20)")
    parser.add_argument("--chain-steps", type=int, default=20, help="of SampledJEM (20)")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds must be >= 2, got {options.seeds}: there is no spread of one")
    fetch("digits", Path("data"))
    print(f"digits, {options.seeds} seeds, {options.epochs} epochs")
    print(f"  {'trainer':18} {'measure':9} {'fp32':16}  {'bf16-mixed':16}  difference, in errors")
    for trainer in options.trainer or TRAINERS:
        found = {}
        for precision in PRECISIONS:
            params = TrainArgs(
                n_epochs=options.epochs,
                n_steps=options.chain_steps,
                sigma=SIGMA,
                eval_every=options.epochs,
                precision=precision,
            )
            found[precision] = runs(trainer, params, range(1, options.seeds + 1))
        for measure in MEASURES:
            values = {p: [each[measure] for each in found[p]] for p in PRECISIONS}
            print(line(trainer, measure, values), flush=True)


if __name__ == "__main__":
    main()
