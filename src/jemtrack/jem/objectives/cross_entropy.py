"""The objective of an ordinary classifier.

Letters: B batch, C channels in `BCHW` and classes in `logits_BC`.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from jemtrack.jem.training.batches import Batch
from jemtrack.parameters import parameters
from jemtrack.shared.metrics import declare_metric
from jemtrack.train.distributed import all_gather

CROSS_ENTROPY = declare_metric("cross_entropy")


@parameters
class CrossEntropy:
    """Mean of -log p(y_i given x_i) over the labelled images."""

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Compute `loss`, and `cross_entropy`, the same value detached, for the record."""
        # The loss of the whole batch, in every process: see train.distributed.
        logits_BC = all_gather(models["network"](batch.images_BCHW))
        cross_entropy = functional.cross_entropy(logits_BC, all_gather(batch.labels_B))
        return {"loss": cross_entropy, CROSS_ENTROPY: cross_entropy.detach()}
