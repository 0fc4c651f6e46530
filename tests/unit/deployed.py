"""A small trained model and what a bundle is exported of, for tests of the deployment."""

import asyncio
from pathlib import Path

import numpy as np
import torch
from stage_runs import N_CLASSES, some_images
from torch.nn import functional

from jemtrack.data.images import DataSplits, to_unit_range
from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.bundle import Exported, Material, write_bundle
from jemtrack.deploy.predict import Model
from jemtrack.jem.networks.model_file import save_model
from jemtrack.jem.networks.shape import NormName, WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model


def some_data() -> DataSplits:
    return DataSplits("quarters", N_CLASSES, False, 1, *(some_images(n, n) for n in (96, 59, 80)))


def outliers() -> dict[str, torch.Tensor]:
    stream = torch.Generator().manual_seed(9)
    return {"uniform": torch.randint(256, (70, 1, 8, 8), dtype=torch.uint8, generator=stream)}


def trained(path: Path, norm: NormName = "none") -> Path:
    """Train a small model for forty steps, and save it."""
    shape = WideResNetShape(depth=10, width=1, norm=norm, channels=1, n_classes=N_CLASSES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(shape).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train = some_data().train
    for step in range(40):
        rows = slice(16 * (step % 6), 16 * (step % 6 + 1))
        logits_BC = model(to_unit_range(train.images_NCHW[rows]))
        loss = functional.cross_entropy(logits_BC, train.labels_N[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(path, model, shape, {"sigma": "0.0"})
    return path


def material(folder: Path, norm: NormName = "none", **args) -> Material:
    path = folder / "Trained" / "model.safetensors"
    return Material(
        path if path.exists() else trained(path, norm), some_data(), outliers(), DeployArgs(**args)
    )


def make(folder: Path) -> None:
    """Write the model, and its bundle into `bundle`; the export takes most of the time."""
    given = material(folder)
    exported = Exported.of(given)
    torch.save(exported, folder / "exported.pt")
    write_bundle(exported, given, folder / "bundle")


class Here:
    """A worker that runs a model in this process, so that a test has it in its hands."""

    def __init__(self, model: Model) -> None:
        self.model = model

    async def __call__(self, images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        return await asyncio.to_thread(self.model, images_NCHW)

    async def end(self) -> None:
        pass
