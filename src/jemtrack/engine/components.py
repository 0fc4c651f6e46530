"""Components that can be named in a file: their options are declared, typed and listed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar, get_args

from zninit import Descriptor, Empty, ZnInit, get_descriptors

from jemtrack.engine.dotted_path import imported
from jemtrack.errors import InputError
from jemtrack.parameters import suggestion

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
        if fault := self.fault(value):
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

    def fault(self, value: Any) -> str:
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
            f"{path!r} {what}: expected the dotted path of a subclass of Callback or Listener"
        )
    return found


def option_faults(cls: type[Component], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what is wrong with each of `options`: its name and a sentence about it."""
    known = {option.name: option for option in cls.options()}
    for name, value in options.items():
        if name not in known:
            yield name, f"is not an option of it; {suggestion(name, known)}"
        elif fault := known[name].fault(value):
            yield name, fault
    for name, option in known.items():
        if option.required and name not in options:
            yield name, f"is missing: {option.meaning}"
