"""The parameters of a bundle; this module imports nothing that a bundle needs."""

from typing import Annotated

from pydantic import Field

from jemtrack.parameters import AtLeastOne, NotNegative, parameters
from jemtrack.shared.hardware import DEFAULT_THREADS, Threads


@parameters
class DeployArgs:
    """What a bundle promises, and what is in it.

    Attributes:
        alpha: at most this share of images like the validation images is refused.
        int8: add a model whose convolutions are quantised, with its own temperature and threshold.
        gradient: add the graph of the approximate mass, by which outliers are told, too.
        n_train_images: training images whose features the Mahalanobis score measures distances to,
            and whose ranges the quantisation takes.
        n_samples: test images that the bundle carries, with their outputs, for its self-test.
        accuracy_within: the int8 model is refused if its accuracy is worse by more.
        nll_within: the same for the NLL.
        auroc_within: the same for the mean AUROC.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    int8: bool = True
    gradient: bool = False
    n_train_images: AtLeastOne = 1000
    n_samples: AtLeastOne = 16
    accuracy_within: NotNegative = 0.005
    nll_within: NotNegative = 0.005
    auroc_within: NotNegative = 0.003
    threads: Threads = DEFAULT_THREADS

    @property
    def int8_bounds(self) -> dict[str, float]:
        """By how much each figure of the int8 model may be worse."""
        return {
            "accuracy": self.accuracy_within,
            "nll": self.nll_within,
            "auroc": self.auroc_within,
        }
