"""A step filled up with the defaults, each of its values knowing where it was written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jemtrack.engine.recipe import merged, same_type
from jemtrack.engine.recipe_form.document import Place


@dataclass(frozen=True)
class LayeredStep:
    """The `values` of a step, and the place in the file of each of them by that in the step."""

    values: dict[str, Any]
    origins: Mapping[Place, Place]

    @property
    def title(self) -> str:
        """Name the step, for sentences about it."""
        return f"the step {self.values['name']}" if "name" in self.values else "the step"

    def place(self, inner: Place) -> Place:
        """Find where a value of the step was written, or should have been."""
        known = inner
        while known not in self.origins:
            known = known[:-1]
        return self.origins[known] + inner[len(known) :]

    def is_own(self, inner: Place) -> bool:
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
    defaults: Mapping[str, Any], own: Mapping[str, Any], at_defaults: Place, at_own: Place
) -> LayeredStep:
    """Fill the step `own`, written at `at_own`, up with the defaults."""
    origins = {(): at_own, **dict(_origins(defaults, own, at_defaults, at_own))}
    return LayeredStep(merged(defaults, own), origins)


def _origins(
    defaults: Mapping[str, Any], own: Mapping[str, Any], at_defaults: Place, at_own: Place
) -> Iterator[tuple[Place, Place]]:
    for name in defaults:
        yield (name,), (*at_defaults, name)
    for name, value in own.items():
        yield (name,), (*at_own, name)
        if isinstance(value, Mapping):
            default = defaults.get(name)
            base = default if isinstance(default, Mapping) and same_type(default, value) else {}
            inner = _origins(base, value, (*at_defaults, name), (*at_own, name))
            yield from (((name, *place), origin) for place, origin in inner)
