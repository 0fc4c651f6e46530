"""What a step comes to: which models train, by which optimizers, and what it emits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jemtrack.engine.choices import (
    NO_SCHEDULER,
    OPTIMIZERS,
    SCHEDULERS,
    OptimizerChoice,
    SchedulerChoice,
)
from jemtrack.engine.family import Family
from jemtrack.engine.recipe import Step, Transition, still_frozen
from jemtrack.engine.recipe_form.layered import LayeredStep
from jemtrack.engine.recipe_form.values import listed
from jemtrack.parameters import faults


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
    made: OptimizerChoice | SchedulerChoice = table[choice["type"]](**options)
    return made
