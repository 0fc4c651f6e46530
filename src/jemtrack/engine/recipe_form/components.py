"""What is wrong with a list of callbacks or trackers, each named and with its options."""

from collections.abc import Iterator, Mapping
from typing import Any

from jemtrack.engine.components import Component, option_faults
from jemtrack.engine.recipe_form.document import Fault, Place
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
        elif fault := typed_name_fault(entry, known, kind, place):
            yield fault
        else:
            options = {name: entry[name] for name in entry if name != "type"}
            for name, message in option_faults(known[entry["type"]], options):
                yield Fault((*place, name), message)


def metric_faults(callbacks: Any, metrics: set[str] | None, at: Place) -> Iterator[Fault]:
    """Say which option `metric` of a callback names none of the epochs' metrics."""
    for number, entry in enumerate(listed(callbacks)):
        metric = entry.get("metric") if isinstance(entry, Mapping) else None
        if metrics and isinstance(metric, str) and metric not in metrics:
            hint = suggestion(metric, metrics)
            text = f"must be a metric of an epoch, got {shown(metric)}; {hint}"
            yield Fault((*at, number, "metric"), text)
