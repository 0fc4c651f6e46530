"""What recipes and parameters say of a JEM training, in forms that are checked without PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import is_pydantic_dataclass as has_checks

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
from jemtrack.train.recipe import Step, TrainingSettings, format_choice

if TYPE_CHECKING:
    from jemtrack.train.phase import Objective

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
    def validation_metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name what validation adds to its epochs."""
        return ("valid_accuracy", "valid_nll", "valid_log_density")

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
