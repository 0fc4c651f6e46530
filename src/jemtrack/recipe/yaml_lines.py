"""YAML as plain values that remember their lines, so that each problem is named by its own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

# Where a value stands in nested mappings and lists: names, and numbers from 0.
YamlPath = tuple[str | int, ...]


class ValueProblem(NamedTuple):
    """Something wrong at a place; `absent` where a thing that must be there is not."""

    place: YamlPath
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
    lines: dict[YamlPath, int] = field(default_factory=dict)
    form: list[Problem] = field(default_factory=list)
    broken: bool = False

    def problems(self, faults: Iterable[ValueProblem]) -> list[Problem]:
        """Give the faults with their lines and those of the form, in the order of lines."""
        found = [
            Problem(self.line(fault.place), shown_place(fault.place), fault.message)
            for fault in faults
        ]
        return sorted(dict.fromkeys([*self.form, *found]), key=lambda problem: problem.line)

    def line(self, place: YamlPath) -> int:
        """Give the line of a place, or of what is around it where the file has no such place."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)


def shown_place(place: YamlPath) -> str:
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
    pass

    return parsed(text)


_MERGE = "tag:yaml.org,2002:merge"


def parsed(text: str) -> Document:
    """Read the text of one YAML document."""
    yaml = YAML(typ="safe", pure=True)
    document = Document()
    try:
        root = yaml.compose(text)
        if root is not None:
            document.content = _Reader(yaml, document).value(root, ())
    except YAMLError as error:
        return Document(form=[_syntax_problem(error, text)], broken=True)
    return document


def _syntax_problem(error: YAMLError, text: str) -> Problem:
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        said = " ".join(filter(None, [error.context, error.problem]))
        return Problem(error.problem_mark.line + 1, "", f"is not valid YAML: {said}")
    position = getattr(error, "position", 0)
    line = text.count("\n", 0, position) + 1
    return Problem(line, "", f"is not valid YAML: {getattr(error, 'reason', error)}")


class _Reader:
    """Turns YAML's nodes into values; notes lines, names that stand twice and loops."""

    def __init__(self, yaml: YAML, document: Document) -> None:
        self._construct = yaml.constructor.construct_object
        self._document = document
        self._around: list[Node] = []

    def value(self, node: Node, place: YamlPath) -> Any:
        self._document.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        if any(node is outer for outer in self._around):
            self._note(node, place, "must not contain itself")
            return None
        self._around.append(node)
        try:
            if isinstance(node, SequenceNode):
                return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
            return self._mapping(node, place)
        finally:
            self._around.pop()

    def _scalar(self, node: Node, place: YamlPath) -> Any:
        try:
            return self._construct(node)
        except ValueError as error:  # 2026-02-31 has the form of a date and is none
            self._note(node, place, f"cannot be read: {error}")
            return None

    def _mapping(self, node: Node, place: YamlPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in self._entries(node, place):
            name = self._name(key)
            if (*place, name) in self._document.lines and name in result:
                first = self._document.lines[*place, name]
                self._note(key, (*place, name), f"stands twice, first in line {first}")
            else:
                self._document.lines[*place, name] = key.start_mark.line + 1
                result[name] = self.value(value, (*place, name))
        return result

    def _entries(self, node: Node, place: YamlPath) -> list[tuple[Node, Node]]:
        """Give the entries, last those that `<<` brings and the mapping has not itself."""
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        known = {self._name(key) for key, _ in own}
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(source, MappingNode) or source in self._around:
                    self._note(key, place, "'<<' must bring in another mapping")
                    continue
                brought = [entry for entry in source.value if self._name(entry[0]) not in known]
                own += brought
                known |= {self._name(key) for key, _ in brought}
        return own

    def _name(self, key: Node) -> str:
        return str(self._construct(key)) if isinstance(key, ScalarNode) else "?"

    def _note(self, node: Node, place: YamlPath, message: str) -> None:
        problem = Problem(node.start_mark.line + 1, shown_place(place), message)
        self._document.form.append(problem)
