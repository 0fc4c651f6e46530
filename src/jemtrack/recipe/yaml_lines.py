"""YAML as plain values that remember their lines, so that each problem is named by its own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jemtrack.parameters import Place, ValueProblem

Node = Any  # of ruamel.yaml, which few of the processes that import this module need

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Problem:
    """A problem in a file: its line (from 1; 0 if the file has none), where, and what is wrong."""

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

    def problems(self, found: Iterable[ValueProblem]) -> list[Problem]:
        """List what was found and what is wrong with the form, once each, by line."""
        all_found = [Problem(self.line(at), format_place(at), text) for at, text in found]
        return sorted(dict.fromkeys([*self.form, *all_found]), key=lambda problem: problem.line)

    def line(self, place: Place) -> int:
        """Return the line of a place, or of what is around it if the file has no such place."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)


def format_place(place: Place) -> str:
    """Write a place as `training.pipeline.steps[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def read_document(path: Path) -> Document:
    """Read a file of one YAML document, by YAML 1.2."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it must be text in UTF-8"
        return Document(form=[Problem(0, "", f"cannot be read: {reason}")], broken=True)
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    document = Document()
    try:
        root = yaml.compose(text)
        if root is not None:
            document.content = _Reader(yaml, document).value(root, ())
    except YAMLError as error:
        return Document(form=[_syntax_problem(error, text)], broken=True)
    return document


def _syntax_problem(error: Any, text: str) -> Problem:
    if mark := getattr(error, "problem_mark", None):
        reason = " ".join(filter(None, [error.context, error.problem]))
        return Problem(mark.line + 1, "", f"is not valid YAML: {reason}")
    line = text.count("\n", 0, getattr(error, "position", 0)) + 1
    return Problem(line, "", f"is not valid YAML: {getattr(error, 'reason', error)}")


class _Reader:
    """Turns YAML's nodes into values; notes lines, names that are given twice and loops."""

    def __init__(self, yaml: Any, document: Document) -> None:
        self._construct = yaml.constructor.construct_object
        self._document = document
        self._around: list[Node] = []

    def value(self, node: Node, place: Place) -> Any:
        self._document.lines.setdefault(place, node.start_mark.line + 1)
        if node.id == "scalar":
            try:
                return self._construct(node)
            except ValueError as error:  # 2026-02-31 has the form of a date and is none
                return self._note(node, place, f"cannot be read: {error}")
        if any(node is outer for outer in self._around):
            return self._note(node, place, "must not contain itself")
        self._around.append(node)
        try:
            if node.id == "sequence":
                return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
            return self._mapping(node, place)
        finally:
            self._around.pop()

    def _mapping(self, node: Node, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in self._entries(node, place):
            inner = (*place, self._name(key))
            if inner[-1] in result:
                first = self._document.lines[inner]
                self._note(key, inner, f"stands twice, first in line {first}")
            else:
                self._document.lines[inner] = key.start_mark.line + 1
                result[self._name(key)] = self.value(value, inner)
        return result

    def _entries(self, node: Node, place: Place) -> list[tuple[Node, Node]]:
        """List the entries, last those that `<<` brings and the mapping lacks."""
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        known = {self._name(key) for key, _ in own}
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            for source in value.value if value.id == "sequence" else [value]:
                if source.id != "mapping" or source in self._around:
                    self._note(key, place, "'<<' must bring in another mapping")
                    continue
                brought = [entry for entry in source.value if self._name(entry[0]) not in known]
                own += brought
                known |= {self._name(key) for key, _ in brought}
        return own

    def _name(self, key: Node) -> str:
        return str(self._construct(key)) if key.id == "scalar" else "?"

    def _note(self, node: Node, place: Place, message: str) -> None:
        problem = Problem(node.start_mark.line + 1, format_place(place), message)
        self._document.form.append(problem)
