"""What a training takes of the machine, and what it costs to measure it.

    python examples/performance_demo.py runs/performance

runs a loop with the performance tracker as it usually is, then in its lightweight mode, and
prints what the samples say and how long it took to take them.
"""

import sys
import time
from pathlib import Path

import numpy as np

from jemtrack.record.jsonl import read_lines
from jemtrack.trackers.performance import Performance
from jemtrack.train.metrics import Metric
from jemtrack.train.pipeline import Pipeline

INTERVAL = 0.05  # seconds between two samples here; usually it is a second


class Busy(Pipeline):
    """Multiplies matrices for a while and holds some memory."""

    n_epochs = 3

    def __init__(self, seconds):
        self.seconds = seconds  # an epoch

    def run_epoch(self, epoch):
        """Work for some seconds; count what was done in them."""
        held = np.ones((epoch + 1, 1 << 20))  # 8 MiB more each epoch
        matrix, n_products = np.ones((200, 200)), 0
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            matrix = matrix @ matrix / matrix.sum()
            n_products += 1
            if n_products % 100 == 0:
                self.log_batch({Metric.LOSS: 1 / n_products})
        self.epoch_metrics[Metric.TRAIN_LOSS] = held.mean() / n_products


def shown(path):
    """Say what a file of samples holds, and what they cost."""
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
        print(f"{mode}: {shown(path)}")
