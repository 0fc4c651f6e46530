"""Callbacks and trackers by name: their options are declared, checked and listed.

A file names a component by its registered name, or one's own by its dotted path.
"""

import importlib
import importlib.util
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType, NoneType
from typing import Any, TypeVar, get_args

from zninit import Descriptor, Empty, ZnInit, get_descriptors

from jemtrack.errors import InputError
from jemtrack.parameters import suggestion


def imported(path: str) -> Any:
    """Import what `path`, such as `mine.StopAfter`, names; None where its module has no such name.

    Raises:
        InputError: with what the module's import raised, whatever it is: the module is the user's.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path!r} cannot be imported: {reason}") from error


C = TypeVar("C", bound="Component")
_REGISTRY: dict[str, type["Component"]] = {}


class Option(Descriptor):  # type: ignore[misc]
    """One option of a component: its type, bounds and meaning, checked on assignment.

    One of type `int | None`, or whose default is None, takes None too.
    """

    def __init__(
        self,
        kind: Any,
        meaning: str,
        *,
        default: Any = Empty,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: Sequence[Any] = (),
    ) -> None:
        super().__init__(default=default)
        kinds = [part for part in get_args(kind) or (kind,) if part is not NoneType]
        self.kind: type = kinds[0]
        self.optional = default is None or NoneType in get_args(kind)
        self.meaning = meaning
        self.minimum = minimum
        self.maximum = maximum
        self.choices = tuple(choices)

    def __set__(self, instance: Any, value: Any) -> None:
        if fault := self.problem(value):
            raise InputError(f"{type(instance).__name__}.{self.name} {fault}")
        # An int serves as a float.
        super().__set__(instance, float(value) if self._is_whole(value) else value)

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is Empty

    @property
    def kind_name(self) -> str:
        """Name what it takes: int, or int | None."""
        return self.kind.__name__ + " | None" * self.optional

    def problem(self, value: Any) -> str:
        """Say why `value` does not fit; nothing where it does."""
        if value is None and self.optional:
            return ""
        # bool is an int to Python, but it is not meant.
        of_kind = isinstance(value, self.kind) and not (self.kind is int and type(value) is bool)
        if not of_kind and not self._is_whole(value):
            return f"must be of type {self.kind_name}, got {value!r}"
        if self.kind is float and not math.isfinite(value):
            return f"must be a finite number, got {value!r}"
        if self.minimum is not None and value < self.minimum:
            return f"must be >= {self.minimum}, got {value!r}"
        if self.maximum is not None and value > self.maximum:
            return f"must be <= {self.maximum}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(repr, self.choices))}, got {value!r}"
        return ""

    def _is_whole(self, value: Any) -> bool:
        return self.kind is float and type(value) is int


class Component(ZnInit):  # type: ignore[misc]
    """The base of all that is built by name: subclasses declare `Option`s."""

    @classmethod
    def options(cls) -> list[Option]:
        """List the options that the component declares."""
        found: list[Option] = get_descriptors(Option, cls=cls)
        return found


def component(name: str) -> Callable[[type[C]], type[C]]:
    """Register a component class under `name`.

    Raises:
        InputError: when another class holds that name.
    """

    def register(cls: type[C]) -> type[C]:
        holder = _REGISTRY.setdefault(name, cls)
        if (holder.__module__, holder.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"the component {name!r} is already {holder.__qualname__}")
        _REGISTRY[name] = cls
        return cls

    return register


def registered() -> dict[str, type[Component]]:
    """List the component classes by name, of those modules that were imported."""
    return dict(sorted(_REGISTRY.items()))


def component_class(name: str) -> type[Component]:
    """Find a component class by its name, where its module was imported, or by its dotted path.

    Raises:
        InputError: when there is none.
    """
    cls = _own_class(name) if "." in name else _REGISTRY.get(name)
    if cls is None:
        raise InputError(f"no component is called {name!r}; there are {', '.join(registered())}")
    return cls


def build(name: str, options: Mapping[str, Any]) -> Component:
    """Make the component `name`, a registered one or the dotted path of a class, with `options`.

    Raises:
        InputError: when the name or an option is unknown, is missing or does not fit.
    """
    cls = component_class(name)
    known = {option.name: option for option in cls.options()}
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    for option, declared in known.items():
        if declared.required and option not in options:
            raise InputError(f"{name}.{option} is missing: {declared.meaning}")
    return cls(**options)


def _own_class(path: str) -> type[Component]:
    found = imported(path)
    if not (isinstance(found, type) and issubclass(found, Component)):
        what = "is no component" if found else "does not exist"
        raise InputError(
            f"{path!r} {what}: expected the dotted path of a subclass of Callback or Tracker"
        )
    return found


def option_problems(cls: type[Component], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what is wrong with each of `options`: its name and a sentence about it."""
    known = {option.name: option for option in cls.options()}
    for name, value in options.items():
        if name not in known:
            yield name, f"is not an option of it; {suggestion(name, known)}"
        elif fault := known[name].problem(value):
            yield name, fault
    for name, option in known.items():
        if option.required and name not in options:
            yield name, f"is missing: {option.meaning}"


CALLBACK, TRACKER = "callback", "tracker"
_PACKAGES = {
    CALLBACK: ("jemtrack.callbacks",),
    TRACKER: ("jemtrack.record", "jemtrack.trackers"),
}


def load_components(kind: str) -> dict[str, type[Component]]:
    """Import the modules of the callbacks or of the trackers; return their classes by name."""
    found: dict[str, type[Component]] = {}
    for package in _PACKAGES[kind]:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
        found |= {
            name: cls
            for name, cls in registered().items()
            if cls.__module__.startswith(f"{package}.")
        }
    return dict(sorted(found.items()))


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


def load_extra(extra: str, module: str) -> ModuleType:
    """Import `module`, which the extra `extra` brings.

    Raises:
        InputError: saying how to install it, where it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the tracker {extra!r} needs a package that is missing ({error}): "
            f"pip install 'jemtrack[{extra}]'"
        ) from error
