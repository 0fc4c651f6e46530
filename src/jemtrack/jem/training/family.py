"""The family of joint energy-based models: one network, trained by one objective a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import is_pydantic_dataclass as has_checks

from jemtrack.errors import InputError
from jemtrack.jem.networks.shape import NetworkShape
from jemtrack.jem.training.options import NETWORK, MaxEntropyOptions, SampledJEMOptions
from jemtrack.parameters import (
    AtLeastOne,
    Count,
    NotNegative,
    ValueProblem,
    build,
    by_type,
    parameters,
)
from jemtrack.shared.class_path import OBJECTIVE, ClassPath, Role
from jemtrack.shared.components import imported
from jemtrack.train.optimizers import Adam, OptimizerOptions
from jemtrack.train.recipe import Recipe, Step, TrainingSettings, format_choice, is_within

if TYPE_CHECKING:
    import torch

    from jemtrack.data.images import DataSplits
    from jemtrack.train.phase import Batches, Models, Objective, Validation
    from jemtrack.train.run import ModelMaker, Training

PARTS = TRUNK, CLASS_HEAD, ENERGY_HEAD = tuple(
    f"{NETWORK}.{part}" for part in ("trunk", "class_head", "energy_head")
)
_OBJECTIVES = "jemtrack.jem.objectives"


@parameters
class ObjectiveForm:
    """An objective as a recipe names it: its options, without PyTorch; it makes itself.

    `path` is that of its class, `metrics` are those of a batch.
    """

    type: str

    path: ClassVar[str] = ""
    metrics: ClassVar[tuple[str, ...] | None] = None

    def reached(self, uncond: bool) -> frozenset[str]:
        """Name the parts of a network that the loss may depend on; `uncond` is the network's."""
        return frozenset(PARTS)

    def build(self) -> Objective:
        """Import and make the objective."""
        options = dataclasses.asdict(self)
        del options["type"]
        made: Objective = imported(self.path)(**options)
        return made


@parameters
class CrossEntropyForm(ObjectiveForm):
    """Cross entropy has no options."""

    type: Literal["cross_entropy"] = "cross_entropy"
    path: ClassVar[str] = f"{_OBJECTIVES}.cross_entropy.CrossEntropy"
    metrics: ClassVar[tuple[str, ...]] = ("loss", "cross_entropy")

    def reached(self, uncond: bool) -> frozenset[str]:
        """Name all but the energy head."""
        return frozenset({TRUNK, CLASS_HEAD})


@parameters
class MaxEntropyForm(MaxEntropyOptions, ObjectiveForm):
    """What both have in common."""

    def reached(self, uncond: bool) -> frozenset[str]:
        """Name the energy head only if the density, and so the penalty, is its output."""
        return frozenset(PARTS if uncond and self.entropy_weight else (TRUNK, CLASS_HEAD))


@parameters
class MaxEntropyL1Form(MaxEntropyForm):
    """Maximum entropy by absolute deviations."""

    type: Literal["max_entropy_l1"] = "max_entropy_l1"
    path: ClassVar[str] = f"{_OBJECTIVES}.max_entropy_l1.MaxEntropyL1Objective"
    metrics: ClassVar[tuple[str, ...]] = ("loss", "cross_entropy", "entropy_penalty")


@parameters
class MaxEntropyL2Form(MaxEntropyForm):
    """Maximum entropy by squared deviations."""

    type: Literal["max_entropy_l2"] = "max_entropy_l2"
    path: ClassVar[str] = f"{_OBJECTIVES}.max_entropy_l2.MaxEntropyL2Objective"
    metrics: ClassVar[tuple[str, ...]] = MaxEntropyL1Form.metrics


@parameters
class SampledJEMForm(SampledJEMOptions, ObjectiveForm):
    """JEM's own loss, by Langevin chains."""

    type: Literal["sampled_jem"] = "sampled_jem"
    path: ClassVar[str] = f"{_OBJECTIVES}.sampled_jem.SampledJEMObjective"
    metrics: ClassVar[tuple[str, ...]] = (
        *("loss", "cross_entropy", "data_log_density", "sample_log_density"),
    )

    def reached(self, uncond: bool) -> frozenset[str]:
        """Name the heads of the terms that count: log p(x) is of the energy head if `uncond`."""
        by_class = self.p_y_given_x_weight or self.p_x_y_weight
        by_density = self.p_x_weight or self.energy_weight
        return frozenset(
            {TRUNK}
            | ({CLASS_HEAD} if by_class or (by_density and not uncond) else set())
            | ({ENERGY_HEAD} if by_density and uncond else set())
        )


@parameters
class OwnObjective(ClassPath, ObjectiveForm):
    """An objective of the user's own, which may emit any metric."""

    role: ClassVar[Role] = OBJECTIVE

    def build(self) -> Objective:
        """Import and make the objective.

        Raises:
            InputError: naming each option that does not fit.
        """
        cls = self.imported()
        made = build(cls, self.options, self.type) if has_checks(cls) else self.instantiate()
        return cast("Objective", made)


OBJECTIVES: dict[str, type[ObjectiveForm]] = {
    "cross_entropy": CrossEntropyForm,
    "max_entropy_l1": MaxEntropyL1Form,
    "max_entropy_l2": MaxEntropyL2Form,
    "sampled_jem": SampledJEMForm,
}
choose_objective = by_type("an objective", OBJECTIVES, OwnObjective)


@parameters
class JemStep(Step):
    """A phase of a JEM training; without an `objective` it has the training's."""

    models: ClassVar[tuple[str, ...]] = (NETWORK, *PARTS)
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {n: (n,) for n in (NETWORK, *PARTS)}
    usual_optimizer: ClassVar[OptimizerOptions] = Adam(lr=1e-3)
    validation_metrics: ClassVar[tuple[str, ...]] = (
        *("valid_accuracy", "valid_nll", "valid_log_density"),
    )

    objective: Annotated[ObjectiveForm | None, BeforeValidator(choose_objective)] = None

    @classmethod
    def trained(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the optimizers of what a step of these values trains."""
        return (NETWORK,)

    @classmethod
    def metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the metrics of its batches; None if only running it would tell."""
        chosen = values.get("objective")
        kind = chosen.get("type") if isinstance(chosen, Mapping) else None
        form = OBJECTIVES.get(kind) if isinstance(kind, str) else None
        return form.metrics if form else None

    @classmethod
    def own_problems(cls, values: Mapping[str, Any]) -> Iterator[ValueProblem]:
        """Yield that the objective is missing, if it is."""
        if "objective" not in values:
            yield ValueProblem(("objective",), f"is missing; there are {', '.join(OBJECTIVES)}")

    @property
    def class_paths(self) -> list[str]:
        """The dotted paths of the classes that it names, of the user's own or the family's."""
        chosen = self.objective
        path = (chosen.type if isinstance(chosen, OwnObjective) else chosen.path) if chosen else ""
        return [*super().class_paths, *([path] if path else [])]

    @property
    def summary(self) -> str:
        """What it trains, in words."""
        return format_choice(self.objective) if self.objective else ""


@parameters
class BatchArgs:
    """What a joint energy-based model sees in a training.

    Attributes:
        batch_size: images in an optimization step.
        sigma: standard deviation of the noise on images scaled to [-1, 1].
        labels_per_class: labelled images of each class; 0 or -1: all are labelled.
        n_steps: Langevin steps of a chain. SampledJEM trains on the ends of its chains; in every
            trainer, the log density that chains of this length reach is set beside that of
            validation images when training ends; 0: no chains.
        eval_every: epochs between looks at the validation images.
    """

    batch_size: AtLeastOne = 64
    sigma: NotNegative = 0.03
    labels_per_class: Annotated[int, Field(ge=-1)] = -1
    n_steps: Count = 20
    eval_every: AtLeastOne = 1


@parameters
class JemSettings(BatchArgs, TrainingSettings):
    """The section `training` of a recipe file."""


class JemFamily:
    """Joint energy models; see `jemtrack.train.run.Family`."""

    name: str = "jem"
    note: str = ""
    step: type[Step] = JemStep
    shape: type = NetworkShape
    settings: type = JemSettings
    objectives: Mapping[str, type] = OBJECTIVES

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
