"""The family `invae`: one network of single cells, trained by the evidence lower bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from jemtrack.invae.options import NETWORK, InVAEBatchArgs, InVAEShape, KLOptions
from jemtrack.parameters import parameters
from jemtrack.train.family import Family
from jemtrack.train.optimizers import Adam, OptimizerOptions
from jemtrack.train.recipe import Recipe, Step, TrainingSettings

if TYPE_CHECKING:
    import torch

    from jemtrack.data.cells.cells import CellSplits
    from jemtrack.invae.network import InVAE
    from jemtrack.train.family import ModelMaker
    from jemtrack.train.phase import Batches, Models, Objective, Validation
    from jemtrack.train.run import Training

_MODULES = tuple(f"{NETWORK}.{part}" for part in ("encoder", "prior", "decoder"))


@parameters
class InVAEStep(KLOptions, Step):
    """A phase of a training of inVAE: the weight of its divergence, and what is trained."""

    models: ClassVar[tuple[str, ...]] = (NETWORK, *_MODULES)
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {n: (n,) for n in (NETWORK, *_MODULES)}
    usual_optimizer: ClassVar[OptimizerOptions] = Adam(lr=1e-3)

    @classmethod
    def trained(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the optimizers of what a step of these values trains."""
        return (NETWORK,)

    @classmethod
    def metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the metrics of its batches."""
        return ("loss", "reconstruction", "kl_i", "kl_s", "kl_weight")

    @classmethod
    def validation_metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name what validation adds to its epochs."""
        return ("valid_loss", "valid_reconstruction", "valid_kl_i", "valid_kl_s")

    @property
    def summary(self) -> str:
        """What it trains, in words."""
        return f"inVAE, weight of the divergence {self.kl_start:g} to {self.kl_weight:g}"


@parameters
class InVAESettings(InVAEBatchArgs, TrainingSettings):
    """The section `training` of a recipe file."""


class InVAEFamily(Family):
    """Networks of single cells; see `jemtrack.train.family.Family`."""

    name = "invae"
    note = (
        "its data are cells, which a recipe file has no section for: check the file here, and "
        "train it as the parameter `recipe` of the stage TrainInVAE"
    )
    step = InVAEStep
    shape = InVAEShape
    settings = InVAESettings

    def check_data(self, model: InVAEShape, settings: Any, data: CellSplits) -> None:
        """Check the parameters against each other and against the cells."""
        from jemtrack.invae.training import check_data

        check_data(model, settings, data)

    def networks(
        self, recipe: Recipe, model: InVAEShape, data: CellSplits, start: Path | None
    ) -> dict[str, ModelMaker]:
        """Return the maker of the one network."""
        from jemtrack.invae.training import initial_network

        return {NETWORK: partial(initial_network, model, data, start)}

    def parts(
        self,
        recipe: Recipe,
        settings: InVAEBatchArgs,
        data: CellSplits,
        device: torch.device,
        objective: Any,
    ) -> Iterable[tuple[Objective, Batches, Validation | None]]:
        """Make each step's objective, batches of an order and noise of its own, and validation."""
        from jemtrack.invae.training import phase_parts

        return phase_parts(recipe, settings, data, device)

    def save(self, path: Path, models: Models, training: Training) -> None:
        """Write the network, its shape and the names of its genes, batches and labels."""
        from jemtrack.invae.model_file import save_model

        network = cast("InVAE", models[NETWORK])
        save_model(path, network, training.data.vocabulary, training.notes)

    def load(self, path: Path) -> Models:
        """Load the network."""
        from jemtrack.invae.model_file import load_model

        return {NETWORK: load_model(path).network}


FAMILY = InVAEFamily()
