"""A pipeline without a model: the engine records whatever metrics a loop sets.

    python examples/dummy_pipeline.py examples/dummy.yaml

The file declares the loop, its options, a callback that ends it early, and the trackers.
"""

import logging
import math
import sys
from pathlib import Path

from jemtrack.errors import InputError
from jemtrack.loops.pipeline import Pipeline
from jemtrack.loops.pipeline_file import load_pipeline
from jemtrack.shared.components import Option, component
from jemtrack.shared.metrics import Metric


@component("dummy")
class Dummy(Pipeline):
    """A loop whose loss decreases exponentially towards a floor."""

    n_epochs: int = Option(int, "epochs at most", default=20, minimum=1)
    n_batches: int = Option(int, "batches per epoch", default=5, minimum=1)
    floor: float = Option(float, "lower bound of the loss", default=0.2, minimum=0)

    def run(self) -> None:
        """Run the epochs; record the final loss."""
        for epoch in self.epochs(self.n_epochs):
            self.run_epoch(epoch)
        self.run_metrics[Metric.TEST_LOSS] = self.loss_after(self.n_epochs)

    def run_epoch(self, epoch: int) -> None:
        """Log the loss of each batch, then set the metrics of the epoch."""
        total = 0.0
        for batch in range(self.n_batches):
            loss = self.loss_after(epoch + batch / self.n_batches)
            self.log_batch({Metric.LOSS: loss})
            total += loss
        self.epoch_metrics[Metric.TRAIN_LOSS] = total / self.n_batches
        self.epoch_metrics[Metric.VALID_LOSS] = max(self.loss_after(epoch), 2 * self.floor)

    def loss_after(self, epochs: float) -> float:
        """Return the loss after a number of epochs."""
        return self.floor + math.exp(-epochs / 2)


def main(path: Path) -> None:
    """Run the pipeline that the file declares."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load_pipeline(path)
    pipeline.run()
    print(f"{pipeline.status}: {dict(pipeline.run_metrics)}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("dummy.yaml"))
    except InputError as error:
        sys.exit(str(error))
