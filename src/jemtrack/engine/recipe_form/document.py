"""YAML as plain values that remember their lines, so that every problem can be named by its own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# Where a value stands in nested mappings and lists: names, and numbers from 0.
Place = tuple[str | int, ...]


class Fault(NamedTuple):
    """Something wrong at a place; `absent` where a thing that must be there is not."""

    place: Place
    message: str
    absent: bool = False


@dataclass(frozen=True)
class Problem:
    """A fault in a file: its line (from 1; 0 where the file has none), where, and what is wrong."""

    line: int
    where: str
    message: str

    def __str__(self) -> str:
        """Write it as other checkers do: the line, the place, what is wrong."""
        return ": ".join(filter(None, [str(self.line or ""), self.where, self.message]))

    def of(self, path: Path) -> str:
        """Write it after the name of its file."""
        return f"{path}:{self}" if self.line else f"{path}: {self}"


@dataclass
class Document:
    """A file's `content` in plain Python; `lines` has the line of each place in it.

    `form` holds what is wrong with the YAML itself. A document that is `broken` has no content.
    """

    content: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    form: list[Problem] = field(default_factory=list)
    broken: bool = False

    def problems(self, faults: Iterable[Fault]) -> list[Problem]:
        """Give the faults with their lines and those of the form, in the order of lines."""
        found = [
            Problem(self.line(fault.place), shown_place(fault.place), fault.message)
            for fault in faults
        ]
        return sorted(dict.fromkeys([*self.form, *found]), key=lambda problem: problem.line)

    def line(self, place: Place) -> int:
        """Give the line of a place, or of what is around it where the file has no such place."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)


def shown_place(place: Place) -> str:
    """Write a place as `training.pipeline.steps[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def read_document(path: Path) -> Document:
    """Read a file of one YAML document."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it must be text in UTF-8"
        return Document(form=[Problem(0, "", f"cannot be read: {reason}")], broken=True)
    # Every stage imports this module, and few of them have a document to read.
    from jemtrack.engine.recipe_form.yaml_reader import parsed

    return parsed(text)
