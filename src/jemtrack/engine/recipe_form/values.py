"""What is wrong with a step's values, each taken by itself."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jemtrack.engine.choices import NO_SCHEDULER, OPTIMIZERS, SCHEDULERS
from jemtrack.engine.family import Family
from jemtrack.engine.recipe import Step, Transition
from jemtrack.engine.recipe_form.document import Fault, Place
from jemtrack.engine.recipe_form.own_class import class_fault
from jemtrack.parameters import faults, parameters, shown, suggestion

_PLAIN = ("name", "n_epochs", "freeze", "unfreeze", "max_steps")
_ABSENT = "is missing"


@parameters
class _NoScheduler:
    """The type `none`, which has no options."""


def step_names(family: Family) -> tuple[str, ...]:
    """Name the fields that a step of the family can have."""
    objective = ("objective",) if family.objectives else ()
    return (*_PLAIN, "optimization", "transition_on", *objective, *family.mode_names)


def step_faults(step: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    """Say what is wrong with the values of a step, one by one; places are those in the step."""
    yield from unknown_names(step, step_names(family), ())
    yield from value_faults(Step, {name: step[name] for name in _PLAIN if name in step}, ())
    for field in ("freeze", "unfreeze"):
        for number, name in enumerate(listed(step.get(field))):
            if isinstance(name, str) and name not in family.models:
                yield Fault((field, number), _unknown("a model", name, family.models))
    if family.objectives:
        yield from _objective_faults(step, family)
    if family.modes:
        modes = {name: step[name] for name in family.mode_names if name in step}
        yield from value_faults(family.modes.options, modes, ())
    yield from _optimization_faults(step, family)
    if "transition_on" in step:
        yield from _transition_faults(step["transition_on"])


def value_faults(cls: type, values: Mapping[str, Any], at: Place) -> Iterator[Fault]:
    """Say which values the parameters class refuses."""
    for place, message in faults(cls, dict(values)):
        yield Fault((*at, *place), message, absent=message == _ABSENT)


def unknown_names(values: Mapping[str, Any], known: Iterable[str], at: Place) -> Iterator[Fault]:
    """Say which names do not belong into a mapping."""
    known = [*known]
    for name in values:
        if name not in known:
            yield Fault((*at, name), f"is not known here; {suggestion(name, known)}")


def not_a_mapping(value: Any, holds: str, at: Place) -> Iterator[Fault]:
    """Say so where a value is no mapping; `holds` is what it must hold."""
    if not isinstance(value, Mapping):
        yield Fault(at, f"must hold {holds}, got {shown(value)}")


def listed(value: Any) -> list[Any]:
    """Give a list's entries; none of what is no list."""
    return value if isinstance(value, list) else []


def typed_faults(value: Any, table: Mapping[str, type], kind: str, at: Place) -> Iterator[Fault]:
    """Say what is wrong with `{type: ..., ...options}` whose type is one of the table."""
    if not isinstance(value, Mapping):
        yield from not_a_mapping(value, "`type` and its options", at)
    elif fault := typed_name_fault(value, table, kind, at):
        yield fault
    else:
        options = {name: value[name] for name in value if name != "type"}
        yield from value_faults(table[value["type"]], options, at)


def typed_name_fault(
    value: Mapping[str, Any], known: Iterable[str], kind: str, at: Place
) -> Fault | None:
    """Say what is wrong with the `type` of a mapping."""
    if "type" not in value:
        return Fault((*at, "type"), _ABSENT, absent=True)
    if not isinstance(value["type"], str) or value["type"] not in [*known]:
        return Fault((*at, "type"), _unknown(kind, value["type"], known))
    return None


def _objective_faults(step: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    at = ("objective",)
    if "objective" not in step:
        if family.usual_objective:
            return
        yield Fault(at, f"is missing; there are {', '.join(family.objectives)}", absent=True)
        return
    objective = step["objective"]
    kind = objective.get("type") if isinstance(objective, Mapping) else None
    if isinstance(kind, str) and "." in kind:
        if fault := class_fault(kind):
            yield Fault((*at, "type"), fault)
        return
    options = {name: form.options for name, form in family.objectives.items()}
    yield from typed_faults(objective, options, "an objective", at)


def _optimization_faults(step: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    if "optimization" not in step:
        return
    at, optimization = ("optimization",), step["optimization"]
    tables: dict[str, tuple[str, Mapping[str, type]]] = {
        "optimizers": ("an optimizer", OPTIMIZERS),
        "schedulers": ("a scheduler", {**SCHEDULERS, NO_SCHEDULER: _NoScheduler}),
    }
    if not isinstance(optimization, Mapping):
        yield from not_a_mapping(optimization, "optimizers and schedulers", at)
        return
    yield from unknown_names(optimization, tables, at)
    for field, (kind, table) in tables.items():
        chosen = optimization.get(field, {})
        yield from not_a_mapping(chosen, "names of models", (*at, field))
        for name, choice in chosen.items() if isinstance(chosen, Mapping) else []:
            place = (*at, field, name)
            if name not in family.optimizers:
                yield Fault(
                    place, f"is no model with {kind}; {suggestion(name, family.optimizers)}"
                )
            yield from typed_faults(choice, table, kind, place)


def _transition_faults(transition: Any) -> Iterator[Fault]:
    at = ("transition_on",)
    if isinstance(transition, Mapping):
        yield from value_faults(Transition, transition, at)
    else:
        yield from not_a_mapping(transition, "mode, metric, threshold, max_epochs, window", at)


def _unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    known = [*known]
    hint = suggestion(name, known) if isinstance(name, str) else f"there are {', '.join(known)}"
    return f"must be {kind}, got {shown(name)}; {hint.replace('it has', 'there are')}"
