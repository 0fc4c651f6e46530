"""The family of joint energy-based models: one network, trained by one objective a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jemtrack.errors import InputError
from jemtrack.jem.networks.shape import NetworkShape
from jemtrack.jem.training.forms import (
    OBJECTIVES,
    PARTS,
    BatchArgs,
    JemSettings,
    JemStep,
    ObjectiveForm,
    OwnObjective,
)
from jemtrack.jem.training.options import NETWORK
from jemtrack.parameters import ValueProblem
from jemtrack.train.family import Family
from jemtrack.train.recipe import Recipe, is_within

if TYPE_CHECKING:
    import torch

    from jemtrack.data.images import DataSplits
    from jemtrack.train.family import ModelMaker
    from jemtrack.train.phase import Batches, Models, Objective, Validation
    from jemtrack.train.run import Training


class JemFamily(Family):
    """Joint energy-based models; see `jemtrack.train.family.Family`."""

    name = "jem"
    step = JemStep
    shape = NetworkShape
    settings = JemSettings
    objectives = OBJECTIVES

    def usual_values(self, objective: Objective | None) -> dict[str, Any]:
        """Return the raw `objective` of steps that have none: None is one that is not known."""
        path = f"{type(objective).__module__}.{type(objective).__qualname__}"
        names = {form.path: name for name, form in OBJECTIVES.items()}
        return {"objective": {"type": names.get(path, "") if objective else ""}}

    def recipe_problems(
        self, recipe: Recipe, model: NetworkShape, objective: Objective | None
    ) -> Iterator[ValueProblem]:
        """Yield each step that trains no part which its loss depends on."""
        for number, step in enumerate(cast("tuple[JemStep, ...]", recipe.steps)):
            form = step.objective or _form_of(objective)
            trained = {part for part in PARTS if not any(is_within(part, n) for n in step.frozen)}
            if form and not trained & form.reached(model.uncond):
                text = f"trains {', '.join(sorted(trained)) or 'nothing'} alone, on which the loss"
                yield ValueProblem(("steps", number), f"{text} of {form.type} does not depend")

    def check_data(self, model: NetworkShape, settings: BatchArgs, data: DataSplits) -> None:
        """Check that the memory suffices, and each class has as many images as to be labelled."""
        from jemtrack.jem.training.batches import pick_labelled
        from jemtrack.jem.training.phases import check_sizes, network_shape

        check_sizes(network_shape(model, data), settings, data)
        pick_labelled(data.train.labels_N, max(settings.labels_per_class, 0), data.seed)

    def objective_problems(
        self,
        recipe: Recipe,
        objective: Objective | None,
        settings: BatchArgs,
        data: DataSplits,
        *,
        run_own: bool,
    ) -> Iterator[str]:
        """Yield what the objectives say of the training's classes, batches and chains."""
        from jemtrack.jem.training.phases import check_objective

        for step in cast("tuple[JemStep, ...]", recipe.steps):
            if run_own or not isinstance(step.objective, OwnObjective):
                try:
                    chosen = step.objective.build() if step.objective else objective
                    check_objective(chosen, settings, data)
                except InputError as error:
                    yield str(error)

    def networks(
        self, recipe: Recipe, model: NetworkShape, data: DataSplits, start: Path | None
    ) -> dict[str, ModelMaker]:
        """Return the maker of the one network."""
        from jemtrack.jem.training.phases import initial_network, network_shape

        return {NETWORK: partial(initial_network, network_shape(model, data), start)}

    def parts(
        self,
        recipe: Recipe,
        settings: BatchArgs,
        data: DataSplits,
        device: torch.device,
        objective: Objective | None,
    ) -> Iterator[tuple[Objective, Batches, Validation | None]]:
        """Make each step's objective, batches of an order and noise of its own, and validation."""
        from jemtrack.jem.training.phases import phase_parts

        return phase_parts(recipe, objective, settings, data, device)

    def final_metrics(
        self, models: Models, settings: BatchArgs, data: DataSplits
    ) -> dict[str, float]:
        """Return the log density that chains of `n_steps` reach; nothing for no steps."""
        from jemtrack.jem.training.phases import final_metrics

        return final_metrics(models, settings, data)

    def save(self, path: Path, models: Models, training: Training) -> None:
        """Write the network, its shape, and the noise that it was trained with."""
        from jemtrack.jem.networks.model_file import save_model
        from jemtrack.jem.training.phases import network_of, network_shape

        shape = network_shape(training.model, training.data)
        notes = {**training.notes, "sigma": str(training.settings.sigma)}
        save_model(path, network_of(models), shape, notes)

    def load(self, path: Path) -> Models:
        """Load the network."""
        from jemtrack.jem.networks.model_file import load_model

        return {NETWORK: load_model(path).model}


def _form_of(objective: Objective | None) -> ObjectiveForm | None:
    """Return the form of one of the known objectives; None for another."""
    path = f"{type(objective).__module__}.{type(objective).__qualname__}"
    form = next((each for each in OBJECTIVES.values() if each.path == path), None)
    return form(**dataclasses.asdict(cast(Any, objective))) if form else None


FAMILY = JemFamily()
