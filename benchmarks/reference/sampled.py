"""JEM's own training step as published: Langevin chains, with a replay buffer on the CPU."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.reference.network import Classifier
from benchmarks.reference.steps import Loaded, descend, searched_convolutions


@dataclass
class Chains:
    """Langevin chains that start from the ends of earlier ones, or at times from noise."""

    image_shape: tuple[int, int, int]
    device: torch.device
    n_steps: int = 20
    step_size: float = 1.0
    noise_std: float = 0.01
    buffer_size: int = 10_000
    reinit: float = 0.05

    def __post_init__(self) -> None:
        self.buffer = self._fresh(self.buffer_size)

    def __call__(self, network: Classifier, n_chains: int) -> Tensor:
        """Run the chains; store and return their ends."""
        chosen = torch.randint(self.buffer_size, (n_chains,))
        afresh = (torch.rand(n_chains) < self.reinit).float()[:, None, None, None]
        start = afresh * self._fresh(n_chains) + (1 - afresh) * self.buffer[chosen]
        network.eval()
        x = start.to(self.device).requires_grad_()
        for _ in range(self.n_steps):
            gradient = torch.autograd.grad(network(x).sum(), [x], retain_graph=True)[0]
            x.data += self.step_size * gradient + self.noise_std * torch.randn_like(x)
        network.train()
        ends = x.detach()
        self.buffer[chosen] = ends.cpu()
        return ends

    def _fresh(self, n_images: int) -> Tensor:
        return torch.empty(n_images, *self.image_shape).uniform_(-1, 1)


@dataclass
class PlainSampledStep:
    """Train on a batch for p(x), a batch of samples, and a batch with labels."""

    network: Classifier
    chains: Chains
    labelled: Loaded
    others: Loaded
    device: torch.device
    lr: float

    def __post_init__(self) -> None:
        self.network.to(self.device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.lr)

    @searched_convolutions()
    def __call__(self) -> float:
        """Take a step; return its loss."""
        x_p = next(self.others)[0].to(self.device)
        x, y = (each.to(self.device) for each in next(self.labelled))
        x_q = self.chains(self.network, len(x_p))
        return descend(self.optimizer, sampled_loss(self.network, x_p, x_q, x, y))


def sampled_loss(network: Classifier, x_p: Tensor, x_q: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Raise log p~ of images, lower that of samples, and classify: three forward passes."""
    contrast = network(x_p).mean() - network(x_q).mean()
    return -contrast + cross_entropy(network.classify(x), y)
