"""Trainings of the family flux on a few images, for tests."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import BreakOff, PowerCutError
from torch import nn

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.events.events import Event, PhaseEnd
from jemtrack.events.handlers import Callback
from jemtrack.flux.family import FAMILY
from jemtrack.flux.forms import FluxSettings, FluxStep
from jemtrack.flux.networks.shape import FluxShape
from jemtrack.recipe.read import RawRecipe
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.launch import Runtime
from jemtrack.train.run import Training
from jemtrack.train.state import TrainState

CPU = Runtime(torch.device("cpu"))
SHAPE = FluxShape(vae_dim=2, feature_maps_dim=8, text_embedding_dim=8)
N_IMAGES, BATCH_SIZE = 14, 7
N_BATCHES = N_IMAGES // BATCH_SIZE

# Each way of training once.
STEPS = (
    {"name": "vae", "train_vae": True, "kl_warmup_steps": 5},
    {"name": "vae_gan", "train_vae": True, "gan_training": True, "r1_interval": 2},
    {"name": "gan", "gan_training": True, "train_spade": True, "adv_warmup_steps": 3},
    {"name": "flow", "train_diff": True, "freeze": ["compressor", "expander"]},
    {"name": "full", "train_diff_full": True, "freeze": ["compressor", "expander"]},
)


def splits(n=N_IMAGES, side=8) -> DataSplits:
    stream = torch.Generator().manual_seed(0)

    def part(count):
        images = torch.randint(256, (count, 1, side, side), generator=stream).to(torch.uint8)
        return LabelledImages(images, torch.arange(count) % 10)

    return DataSplits("digits", 10, False, 1, part(n), part(4), part(4))


class AtPhaseEnds(Callback):
    """Keeps the weights after each phase."""

    def __init__(self) -> None:
        self.weights: dict[str, dict[str, torch.Tensor]] = {}

    def __call__(self, event: Event, state: TrainState) -> None:
        if isinstance(event, PhaseEnd):
            found = nn.ModuleDict({**state.models}).state_dict()
            self.weights[event.name] = {name: each.clone() for name, each in found.items()}


def training(
    steps=STEPS,
    folder=Path(),
    runtime=CPU,
    callbacks=(),
    optimizer=None,
    data=None,
    **settings: Any,
) -> Training:
    """Make a training by these steps, an epoch each; `optimizer` is that of all models."""
    optimizer = optimizer or {"type": "AdamW", "lr": 1e-3}
    trained = sorted({name for step in steps for name in FluxStep.trained(step) or ()})
    defaults = {
        "n_epochs": 1,
        "optimization": {"optimizers": dict.fromkeys(trained, optimizer)},
    }
    recipe = RawRecipe({"defaults": defaults, "steps": [*steps]}, FluxStep).build()
    chosen = {"batch_size": BATCH_SIZE, "n_samples": 0, **settings}
    return Training(
        name="flux",
        family=FAMILY,
        recipe=recipe,
        model=SHAPE,
        settings=FluxSettings(**chosen),
        data=data or splits(),
        runtime=runtime,
        folder=folder,
        callbacks=callbacks,
    )


def train(made: Training, trackers=(), checkpoints=None, cut=0) -> Training:
    """Train to the end, or to the step `cut`, after which the power fails."""
    made.callbacks = [*made.callbacks, BreakOff(cut)]
    if cut:
        with pytest.raises(PowerCutError):
            made.train(trackers, checkpoints)
    else:
        made.train(trackers, checkpoints)
    return made


def every_step(folder: Path) -> Checkpoints | None:
    return Checkpoints(folder, every_steps=1) if is_rank_zero() else None


def weights(made: Training) -> dict[str, torch.Tensor]:
    return nn.ModuleDict({**made.state.models}).state_dict()


def saved(made: Training, path: Path) -> bytes:
    made.save(path)
    return path.read_bytes()
