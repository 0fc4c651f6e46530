"""What is wrong with a recipe as a whole, and the recipe that a sound one describes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jemtrack.engine.family import Family
from jemtrack.engine.recipe import Divergence, Recipe
from jemtrack.engine.recipe_form.document import Fault, Place
from jemtrack.engine.recipe_form.layered import LayeredStep, layered
from jemtrack.engine.recipe_form.relations import relation_faults
from jemtrack.engine.recipe_form.resolved import ResolvedStep
from jemtrack.engine.recipe_form.values import (
    listed,
    not_a_mapping,
    step_faults,
    unknown_names,
)
from jemtrack.parameters import shown


class Pipeline:
    """The defaults and steps of a recipe, at their places; what is of no use is passed over."""

    def __init__(self, value: Any, family: Family, at: Place) -> None:
        self.value = value
        self.at = at
        self.family = family
        mapping = value if isinstance(value, Mapping) else {}
        defaults = mapping.get("defaults")
        self.defaults = defaults if isinstance(defaults, Mapping) else {}
        self.at_defaults = (*at, "defaults")
        # A list where `steps:` is missing is read as the steps that it is meant to be.
        self.at_steps = at if isinstance(value, list) else (*at, "steps")
        self.listed = listed(value) or listed(mapping.get("steps"))
        self.steps = {
            number: ResolvedStep(self._layered(own, number), family)
            for number, own in enumerate(self.listed)
            if isinstance(own, Mapping)
        }

    def faults(self) -> Iterator[Fault]:
        """Say what is wrong; what the defaults bring into each step is said once."""
        told: set[Place] = set()
        for fault in self._all_faults():
            in_defaults = fault.place[: len(self.at_defaults)] == self.at_defaults
            if not (in_defaults and fault.place in told):
                yield fault
            told.add(fault.place)

    def build(self, divergence: Mapping[str, Any], callbacks: Iterable[dict[str, Any]]) -> Recipe:
        """Make the recipe, which must be without a fault."""
        return Recipe(
            steps=tuple(step.build() for step in self.steps.values()),
            divergence=Divergence(**divergence),
            callbacks=tuple(callbacks),
        )

    def epoch_metrics(self) -> set[str] | None:
        """Name the metrics that some step's epochs have; None where they are not known."""
        found: set[str] = set()
        for step in self.steps.values():
            metrics = step.epoch_metrics
            if metrics is None:
                return None
            found |= {*metrics}
        return found or None

    def step_names(self) -> set[str]:
        """Name the steps that have names."""
        names = (step.step.values.get("name") for step in self.steps.values())
        return {name for name in names if isinstance(name, str)}

    def _layered(self, own: Mapping[str, Any], number: int) -> LayeredStep:
        return layered(self.defaults, own, self.at_defaults, (*self.at_steps, number))

    def _all_faults(self) -> Iterator[Fault]:
        yield from self._form_faults()
        yield from self._default_faults()
        for number, own in enumerate(self.listed):
            yield from not_a_mapping(own, "the fields of a step", (*self.at_steps, number))
        for resolved in self.steps.values():
            step = resolved.step
            for fault in step_faults(step.values, self.family):
                yield fault._replace(place=step.place(fault.place))
            for fault in relation_faults(resolved):
                yield fault._replace(place=step.place(fault.place))
        yield from self._name_faults()
        yield from self._unused_faults("optimizers", "its model is frozen in each")
        yield from self._unused_faults("schedulers", "none has an optimizer for it")

    def _form_faults(self) -> Iterator[Fault]:
        value = self.value
        if isinstance(value, list):
            text = "holds a list where `steps:` is missing: put `steps:` above the list"
            yield Fault(self.at, f"{text}, and indent it")
            return
        if not isinstance(value, Mapping):
            yield from not_a_mapping(value, "`steps:`, a list of steps", self.at)
            return
        yield from unknown_names(value, ("defaults", "steps"), self.at)
        if "steps" not in value:
            yield Fault(self.at_steps, "is missing: it must hold a list of steps")
        elif not isinstance(value["steps"], list):
            yield Fault(self.at_steps, f"must be a list of steps, got {shown(value['steps'])}")
        elif not value["steps"]:
            yield Fault(self.at_steps, "must hold at least one step")
        if value.get("defaults") is not None:
            yield from not_a_mapping(value["defaults"], "fields of steps", self.at_defaults)

    def _default_faults(self) -> Iterator[Fault]:
        if "name" in self.defaults:
            yield Fault((*self.at_defaults, "name"), "belongs into each step")
        # What is absent may stand in the steps; they are looked at filled up.
        for fault in step_faults(self.defaults, self.family):
            if not fault.absent and fault.place != ("name",):
                yield fault._replace(place=(*self.at_defaults, *fault.place))

    def _name_faults(self) -> Iterator[Fault]:
        first: dict[str, int] = {}
        for number, resolved in self.steps.items():
            name = resolved.step.values.get("name")
            if not isinstance(name, str) or not resolved.step.is_own(("name",)):
                continue
            holder = first.setdefault(name.lower(), number)
            if holder != number:
                text = f"must be a name of its own, but step {holder + 1} has {shown(name)}"
                yield Fault((*self.at_steps, number, "name"), text)

    def _unused_faults(self, field: str, reason: str) -> Iterator[Fault]:
        left_out = [step.left_out(field) for step in self.steps.values()]
        for name in sorted(set.intersection(*left_out)) if left_out else []:
            place = (*self.at_defaults, "optimization", field, name)
            yield Fault(place, f"serves no step: {reason}")
