"""The callbacks and trackers of the project, found by looking into their packages."""

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator

from jemtrack.engine.components import Component, registered

CALLBACK, TRACKER = "callback", "tracker"
_PACKAGES = {CALLBACK: "jemtrack.callbacks", TRACKER: "jemtrack.trackers"}


def load_components(kind: str) -> dict[str, type[Component]]:
    """Import the modules of a package of components; give its classes by name."""
    package = _PACKAGES[kind]
    if importlib.util.find_spec(package):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    return {
        name: cls for name, cls in registered().items() if cls.__module__.startswith(f"{package}.")
    }


def component_lines() -> Iterator[str]:
    """Describe all components: name, kind, what it does, then its options."""
    for kind in _PACKAGES:
        for name, cls in load_components(kind).items():
            yield f"{name} ({kind}): {_first_line(cls)}"
            for option in cls.options():
                default = "required" if option.required else f"default {option.default!r}"
                bounds = _bounds(option.minimum, option.maximum, option.choices)
                yield f"    {option.name}: {option.kind_name}, {default}{bounds}: {option.meaning}"


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _bounds(minimum: float | None, maximum: float | None, choices: tuple[object, ...]) -> str:
    return "".join(
        (
            f", >= {minimum}" if minimum is not None else "",
            f", <= {maximum}" if maximum is not None else "",
            f", one of {', '.join(map(repr, choices))}" if choices else "",
        )
    )
