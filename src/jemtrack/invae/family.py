"""The family `invae`: one network of single cells, trained by the evidence lower bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from jemtrack.invae.options import NETWORK, InVAEBatchArgs, InVAEShape, KLOptions
from jemtrack.parameters import ValueProblem, parameters
from jemtrack.train.optimizers import Adam, OptimizerOptions
from jemtrack.train.recipe import Recipe, Step, TrainingSettings

if TYPE_CHECKING:
    import torch

    from jemtrack.data.cells.cells import CellSplits
    from jemtrack.events.handlers import Callback
    from jemtrack.invae.network import InVAE
    from jemtrack.train.phase import Batches, Models, Objective, Validation
    from jemtrack.train.run import ModelMaker, Training

_MODULES = tuple(f"{NETWORK}.{part}" for part in ("encoder", "prior", "decoder"))


@parameters
class InVAEStep(KLOptions, Step):
    """A phase of a training of inVAE: the weight of its divergence, and what is trained."""

    models: ClassVar[tuple[str, ...]] = (NETWORK, *_MODULES)
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {n: (n,) for n in (NETWORK, *_MODULES)}
    usual_optimizer: ClassVar[OptimizerOptions] = Adam(lr=1e-3)
    validation_metrics: ClassVar[tuple[str, ...]] = (
        "valid_loss",
        "valid_reconstruction",
        "valid_kl_i",
        "valid_kl_s",
    )

    @classmethod
    def trained(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the optimizers of what a step of these values trains."""
        return (NETWORK,)

    @classmethod
    def metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the metrics of its batches."""
        return ("loss", "reconstruction", "kl_i", "kl_s", "kl_weight")

    @property
    def summary(self) -> str:
        """What it trains, in words."""
        return f"inVAE, weight of the divergence {self.kl_start:g} to {self.kl_weight:g}"


@parameters
class InVAESettings(InVAEBatchArgs, TrainingSettings):
    """The section `training` of a recipe file."""


class InVAEFamily:
    """Networks of single cells; see `jemtrack.train.run.Family`."""

    name: str = "invae"
    note: str = (
        "its data are cells, which a recipe file has no section for: check the file here, and "
        "train it as the parameter `recipe` of the stage TrainInVAE"
    )
    step: type[Step] = InVAEStep
    shape: type = InVAEShape
    settings: type = InVAESettings
    objectives: Mapping[str, type] = {}

    def usual_values(self, objective: Any) -> dict[str, Any]:
        """Return nothing: a step has all it needs."""
        return {}

    def recipe_problems(self, recipe: Recipe, model: Any, objective: Any) -> Iterator[ValueProblem]:
        """Yield nothing: the bound depends on every part."""
        yield from ()

    def notes(self, recipe: Recipe, model: Any) -> Iterator[str]:
        """Yield nothing: its sizes are those of the parameters."""
        yield from ()

    def check_data(self, model: InVAEShape, settings: Any, data: CellSplits) -> None:
        """Check the parameters against each other and against the cells."""
        from jemtrack.invae.training import check_data

        check_data(model, settings, data)

    def objective_problems(
        self, recipe: Recipe, objective: Any, settings: Any, data: CellSplits, *, run_own: bool
    ) -> Iterator[str]:
        """Yield nothing: there is one objective."""
        yield from ()

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

    def final_metrics(self, models: Models, settings: Any, data: CellSplits) -> dict[str, float]:
        """Return nothing beside the last epoch's metrics."""
        return {}

    def callbacks(self, training: Training) -> Sequence[Callback]:
        """Return none."""
        return ()

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
