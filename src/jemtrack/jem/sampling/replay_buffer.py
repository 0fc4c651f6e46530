"""The replay buffer of Langevin chains.

Letters: B batch, C channels, H height, W width, K classes, M images in the buffer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jemtrack.jem.sampling.chain_starts import Starts


class Chains(NamedTuple):
    """Starts of chains, (B, C, H, W), and their indices in the buffer, (B,), all different."""

    images_BCHW: Tensor
    indices_B: Tensor


class ReplayBuffer:
    """The ends of earlier Langevin chains, on the device, from which later chains continue.

    Each class has an equal part of the buffer. Initially it is full of fresh starts. With
    `reinit_probability`, a chain starts afresh instead of from its image in the buffer.

    Sources: Tieleman 2008 for persistent chains; Du & Mordatch 2019
    (https://arxiv.org/abs/1903.08689) for the replay buffer with reinitialisation.
    """

    def __init__(
        self,
        size: int,
        n_classes: int,
        reinit_probability: float,
        starts: Starts,
        generator: torch.Generator,
    ) -> None:
        self.n_classes, self.per_class = n_classes, size // n_classes
        self.reinit_probability = reinit_probability
        self.starts = starts
        indices_M = torch.arange(self.per_class * n_classes, device=generator.device)
        self.images_MCHW = starts(indices_M // self.per_class, generator)

    def draw(self, n: int, generator: torch.Generator) -> Chains:
        """Draw `n` different chains, or all if there are fewer; some start afresh."""
        order_M = torch.randperm(
            len(self.images_MCHW), generator=generator, device=generator.device
        )
        return self._chains(order_M[:n], generator)

    def draw_of_classes(self, labels_B: Tensor, generator: torch.Generator) -> Chains:
        """Draw a chain of each label's class; a class may have at most `per_class` labels."""
        order = torch.randperm(self.per_class, generator=generator, device=generator.device)
        is_of_class_BK = torch.nn.functional.one_hot(labels_B, self.n_classes)
        # Number the labels of each class from 0, so that all chains of a class are different.
        numbers_BK = is_of_class_BK.cumsum(0) - 1
        numbers_B = numbers_BK.gather(1, labels_B[:, None]).squeeze(1)
        return self._chains(labels_B * self.per_class + order[numbers_B], generator)

    def put(self, indices_B: Tensor, images_BCHW: Tensor) -> None:
        """Store the ends of the chains at these indices."""
        self.images_MCHW[indices_B] = images_BCHW

    def state_dict(self) -> dict[str, Tensor]:
        """Return the images."""
        return {"images": self.images_MCHW}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the images of a buffer of the same size."""
        self.images_MCHW.copy_(state["images"])

    def _chains(self, indices_B: Tensor, generator: torch.Generator) -> Chains:
        # Fresh starts are drawn for all chains: a number of them that depends on the draw would
        # have to be copied from the device.
        fresh_BCHW = self.starts(indices_B // self.per_class, generator)
        draws_B = torch.rand(len(indices_B), generator=generator, device=generator.device)
        is_fresh_B = draws_B < self.reinit_probability
        stored_BCHW = self.images_MCHW[indices_B]
        images_BCHW = torch.where(is_fresh_B[:, None, None, None], fresh_BCHW, stored_BCHW)
        return Chains(images_BCHW, indices_B)
