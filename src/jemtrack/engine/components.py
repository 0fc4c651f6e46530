"""Components that can be named in a file: their options are declared, typed and listed."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from zninit import Descriptor, Empty, ZnInit, get_descriptors

from jemtrack.errors import InputError

C = TypeVar("C", bound="Component")
_REGISTRY: dict[str, type["Component"]] = {}


class Option(Descriptor):  # type: ignore[misc]
    """One option of a component: its type, bounds and meaning, checked on assignment."""

    def __init__(
        self, kind: type, meaning: str, *, default: Any = Empty, minimum: float | None = None
    ) -> None:
        super().__init__(default=default)
        self.kind = kind
        self.meaning = meaning
        self.minimum = minimum

    def __set__(self, instance: Any, value: Any) -> None:
        where = f"{type(instance).__name__}.{self.name}"
        # bool is an int to Python, and an int serves as a float, but neither is meant.
        if self.kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, self.kind) or (self.kind is int and isinstance(value, bool)):
            raise InputError(f"{where} must be of type {self.kind.__name__}, got {value!r}")
        if self.minimum is not None and value < self.minimum:  # type: ignore[operator]
            raise InputError(f"{where} must be >= {self.minimum}, got {value!r}")
        super().__set__(instance, value)


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


def build(name: str, options: Mapping[str, Any]) -> Component:
    """Make the component `name` with `options`.

    Raises:
        InputError: when the name or an option is unknown, is missing or does not fit.
    """
    if name not in _REGISTRY:
        raise InputError(f"no component is called {name!r}; there are {', '.join(registered())}")
    cls = _REGISTRY[name]
    known = {option.name: option for option in cls.options()}
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    for option, declared in known.items():
        if declared.default is Empty and option not in options:
            raise InputError(f"{name}.{option} is missing: {declared.meaning}")
    return cls(**options)
