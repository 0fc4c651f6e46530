"""A recipe: the steps of a training, and what a family of models allows in them; free of torch.

An ordinary training is a recipe of one step.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from jemtrack.parameters import (
    FROM_LIST,
    AtLeastOne,
    Finite,
    Positive,
    build,
    parameter_names,
    parameters,
)
from jemtrack.train.optimizers import OptimizerOptions, SchedulerOptions

Names = Annotated[tuple[str, ...], FROM_LIST]

# A step's name names files; these are files of the record already.
_RESERVED = {"run", "epochs", "measured"}
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def _file_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError("must be a plain file name of letters, digits, '_', '-' and '.'")
    if name.lower() in _RESERVED:
        raise ValueError("must be another name: the record has a file of this one")
    return name


@parameters
class Transition:
    """When a step ends.

    Attributes:
        mode: after the step's `n_epochs`, or when a metric falls under a threshold.
        metric: which one, of a batch (averaged over the last `window` batches) or of an epoch.
        threshold: what it must fall under; not a number never does.
        max_epochs: after so many it ends anyway, with a warning; none: the step's `n_epochs`.
        window: batches that a batch's metric is averaged over.
    """

    mode: Literal["epoch", "loss_threshold"] = "epoch"
    metric: Annotated[str, Field(min_length=1)] | None = None
    threshold: Finite | None = None
    max_epochs: AtLeastOne | None = None
    window: AtLeastOne = 100


@parameters
class Step:
    """One phase of a training.

    Attributes:
        name: names its files and its lines.
        n_epochs: how long it takes, unless `transition` ends it.
        objective: `type` and the objective's options, where the family has objectives.
        modes: the family's own fields of a step.
        freeze: models, or parts of them such as `network.trunk`, that keep their weights.
        unfreeze: of these, the ones that are trained after all.
        optimizers: one for each model that is trained.
        schedulers: one for each optimizer's model that has one.
        transition: when it ends.
        max_steps: batches of an epoch at most.
    """

    name: Annotated[str, AfterValidator(_file_name)]
    n_epochs: AtLeastOne
    objective: dict[str, Any] = dataclasses.field(default_factory=dict)
    modes: dict[str, Any] = dataclasses.field(default_factory=dict)
    freeze: Names = ()
    unfreeze: Names = ()
    optimizers: dict[str, OptimizerOptions] = dataclasses.field(default_factory=dict)
    schedulers: dict[str, SchedulerOptions] = dataclasses.field(default_factory=dict)
    transition: Transition = dataclasses.field(default_factory=Transition)
    max_steps: AtLeastOne | None = None

    @property
    def frozen(self) -> tuple[str, ...]:
        """Name what stays frozen: a model that is unfrozen is so with all of its parts."""
        return still_frozen(self.freeze, self.unfreeze)

    @property
    def most_epochs(self) -> int:
        """Give the number of epochs after which the step ends whatever happens."""
        by_threshold = self.transition.mode == "loss_threshold"
        return (self.transition.max_epochs if by_threshold else None) or self.n_epochs


@parameters
class Divergence:
    """What happens when a loss is not finite or explodes.

    Attributes:
        action: end the run, or go back to the last checkpoint with lower learning rates.
        max_retries: how many times to go back before the run fails.
        lr_factor: by which the learning rates are multiplied each time.
        max_loss: absolute value above which a loss counts as exploding.
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
        """Sum up the epochs of the steps; a threshold's `max_epochs` does not count."""
        return sum(step.n_epochs for step in self.steps)

    def as_mapping(self) -> dict[str, Any]:
        """Write the recipe in the form of a file, nothing left out: what trains goes by this."""
        return {
            "steps": [_step_mapping(step) for step in self.steps],
            "divergence": dataclasses.asdict(self.divergence),
            "callbacks": [dict(callback) for callback in self.callbacks],
        }


def is_within(name: str, model: str) -> bool:
    """Say whether `name` is the model, or a part of the model, called `model`."""
    return name == model or name.startswith(f"{model}.")


def still_frozen(freeze: Iterable[str], unfreeze: Iterable[str]) -> tuple[str, ...]:
    """Leave out of `freeze` what `unfreeze` names, with its parts."""
    trained = [*unfreeze]
    return tuple(name for name in freeze if not any(is_within(name, model) for model in trained))


def merged(defaults: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """Fill `step` up with `defaults`, mapping by mapping; a list replaces a list.

    A null in the step removes the default. A mapping whose `type` differs replaces the
    default's, for the options of one type are not those of another.
    """
    result: dict[str, Any] = {}
    for name, value in {**defaults, **step}.items():
        if isinstance(value, Mapping):
            default = defaults.get(name)
            base = default if isinstance(default, Mapping) and same_type(default, value) else {}
            result[name] = merged(base if name in step else {}, value)
        elif value is not None:
            result[name] = value
    return result


def same_type(default: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Say whether what `value` leaves out may come from `default`."""
    return "type" not in value or value["type"] == default.get("type", value["type"])


def _step_mapping(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "n_epochs": step.n_epochs,
        **({"objective": dict(step.objective)} if step.objective else {}),
        **step.modes,
        "freeze": list(step.freeze),
        "unfreeze": list(step.unfreeze),
        "optimization": {
            "optimizers": {name: _choice(chosen) for name, chosen in step.optimizers.items()},
            "schedulers": {name: _choice(chosen) for name, chosen in step.schedulers.items()},
        },
        "transition_on": dataclasses.asdict(step.transition),
        "max_steps": step.max_steps,
    }


def _choice(chosen: OptimizerOptions | SchedulerOptions) -> dict[str, Any]:
    fields = dataclasses.asdict(chosen)
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
    return {"type": type(chosen).__name__, **plain}


@dataclass(frozen=True)
class ObjectiveForm:
    """An objective that a recipe can name.

    Attributes:
        path: the dotted path of its class, imported when it is built.
        options: parameters class of its options.
        metrics: what it gives for a batch.
    """

    path: str
    options: type
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class ModesForm:
    """A family's own fields of a step, for one that has modes in place of objectives.

    Attributes:
        options: parameters class of the fields.
        metrics: names what a step with these fields gives for a batch.
        trained: names the optimizers of what such a step trains.
        fault: says what is wrong with the combination; nothing where it is sound.
        shown: says in words what such a step trains.
    """

    options: type
    metrics: Callable[[Any], tuple[str, ...]]
    trained: Callable[[Any], tuple[str, ...]]
    fault: Callable[[Any], str]
    shown: Callable[[Any], str]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: how a file calls it.
        models: what can be frozen, parts of models included: `network`, `network.trunk`.
        optimizers: what an optimizer can be for, and the models that it then trains.
        usual_optimizer: serves what a step trains and gives no optimizer for.
        objectives: by the name under `type`; a dotted path names one of the user's own.
        usual_objective: that of a step that names none; each must name one where it is empty.
        usually_trained: names the optimizers of what a step with an objective trains.
        modes: or the step's own fields.
        epoch_metrics: what every epoch gives beside the batches' means, which are `train_...`.
        shape: parameters class of the network, under `model` in a file.
        note: what a reader of a file's summary must know.
    """

    name: str
    models: tuple[str, ...]
    optimizers: Mapping[str, tuple[str, ...]]
    usual_optimizer: OptimizerOptions
    shape: type
    objectives: Mapping[str, ObjectiveForm] = field(default_factory=dict)
    usual_objective: Mapping[str, Any] = field(default_factory=dict)
    usually_trained: tuple[str, ...] = ()
    modes: ModesForm | None = None
    epoch_metrics: tuple[str, ...] = ()
    note: str = ""

    @property
    def mode_names(self) -> tuple[str, ...]:
        """Name the family's own fields of a step."""
        return parameter_names(self.modes.options) if self.modes else ()

    def metrics(self, objective: Mapping[str, Any], modes: Any) -> tuple[str, ...] | None:
        """Name the metrics of a step's batches; None where only running it would tell."""
        if self.modes:
            return self.modes.metrics(modes)
        form = self.objectives.get(objective["type"])
        return form.metrics if form else None

    def trained(self, modes: Any) -> tuple[str, ...]:
        """Name the optimizers of what a step trains."""
        return self.modes.trained(modes) if self.modes else self.usually_trained

    def wholly_frozen(self, optimizer: str, frozen: tuple[str, ...]) -> bool:
        """Say whether nothing is left to train for the optimizer of that name."""
        return all(
            any(is_within(part, name) for name in frozen)
            for model in self.optimizers[optimizer]
            for part in self.parts(model)
        )

    def parts(self, model: str) -> tuple[str, ...]:
        """Name the smallest parts of a model that can be frozen: itself where it has none."""
        inner = tuple(name for name in self.models if name != model and is_within(name, model))
        return inner or (model,)

    def expanded(self, freeze: Iterable[str], unfreeze: Iterable[str]) -> tuple[str, ...]:
        """Write a frozen model, of which a part is not, as its parts."""
        trained = [*unfreeze]
        names: list[str] = []
        for name in freeze:
            divided = any(part != name and is_within(part, name) for part in trained)
            names += self.parts(name) if divided else [name]
        return tuple(dict.fromkeys(names))

    def overlap(self, first: str, second: str) -> bool:
        """Say whether two optimizers would train the same weights."""
        return any(
            is_within(one, other) or is_within(other, one)
            for one in self.optimizers[first]
            for other in self.optimizers[second]
        )


def objective_path(family: Family, kind: str) -> str:
    """Give the dotted path of the class of an objective, from the name under its `type`."""
    return family.objectives[kind].path if kind in family.objectives else kind


def objective_entry(family: Family, objective: Any) -> dict[str, Any]:
    """Write an objective, a dataclass, in the form of a recipe."""
    path = f"{type(objective).__module__}.{type(objective).__qualname__}"
    names = {form.path: name for name, form in family.objectives.items()}
    return {"type": names.get(path, path), **dataclasses.asdict(objective)}


def build_objective(family: Family, objective: Mapping[str, Any], where: str) -> Any:
    """Import and make the objective that a step of a recipe describes.

    Raises:
        InputError: naming the option of the user's own objective that does not fit.
    """
    options = dict(objective)
    module, _, name = objective_path(family, options.pop("type")).rpartition(".")
    return build(getattr(importlib.import_module(module), name), options, where)
