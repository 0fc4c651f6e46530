"""The judge of samples: a classifier of an architecture and seed of its own.

Letters: B batch, C channels, F features, H height, L classes, N images, W width.
"""

from collections.abc import Sequence
from itertools import chain, count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.shared.random_streams import EpochSampler, stream_seed

_BATCH_SIZE, _AT_ONCE = 64, 256
_N_FEATURES = 64
_LEAST = 0.1  # of the mean deviation: a feature that few test images have must not count for all


class Judge(nn.Module):
    """A classifier of 5x5 convolutions with batch norms, which no network of the family has."""

    def __init__(self, image_shape: Sequence[int], n_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 24, 5, padding=2), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 5, padding=2), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(48 * (height // 4) * (width // 4), _N_FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(_N_FEATURES, n_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute the logits of images in [-1, 1], (B, L)."""
        logits_BL: Tensor = self.head(self.trunk(images_BCHW))
        return logits_BL

    @torch.inference_mode()
    def judged(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, F) and predicted classes (N,), on the CPU."""
        device = self.head.weight.device
        parts = torch.split(images_NCHW, _AT_ONCE)
        features_NF = torch.cat([self.trunk(each.to(device)) for each in parts])
        return features_NF.cpu(), self.head(features_NF).argmax(dim=1).cpu()


def trained_judge(
    images: LabelledImages, n_classes: int, n_steps: int, seed: int, device: torch.device
) -> Judge:
    """Train a judge by Adam on batches of 64, at a rate that falls along half a cosine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "judge"))
        judge = Judge(images.images_NCHW.shape[1:], n_classes).to(device)
    optimizer = torch.optim.Adam(judge.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    sampler = EpochSampler(len(images), _BATCH_SIZE, stream_seed(seed, "judge's batches"))
    for indices_B in islice(chain.from_iterable(map(sampler.epoch, count())), n_steps):
        batch = images[indices_B]
        optimizer.zero_grad()
        logits_BL = judge(to_unit_range(batch.images_NCHW).to(device))
        functional.cross_entropy(logits_BL, batch.labels_N.to(device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return judge.eval()


def deviations(features_NF: Tensor) -> Tensor:
    """Return each feature's standard deviation, by which a distance is to divide it, (F,)."""
    std_F = features_NF.std(dim=0)
    return std_F.clamp_min(_LEAST * float(std_F.mean()))
