"""What is wrong with a list of callbacks or trackers, each named and with its options."""

from collections.abc import Iterator, Mapping
from typing import Any

from jemtrack.engine.components import Component, option_faults
from jemtrack.engine.recipe_form.document import Fault, Place
from jemtrack.engine.recipe_form.own_class import class_fault
from jemtrack.engine.recipe_form.values import listed, not_a_mapping, typed_name_fault
from jemtrack.parameters import shown, suggestion

Components = Mapping[str, type[Component]]


def component_faults(value: Any, known: Components, kind: str, at: Place) -> Iterator[Fault]:
    """Say what is wrong with a list of `{type: ..., ...options}`."""
    if not isinstance(value, list):
        yield Fault(at, f"must be a list, got {shown(value)}")
    for number, entry in enumerate(listed(value)):
        place = (*at, number)
        if not isinstance(entry, Mapping):
            yield from not_a_mapping(entry, "`type` and its options", place)
        elif _is_own(entry):
            if own_fault := class_fault(entry["type"]):
                yield Fault((*place, "type"), own_fault)
        elif fault := typed_name_fault(entry, known, kind, place):
            yield fault
        else:
            options = {name: entry[name] for name in entry if name != "type"}
            for name, message in option_faults(known[entry["type"]], options):
                yield Fault((*place, name), message)


def name_faults(
    callbacks: Any, option: str, known: set[str] | None, what: str, at: Place
) -> Iterator[Fault]:
    """Say which `option` of a callback, such as its metric, names none of those that are known."""
    for number, entry in enumerate(listed(callbacks)):
        name = entry.get(option) if isinstance(entry, Mapping) and not _is_own(entry) else None
        if known and isinstance(name, str) and name not in known:
            text = f"must be {what}, got {shown(name)}; {suggestion(name, known)}"
            yield Fault((*at, number, option), text)


def _is_own(entry: Mapping[str, Any]) -> bool:
    """Say whether the type is a dotted path: a class of the user's own."""
    return isinstance(entry.get("type"), str) and "." in entry["type"]
