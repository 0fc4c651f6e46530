"""What a training step is given."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images with their labels, and where few images are labelled, other images for the density.

    Shapes: `images_BCHW` and `density_images_BCHW` (batch, channels, height, width), float,
    around [-1, 1]; the two batches may differ in size. `labels_B` whole numbers from 0.

    Without `density_images_BCHW`, class and density are both learned from `images_BCHW`. All that
    an objective draws for the batch follows from the `seed`.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    density_images_BCHW: Tensor | None = None
    seed: int = 0
