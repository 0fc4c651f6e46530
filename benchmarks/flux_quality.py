"""Measure a model of the family flux: reconstructions, and samples by captions.

    python benchmarks/flux_quality.py runs/flux_fashion/model.safetensors

The judge is a classifier of an architecture and seed of its own, which no training has seen. Its
accuracy on real test images stands beside that on reconstructions and samples: consistency above
it is the work of guidance, not quality. Distances are squared MMDs of its last features, each in
units of its standard deviation over the test images; the floor is that of training images. They
cannot be compared with published FIDs, whose features are of another network.
"""

import argparse
import time
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jemtrack.data.class_names import class_names
from jemtrack.data.images import DataSplits, LabelledImages, to_unit_range
from jemtrack.data.splits import prepare
from jemtrack.evaluation.measures.feature_distance import squared_mmd
from jemtrack.flux.captions import HELD_OUT_TEMPLATES
from jemtrack.flux.networks.model_file import FluxFile, load_models
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.training import psnr
from jemtrack.shared.random_streams import EpochSampler

_AT_ONCE = 256
_SAMPLERS = [
    FlowSampler(solver=solver, n_steps=n_steps, guidance=guidance)
    for solver, n_steps, guidance in (
        ("euler", 8, 1.0), ("euler", 8, 2.0), ("euler", 16, 1.0), ("midpoint", 8, 1.0),
    )
]  # fmt: skip


class Judge(nn.Module):
    """A classifier of 5x5 convolutions with batch norms."""

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 24, 5, padding=2), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 5, padding=2), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.LazyLinear(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, n_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute the logits."""
        logits: Tensor = self.head(self.trunk(images_BCHW))
        return logits


def trained_judge(images: LabelledImages, n_classes: int, n_steps: int) -> Judge:
    """Train a judge on batches of 64."""
    torch.manual_seed(77)
    judge = Judge(images.images_NCHW.shape[1], n_classes)
    judge(to_unit_range(images.images_NCHW[:2]))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3)
    sampler = EpochSampler(len(images), 64, seed=77)
    batches = chain.from_iterable(map(sampler.epoch, range(n_steps)))
    for indices_B in islice(batches, n_steps):
        batch = images[indices_B]
        optimizer.zero_grad()
        functional.cross_entropy(judge(to_unit_range(batch.images_NCHW)), batch.labels_N).backward()
        optimizer.step()
    return judge.eval()


@torch.inference_mode()
def judged(judge: Judge, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and predicted classes."""
    features_NF = torch.cat([judge.trunk(each) for each in torch.split(images_NCHW, _AT_ONCE)])
    return features_NF, judge.head(features_NF).argmax(dim=1)


@torch.inference_mode()
def reconstructed(file: FluxFile, images_NCHW: Tensor) -> Tensor:
    """Decode the means of the posteriors."""
    compressor, expander = file.models["compressor"], file.models["expander"]
    parts = torch.split(images_NCHW, _AT_ONCE)
    return torch.cat([expander(compressor(each).mean_BCHW) for each in parts])


def rows(file: FluxFile, data: DataSplits, judge: Judge, n: int) -> list[tuple[str, ...]]:
    """Measure; return the rows of the table."""
    test = data.test[torch.arange(min(n, len(data.test)))]
    real_NCHW = to_unit_range(test.images_NCHW)
    test_NF, _ = judged(judge, real_NCHW)
    scale_F = test_NF.std(dim=0).clamp_min(1e-3)

    def row(name: str, images_NCHW: Tensor, labels_N: Tensor, note: str = "") -> tuple[str, ...]:
        features_NF, predicted_N = judged(judge, images_NCHW)
        distance = squared_mmd(features_NF / scale_F, test_NF / scale_F)
        right = float((predicted_N == labels_N).double().mean())
        return name, f"{right:.3f}", f"{distance:.4f}", note

    train = data.train[torch.arange(len(test))]
    found = [
        row("test images", real_NCHW, test.labels_N),
        row("training images (floor)", to_unit_range(train.images_NCHW), train.labels_N),
    ]
    decoded_NCHW = reconstructed(file, real_NCHW)
    error_N = (decoded_NCHW - real_NCHW).square().flatten(1).mean(dim=1)
    found.append(
        row("reconstructions", decoded_NCHW, test.labels_N, f"PSNR {psnr(error_N):.1f} dB")
    )
    names = class_names(data.dataset, data.n_classes)
    captions = [HELD_OUT_TEMPLATES[i % 2].format(names[y]) for i, y in enumerate(test.labels_N)]
    for sampler in _SAMPLERS:
        start = time.process_time()
        images_NCHW = sampler(file.models, captions, file.sizes.vocabulary, seed=1)
        milliseconds = 1000 * (time.process_time() - start) / len(captions)
        name = f"{sampler.solver}, {sampler.n_steps} steps, guidance {sampler.guidance:g}"
        note = f"{sampler.n_evaluations} evaluations, {milliseconds:.1f} ms an image"
        found.append(row(name, images_NCHW, test.labels_N, note))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--n", type=int, default=2000, help="test images, and samples")
    parser.add_argument("--judge-steps", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = prepare(options.dataset, options.data_root, 10, 1000, 1)
    judge = trained_judge(data.train, data.n_classes, options.judge_steps)
    print("| images | judged right | distance | |\n|---|---|---|---|")
    for row in rows(load_models(options.model), data, judge, options.n):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
