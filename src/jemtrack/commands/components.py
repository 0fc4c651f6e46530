"""List what a recipe can name by its `type`, with the options: `jemtrack components`."""

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING

from jemtrack.commands.tables import table_console
from jemtrack.errors import InputError
from jemtrack.project.comments import field_comments
from jemtrack.recipe.read import families
from jemtrack.shared.components import CALLBACK, TRACKER, Component, Option, load_components
from jemtrack.train.optimizers import OPTIMIZERS, SCHEDULERS


def component_lines(word: str = "") -> Iterator[str]:
    """Yield the lines of all components, or of those whose name or kind contains `word`.

    They are wrapped to the width of the terminal.

    Raises:
        InputError: if there is none.
    """
    named = [(name, kind, cls) for kind, classes in _by_kind() for name, cls in classes.items()]
    chosen = [each for each in named if word.lower() in f"{each[0]} ({each[1]})".lower()]
    if not chosen:
        names = ", ".join(name for name, _, _ in named)
        raise InputError(f"no component has {word!r} in its name or kind; there are {names}")
    for name, kind, cls in chosen:
        first_line = (inspect.getdoc(cls) or "").partition("\n")[0]
        yield from _wrapped(f"{name} ({kind}): {first_line}", indent=0)
        options = _options(cls) if issubclass(cls, Component) else _fields(cls)
        for option in options:
            yield from _wrapped(option, indent=4)


def _by_kind() -> Iterator[tuple[str, dict[str, type]]]:
    yield CALLBACK, {**load_components(CALLBACK)}
    yield TRACKER, {**load_components(TRACKER)}
    yield (
        "objective",
        {name: cls for family in families().values() for name, cls in family.objectives.items()},
    )
    yield "optimizer", {**OPTIMIZERS}
    yield "scheduler", {**SCHEDULERS}


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        table_console().width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 4),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _options(cls: type[Component]) -> Iterator[str]:
    for option in cls.options():
        default = "required" if option.required else f"default {option.default!r}"
        yield f"{option.name}: {option.kind_name}, {default}{_bounds(option)}: {option.meaning}"


def _bounds(option: Option) -> str:
    return "".join(
        (
            f", >= {option.minimum}" if option.minimum is not None else "",
            f", <= {option.maximum}" if option.maximum is not None else "",
            f", one of {', '.join(map(repr, option.choices))}" if option.choices else "",
        )
    )


def _fields(cls: type) -> Iterator[str]:
    """Describe the options of an objective, an optimizer or a scheduler, but for its `type`."""
    meanings = field_comments(cls)
    for field in dataclasses.fields(cls):
        if field.name != "type":
            default = "required" if field.default is MISSING else f"default {field.default!r}"
            meaning = f": {meanings[field.name]}" if field.name in meanings else ""
            yield f"{field.name}: {default}{meaning}"
