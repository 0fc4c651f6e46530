"""Measure the load of the machine during a loop, and the cost of measuring it.

    python examples/performance_demo.py runs/performance

runs a loop with the performance tracker in its usual mode, then in its lightweight mode, and
prints a summary of the samples and the time that a sample takes.
"""

import sys
import time
from pathlib import Path

import numpy as np

from jemtrack.loops.pipeline import Pipeline
from jemtrack.record.jsonl import read_lines
from jemtrack.shared.metrics import Metric
from jemtrack.trackers.performance import Performance

INTERVAL = 0.05  # seconds between two samples; the default is one second


class Busy(Pipeline):
    """Multiply matrices for a while, with more memory in each epoch."""

    n_epochs = 3

    def __init__(self, seconds):
        self.seconds = seconds  # per epoch

    def run_epoch(self, epoch):
        """Multiply matrices for some seconds; log the inverse of their number as the loss."""
        held = np.ones((epoch + 1, 1 << 20))  # 8 MiB more each epoch
        matrix, n_products = np.ones((200, 200)), 0
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            matrix = matrix @ matrix / matrix.sum()
            n_products += 1
            if n_products % 100 == 0:
                self.log_batch({Metric.LOSS: 1 / n_products})
        self.epoch_metrics[Metric.TRAIN_LOSS] = held.mean() / n_products


def summary(path):
    """Summarise the samples in a file, and the time that they took."""
    samples = list(read_lines(path))
    metrics = [sample["metrics"] for sample in samples]
    cpu = sum(each["cpu_percent"] for each in metrics) / len(metrics)
    memory = max(each["memory_mib"] for each in metrics)
    seconds = sum(sample["seconds"] for sample in samples) / len(samples)
    return (
        f"{len(samples)} samples of {', '.join(metrics[-1])}: cpu {cpu:.0f}%, memory up to "
        f"{memory:.0f} MiB; a sample takes {seconds * 1e3:.2f} ms, {seconds:.2%} of a second"
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1] if sys.argv[1:] else "runs/performance")
    for mode, light in {"usual": False, "light": True}.items():
        path = folder / f"{mode}.jsonl"
        path.unlink(missing_ok=True)
        pipeline = Busy(seconds=0.5)
        pipeline.trackers = [Performance(path=str(path), interval=INTERVAL, light=light)]
        pipeline.run()
        print(f"{mode}: {summary(path)}")
