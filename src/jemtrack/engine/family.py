"""What a family of models says about its recipes; free of torch."""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jemtrack.engine.choices import OptimizerChoice
from jemtrack.engine.recipe import is_within
from jemtrack.parameters import build, parameter_names


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
    usual_optimizer: OptimizerChoice
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
