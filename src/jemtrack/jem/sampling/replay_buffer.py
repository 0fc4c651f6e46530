"""The replay buffer of Langevin chains.

Letters: B batch, C channels, H height, W width, M images in the buffer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jemtrack.jem.sampling.chain_starts import Starts


class Chains(NamedTuple):
    """Chains that go on, (B, C, H, W), and their places in the buffer, (B,), no two the same."""

    images_BCHW: Tensor
    places_B: Tensor


class ReplayBuffer:
    """Keeps where chains ended, on the device, so that later ones go on from there.

    An equal part of it is each class's own. It begins full of fresh chains.

    Sources: Tieleman 2008 for chains that persist; Du & Mordatch 2019
    (https://arxiv.org/abs/1903.08689) for the buffer with fresh chains among them.
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
        places_M = torch.arange(self.per_class * n_classes, device=generator.device)
        self.images_MCHW = starts(places_M // self.per_class, generator)

    def draw(self, n: int, generator: torch.Generator) -> Chains:
        """Draw `n` of the chains, at most as many as there are, some of them to begin afresh."""
        order_M = torch.randperm(
            len(self.images_MCHW), generator=generator, device=generator.device
        )
        return self._drawn(order_M[:n], generator)

    def draw_of_classes(self, labels_B: Tensor, generator: torch.Generator) -> Chains:
        """Draw a chain of each label's class; a class has at most `per_class` labels."""
        order = torch.randperm(self.per_class, generator=generator, device=generator.device)
        is_of_class_BK = torch.nn.functional.one_hot(labels_B, self.n_classes)
        # The how-manieth of its class each label is: a class's chains are all different.
        numbers_BK = is_of_class_BK.cumsum(0) - 1
        numbers_B = numbers_BK.gather(1, labels_B[:, None]).squeeze(1)
        return self._drawn(labels_B * self.per_class + order[numbers_B], generator)

    def put(self, places_B: Tensor, images_BCHW: Tensor) -> None:
        """Keep where the chains of these places ended."""
        self.images_MCHW[places_B] = images_BCHW

    def state_dict(self) -> dict[str, Tensor]:
        """Give the images."""
        return {"images": self.images_MCHW}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the images of a buffer of this size."""
        self.images_MCHW.copy_(state["images"])

    def _drawn(self, places_B: Tensor, generator: torch.Generator) -> Chains:
        fresh_BCHW = self.starts(places_B // self.per_class, generator)
        chances_B = torch.rand(len(places_B), generator=generator, device=generator.device)
        is_fresh_B = chances_B < self.reinit_probability
        kept_BCHW = self.images_MCHW[places_B]
        images_BCHW = torch.where(is_fresh_B[:, None, None, None], fresh_BCHW, kept_BCHW)
        return Chains(images_BCHW, places_B)
