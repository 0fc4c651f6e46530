"""Evaluate a model on images, one at a time."""

import torch
from torch import Tensor

from benchmarks.reference.images import AugmentedImages
from benchmarks.reference.network import Classifier


@torch.no_grad()
def evaluate(
    network: Classifier, images: AugmentedImages, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute the logits (N, classes) and log p~(x) (N,) of the images with their noise."""
    network.eval()
    logits, log_densities = [], []
    for index in range(len(images)):
        image, _ = images[index]
        of_image = network.classify(image[None].to(device))
        logits.append(of_image.cpu())
        log_densities.append(of_image.logsumexp(1).cpu())
    return torch.cat(logits), torch.cat(log_densities)
