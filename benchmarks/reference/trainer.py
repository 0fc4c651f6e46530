"""A whole training of the reference: epochs, validation after each, weights in a file."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.reference.images import AugmentedImages, cycle, loader
from benchmarks.reference.network import Classifier
from benchmarks.reference.steps import Loss, PlainStep

PRINT_EVERY = 100


@dataclass
class PlainTrainer:
    """Train `network` on images, and validate it after each epoch.

    Attributes:
        network: the network, trained in place.
        loss: the loss to minimise.
        train: training images, augmented on reading.
        valid: validation images, with noise only.
        batch_size: images per step.
        lr: learning rate of Adam.
        device: device of the training.
        accuracies: accuracy on the validation images after each epoch.
    """

    network: Classifier
    loss: Loss
    train: AugmentedImages
    valid: AugmentedImages
    batch_size: int
    lr: float
    device: torch.device
    accuracies: list[float] = field(default_factory=list)

    def fit(self, n_epochs: int, weights: Path) -> None:
        """Train; write the weights to a file after each epoch."""
        batches = loader(self.train, self.batch_size)
        others = cycle(loader(self.train, self.batch_size))
        labelled = cycle(batches)
        step = PlainStep(self.network, self.loss, labelled, others, self.device, self.lr)
        for epoch in range(n_epochs):
            self.network.train()
            for number in range(len(batches)):
                loss = step()
                if number % PRINT_EVERY == 0:
                    print(f"reference: epoch {epoch + 1}, batch {number}, loss {loss:.4f}")
            self.accuracies.append(accuracy(self.network, self.valid, self.device))
            print(f"reference: epoch {epoch + 1}, accuracy {self.accuracies[-1]:.4f}")
            torch.save(self.network.state_dict(), weights)


@torch.no_grad()
def accuracy(network: Classifier, images: AugmentedImages, device: torch.device) -> float:
    """Compute the share of images that are classified correctly."""
    network.eval()
    right = 0
    for x, y in DataLoader(images, batch_size=100):
        right += (network.classify(x.to(device)).argmax(1).cpu() == y).sum().item()
    return right / len(images)
