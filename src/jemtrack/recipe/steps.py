"""A step filled up with the defaults of its recipe, and what it then trains and emits."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jemtrack.parameters import (
    faults,
)
from jemtrack.recipe.yaml_lines import YamlPath
from jemtrack.train.optimizers import (
    NO_SCHEDULER,
    OPTIMIZERS,
    SCHEDULERS,
    OptimizerOptions,
    SchedulerOptions,
)
from jemtrack.train.recipe import (
    Family,
    Step,
    Transition,
    merged,
    same_type,
    still_frozen,
)


@dataclass(frozen=True)
class LayeredStep:
    """The `values` of a step, and the place in the file of each of them by that in the step."""

    values: dict[str, Any]
    origins: Mapping[YamlPath, YamlPath]

    @property
    def title(self) -> str:
        """Name the step, for sentences about it."""
        return f"the step {self.values['name']}" if "name" in self.values else "the step"

    def place(self, inner: YamlPath) -> YamlPath:
        """Find where a value of the step was written, or should have been."""
        known = inner
        while known not in self.origins:
            known = known[:-1]
        return self.origins[known] + inner[len(known) :]

    def is_own(self, inner: YamlPath) -> bool:
        """Say whether a value stands in the step itself, not in the defaults."""
        step = self.origins[()]
        return self.place(inner)[: len(step)] == step

    def mapping(self, *inner: str) -> dict[str, Any]:
        """Give the mapping at a place of the step; an empty one where there is no mapping."""
        value: Any = self.values
        for part in inner:
            value = value.get(part) if isinstance(value, Mapping) else None
        return dict(value) if isinstance(value, Mapping) else {}


def layered(
    defaults: Mapping[str, Any], own: Mapping[str, Any], at_defaults: YamlPath, at_own: YamlPath
) -> LayeredStep:
    """Fill the step `own`, written at `at_own`, up with the defaults."""
    origins = {(): at_own, **dict(_origins(defaults, own, at_defaults, at_own))}
    return LayeredStep(merged(defaults, own), origins)


def _origins(
    defaults: Mapping[str, Any], own: Mapping[str, Any], at_defaults: YamlPath, at_own: YamlPath
) -> Iterator[tuple[YamlPath, YamlPath]]:
    for name in defaults:
        yield (name,), (*at_defaults, name)
    for name, value in own.items():
        yield (name,), (*at_own, name)
        if isinstance(value, Mapping):
            default = defaults.get(name)
            base = default if isinstance(default, Mapping) and same_type(default, value) else {}
            inner = _origins(base, value, (*at_defaults, name), (*at_own, name))
            yield from (((name, *place), origin) for place, origin in inner)


class ResolvedStep:
    """Reads a step by its family; values that are at fault are passed over.

    `given` has the optimizers that the step or the defaults name, `usable` those of them whose
    model is not wholly frozen, and `usual` names what trains without being given one.
    """

    def __init__(self, step: LayeredStep, family: Family) -> None:
        self.step = step
        self.family = family
        self.unfreeze = self._names("unfreeze")
        freeze = family.expanded(self._names("freeze"), self.unfreeze)
        self.frozen = still_frozen(freeze, self.unfreeze)
        self.modes = self._modes()
        self.given = self._choices("optimizers")
        self.usable = {name: self.given[name] for name in self.given if not self.is_frozen(name)}
        self.usual = self._usual()

    def is_frozen(self, optimizer: str) -> bool:
        """Say whether nothing is left to train for the optimizer of that name."""
        return self.family.wholly_frozen(optimizer, self.frozen)

    @property
    def given_schedulers(self) -> dict[str, Any]:
        """The schedulers that the step or the defaults name; not those of type none."""
        choices = self._choices("schedulers")
        return {
            name: choice
            for name, choice in choices.items()
            if not (isinstance(choice, Mapping) and choice.get("type") == NO_SCHEDULER)
        }

    @property
    def usable_schedulers(self) -> dict[str, Any]:
        """Those of them whose optimizer is usable."""
        given = self.given_schedulers
        return {name: given[name] for name in given if name in self.usable}

    def left_out(self, field: str) -> set[str]:
        """Name those of the defaults' `optimizers` or `schedulers` that the step cannot use."""
        given, usable = (
            (self.given, self.usable)
            if field == "optimizers"
            else (self.given_schedulers, self.usable_schedulers)
        )
        return {
            name
            for name in given
            if name not in usable and not self.step.is_own(("optimization", field, name))
        }

    @property
    def objective(self) -> dict[str, Any]:
        """The objective that the step or the defaults describe, or else the usual one."""
        return self.step.mapping("objective") or dict(self.family.usual_objective)

    @property
    def batch_metrics(self) -> tuple[str, ...] | None:
        """The metrics of a batch; None where they are not known."""
        if self.family.modes:
            return None if self.modes is None else self.family.metrics({}, self.modes)
        kind = self.objective.get("type")
        return self.family.metrics({"type": kind}, None) if isinstance(kind, str) else None

    @property
    def epoch_metrics(self) -> tuple[str, ...] | None:
        """The metrics of an epoch; None where they are not known."""
        names = self.batch_metrics
        if names is None:
            return None
        return (*(f"train_{name}" for name in names), *self.family.epoch_metrics)

    def build(self) -> Step:
        """Make the step, which must be without a fault."""
        values = self.step.values
        usual = dict.fromkeys(self.usual, self.family.usual_optimizer)
        optimizers = {name: _make(OPTIMIZERS, choice) for name, choice in self.usable.items()}
        schedulers = self.usable_schedulers.items()
        return Step(
            name=values["name"],
            n_epochs=values["n_epochs"],
            objective=self._objective(),
            modes=dataclasses.asdict(self.modes) if self.modes else {},
            freeze=self.frozen,
            unfreeze=self.unfreeze,
            optimizers={**optimizers, **usual},
            schedulers={name: _make(SCHEDULERS, choice) for name, choice in schedulers},
            transition=Transition(**self.step.mapping("transition_on")),
            max_steps=values.get("max_steps"),
        )

    def _names(self, field: str) -> tuple[str, ...]:
        return tuple(
            name
            for name in listed(self.step.values.get(field))
            if isinstance(name, str) and name in self.family.models
        )

    def _choices(self, field: str) -> dict[str, Any]:
        choices = self.step.mapping("optimization", field)
        return {name: choices[name] for name in choices if name in self.family.optimizers}

    def _modes(self) -> Any:
        if not self.family.modes:
            return None
        values = self.step.values
        given = {name: values[name] for name in self.family.mode_names if name in values}
        options = self.family.modes.options
        return None if faults(options, given) else options(**given)

    def _usual(self) -> tuple[str, ...]:
        if self.family.modes and self.modes is None:
            return ()
        return tuple(
            name
            for name in self.family.trained(self.modes)
            if not self.is_frozen(name)
            and not any(self.family.overlap(name, other) for other in self.given)
        )

    def _objective(self) -> dict[str, Any]:
        options = self.objective
        form = self.family.objectives.get(options.get("type", ""))
        if form is None:  # none at all, or the user's own: it is checked when it is built
            return options
        kind = options.pop("type")
        return {"type": kind, **dataclasses.asdict(form.options(**options))}


def _make(table: Mapping[str, type[Any]], choice: Mapping[str, Any]) -> Any:
    options = {name: choice[name] for name in choice if name != "type"}
    made: OptimizerOptions | SchedulerOptions = table[choice["type"]](**options)
    return made


def listed(value: Any) -> list[Any]:
    """Give a list's entries; none of what is no list."""
    return value if isinstance(value, list) else []
