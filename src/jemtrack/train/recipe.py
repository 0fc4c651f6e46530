"""A recipe: the steps of a training, typed; free of PyTorch.

An ordinary training is a recipe of one step. A family of models has its own subclass of `Step`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from jemtrack.parameters import (
    FROM_LIST,
    AtLeastOne,
    Count,
    Finite,
    Name,
    Positive,
    ValueProblem,
    nested,
    parameters,
    refuse,
)
from jemtrack.shared.class_path import ClassPath
from jemtrack.shared.hardware import Hardware
from jemtrack.train.optimizers import (
    OptimizerOptions,
    SchedulerOptions,
    choose_optimizer,
    choose_scheduler,
)

Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Names = Annotated[tuple[str, ...], FROM_LIST]
Optimizers = dict[str, Annotated[OptimizerOptions, BeforeValidator(choose_optimizer)]]
Schedulers = dict[str, Annotated[SchedulerOptions, BeforeValidator(choose_scheduler)]]

# A step's name names files; these are files of the record already.
_RESERVED = {"run", "epochs", "measured"}

# Where a file has what a `Step` has under another name.
FORM = {
    "optimizers": ("optimization", "optimizers"),
    "schedulers": ("optimization", "schedulers"),
    "transition": ("transition_on",),
}


def _file_name(name: str) -> str:
    if name.lower() in _RESERVED:
        raise ValueError("must be another name: the record has a file of this one")
    return name


# What a mode needs is missing where it has its default.
_EVEN_DEFAULT = Field(validate_default=True)
_NEEDS = {"loss_threshold": ("metric", "threshold"), "wall_clock": ("hours",)}


@parameters
class Transition:
    """When a step ends: after its epochs, below a threshold, or by the clock.

    The last two are asked after every epoch; `max_epochs` (none: the step's `n_epochs`) ends it in
    any case. `metric` is one of a batch, averaged over the last `window` batches, or of an epoch;
    NaN is never below `threshold`. Time between a kill and a resumption is not among the `hours`.
    """

    mode: Literal["epoch", "loss_threshold", "wall_clock"] = "epoch"
    metric: Annotated[Text | None, _EVEN_DEFAULT] = None
    threshold: Annotated[Finite | None, _EVEN_DEFAULT] = None
    window: AtLeastOne = 100
    hours: Annotated[Positive | None, _EVEN_DEFAULT] = None
    max_epochs: AtLeastOne | None = None

    @field_validator("metric", "threshold", "hours")
    @classmethod
    def _needed(cls, value: Any, info: ValidationInfo) -> Any:
        mode = str(info.data.get("mode"))
        if value is None and info.field_name in _NEEDS.get(mode, ()):
            refuse([ValueProblem((), f"is missing: the mode {mode} needs it")])
        return value


@parameters
class Step:
    """One phase of a training.

    A family subclasses it: with fields of its own, and with what its steps can train and emit.
    The class methods read a step's raw values, which may have problems: they skip those.

    Attributes:
        n_epochs: how long it takes, unless `transition` ends it.
        freeze: models, or parts of them such as `network.trunk`, that keep their weights.
        unfreeze: of these, the ones that are trained after all.
        optimizers: one for each model that is trained.
        schedulers: one for each optimizer that has one.
        max_steps: batches of an epoch at most.
    """

    # What can be frozen, parts included; what an optimizer can be for, and the models that it
    # then trains; the optimizer of what trains without one.
    models: ClassVar[tuple[str, ...]] = ()
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    usual_optimizer: ClassVar[OptimizerOptions]
    # What published files call models, beside the names in `models` and `optimized`.
    aliases: ClassVar[Mapping[str, str]] = {}

    name: Annotated[Name, AfterValidator(_file_name)]
    n_epochs: AtLeastOne
    freeze: Names = ()
    unfreeze: Names = ()
    optimizers: Optimizers = dataclasses.field(default_factory=dict)
    schedulers: Schedulers = dataclasses.field(default_factory=dict)
    transition: Annotated[Transition, nested(Transition)] = dataclasses.field(
        default_factory=Transition
    )
    max_steps: AtLeastOne | None = None

    @classmethod
    def trained(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the optimizers of what a step of these values trains; None if that is unclear."""
        return ()

    @classmethod
    def metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the metrics of its batches; None if only running it would tell."""
        return None

    @classmethod
    def validation_metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name what validation adds to its epochs."""
        return ()

    @classmethod
    def own_problems(cls, values: Mapping[str, Any]) -> Iterator[ValueProblem]:
        """Yield what is wrong between the family's own fields."""
        yield from ()

    @property
    def summary(self) -> str:
        """What it trains, in words."""
        return ""

    @property
    def class_paths(self) -> list[str]:
        """The dotted paths of the classes that it names, of the user's own or the family's."""
        chosen = (*self.optimizers.values(), *self.schedulers.values())
        return [each.type for each in chosen if isinstance(each, ClassPath)]

    @property
    def frozen(self) -> tuple[str, ...]:
        """What stays frozen: to unfreeze a model unfreezes all of its parts."""
        return still_frozen(self.models, self.freeze, self.unfreeze)

    @property
    def most_epochs(self) -> int:
        """The number of epochs after which the step ends in any case."""
        by_epoch = self.transition.mode == "epoch"
        return (None if by_epoch else self.transition.max_epochs) or self.n_epochs

    def as_mapping(self) -> dict[str, Any]:
        """Return the step in the form of a file, nothing left out."""
        fields = dataclasses.asdict(self, dict_factory=_flat)
        for field, (section, *inner) in FORM.items():
            value = fields.pop(field)
            fields[section] = {**fields.get(section, {}), inner[0]: value} if inner else value
        return fields


def _flat(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Write the options of a `ClassPath` beside its type, as a file has them."""
    fields = dict(pairs)
    options: dict[str, Any] = fields.pop("options", {})
    return fields | options


def format_choice(chosen: Any) -> str:
    """Write what was chosen as `Adam(lr=0.1)`: its type, and the options that are no default."""
    fields = [(f, getattr(chosen, f.name)) for f in dataclasses.fields(chosen) if f.name != "type"]
    changed = _flat([(field.name, value) for field, value in fields if value != field.default])
    options = ", ".join(f"{name}={value}" for name, value in changed.items())
    return f"{chosen.type}({options})" if options else str(chosen.type)


@parameters
class TrainingSettings(Hardware):
    """What the section `training` of a recipe file can hold for every family.

    Attributes:
        seed: draws initialisation, batches and noise; none: the data's.
        workers: read for files of other programs; images are in memory, nobody loads them.
    """

    seed: Seed | None = None
    workers: Count | None = None


@parameters
class Divergence:
    """What happens when a loss is not finite, or its absolute value is above `max_loss`.

    The run ends, or it returns to the last checkpoint, up to `max_retries` times, and multiplies
    the learning rates by `lr_factor` each time.
    """

    action: Literal["fail", "retry"] = "fail"
    max_retries: AtLeastOne = 3
    lr_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_loss: Positive = 1e6


def _names_differ(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    # Two names that differ in case alone are one file on some disks.
    if len({step.name.lower() for step in steps}) < len(steps):
        raise ValueError("must have a name of its own for each step")
    return steps


@parameters
class Recipe:
    """The steps in their order; `callbacks` are `{type: early_stopping, ...options}` each."""

    steps: Annotated[
        tuple[Step, ...], FROM_LIST, Field(min_length=1), AfterValidator(_names_differ)
    ]
    divergence: Divergence = dataclasses.field(default_factory=Divergence)
    callbacks: Annotated[tuple[dict[str, Any], ...], FROM_LIST] = ()

    @property
    def n_epochs(self) -> int:
        """The sum of the steps' `n_epochs`; `max_epochs` does not count."""
        return sum(step.n_epochs for step in self.steps)

    def as_mapping(self) -> dict[str, Any]:
        """Return the recipe in the form of a file, nothing left out: a training's key has it."""
        return {
            "steps": [step.as_mapping() for step in self.steps],
            "divergence": dataclasses.asdict(self.divergence),
            "callbacks": [*self.callbacks],
        }


def is_within(name: str, model: str) -> bool:
    """Return whether `name` is the model called `model`, or a part of it."""
    return f"{name}.".startswith(f"{model}.")


def smallest_parts(models: Iterable[str], model: str) -> tuple[str, ...]:
    """Return the parts of a model that can be frozen: the model itself if it has none."""
    return tuple(n for n in models if n != model and is_within(n, model)) or (model,)


def still_frozen(
    models: Iterable[str], freeze: Iterable[str], unfreeze: Iterable[str]
) -> tuple[str, ...]:
    """Return `freeze` without what `unfreeze` names; a model of which a part is, as its parts."""
    models, unfreeze = [*models], [*unfreeze]
    names: dict[str, None] = {}
    for name in freeze:
        divided = any(part != name and is_within(part, name) for part in unfreeze)
        names |= dict.fromkeys(smallest_parts(models, name) if divided else [name])
    return tuple(name for name in names if not any(is_within(name, each) for each in unfreeze))
