"""Components (callbacks and trackers): register them by name, check and list their options.

A file refers to a component of jemtrack by its registered name, and to a user's own by its dotted
path.
"""

import importlib
import importlib.util
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType, NoneType
from typing import Any, TypeVar, get_args

from zninit import Descriptor, Empty, ZnInit, get_descriptors

from jemtrack.errors import InputError
from jemtrack.parameters import suggestion


def imported(path: str) -> Any:
    """Import the object at a dotted path such as `mine.StopAfter`; None if the module lacks it.

    Raises:
        InputError: if importing the module raises any exception: the module is the user's.
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

    An option of type `int | None`, or with the default None, accepts None.
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
        if problem := self.problem(value):
            raise InputError(f"{type(instance).__name__}.{self.name} {problem}")
        super().__set__(instance, float(value) if self._is_int_for_float(value) else value)

    @property
    def required(self) -> bool:
        """Whether the option has no default."""
        return self.default is Empty

    @property
    def kind_name(self) -> str:
        """The type as text: `int`, or `int | None`."""
        return self.kind.__name__ + " | None" * self.optional

    def problem(self, value: Any) -> str:
        """Describe why `value` does not fit; return "" if it fits."""
        if value is None and self.optional:
            return ""
        # In Python, bool is a subclass of int: refuse True where a number is expected.
        of_kind = isinstance(value, self.kind) and not (self.kind is int and type(value) is bool)
        if not of_kind and not self._is_int_for_float(value):
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

    def location_problem(self, value: Any) -> str:
        """Explain why a file must not name this `value` as a place to write; "" if it may."""
        return ""

    def _is_int_for_float(self, value: Any) -> bool:
        return self.kind is float and type(value) is int


class Component(ZnInit):  # type: ignore[misc]
    """The base class of callbacks and trackers; a subclass declares its `Option`s."""

    @classmethod
    def options(cls) -> list[Option]:
        """List the options that the component declares."""
        found: list[Option] = get_descriptors(Option, cls=cls)
        return found


def component(name: str) -> Callable[[type[C]], type[C]]:
    """Return a decorator that registers a component class under `name`.

    Raises:
        InputError: if another class is registered under it.
    """

    def register(cls: type[C]) -> type[C]:
        present = _REGISTRY.setdefault(name, cls)
        # A module that is reloaded, as in a notebook, may register its class again.
        if (present.__module__, present.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"the component {name!r} is already {present.__qualname__}")
        _REGISTRY[name] = cls
        return cls

    return register


def registered() -> dict[str, type[Component]]:
    """Return the component classes by name, as far as their modules were imported."""
    return dict(sorted(_REGISTRY.items()))


def component_class(name: str) -> type[Component]:
    """Find a component class by its registered name or by its dotted path.

    Raises:
        InputError: if there is none.
    """
    cls = _own_class(name) if "." in name else _REGISTRY.get(name)
    if cls is None:
        raise InputError(f"no component is called {name!r}; there are {', '.join(registered())}")
    return cls


Placed = Callable[[type[Component], Mapping[str, Any]], Mapping[str, Any]]


def build(name: str, options: Mapping[str, Any], placed: Placed | None = None) -> Component:
    """Build the component with this registered name or dotted path, and these `options`.

    `placed` makes paths of a run of those that a file has.

    Raises:
        InputError: if the name or an option is unknown, or an option is missing or does not fit.
    """
    cls = component_class(name)
    for option, problem in option_problems(cls, options):
        raise InputError(f"{name}.{option} {problem}")
    return cls(**(placed(cls, options) if placed else options))


def _own_class(path: str) -> type[Component]:
    found = imported(path)
    if not (isinstance(found, type) and issubclass(found, Component)):
        what = "is not a component" if found else "does not exist"
        raise InputError(
            f"{path!r} {what}: expected the dotted path of a subclass of Callback or Tracker"
        )
    return found


def option_problems(cls: type[Component], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each option that has a problem or is missing, and the problem."""
    known = {option.name: option for option in cls.options()}
    for name, value in options.items():
        if name not in known:
            yield name, f"is not an option of it; {suggestion(name, known)}"
        elif problem := known[name].problem(value) or known[name].location_problem(value):
            yield name, problem
    for name, option in known.items():
        if option.required and name not in options:
            yield name, f"is missing: {option.meaning}"


CALLBACK, TRACKER = "callback", "tracker"
_PACKAGES = {
    CALLBACK: ("jemtrack.callbacks",),
    TRACKER: ("jemtrack.record", "jemtrack.trackers"),
}


def load_components(kind: str) -> dict[str, type[Component]]:
    """Import the modules of all callbacks or all trackers; return their classes by name."""
    found: dict[str, type[Component]] = {}
    for package in _PACKAGES[kind]:
        # Importing a module registers its components.
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
        found |= {
            name: cls
            for name, cls in registered().items()
            if cls.__module__.startswith(f"{package}.")
        }
    return dict(sorted(found.items()))


def load_extra(extra: str, module: str) -> ModuleType:
    """Import `module`, which belongs to the optional dependencies (extra) `extra`.

    Raises:
        InputError: if it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the tracker {extra!r} needs a package that is missing ({error}): "
            f"pip install 'jemtrack[{extra}]'"
        ) from error
