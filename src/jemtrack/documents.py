"""Read YAML and JSON files within bounds, as plain values that remember their lines.

All YAML is read as DVC reads it, by version 1.2. ZnTrack reads with PyYAML, which follows version
1.1: importing this module makes PyYAML follow 1.2. A plain scalar that is a number or a boolean
by 1.1 alone, such as `010`, `1:30` or `yes`, is refused: its writer may have meant either.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from jemtrack.errors import InputError
from jemtrack.parameters import MOST_PROBLEMS, Place, ValueProblem

# No file of a project comes near these bounds; within them, reading takes less than two seconds.
LARGEST_FILE = 4 * 2**20  # bytes
_MOST_VALUES = 200_000  # each use of an anchor counts all that it brings in
_DEEPEST = 50
_LONGEST_NAME = 1024
_LONGEST_MESSAGE = 300
_LARGEST_INT = 2**63 - 1  # as NumPy's and torch's
_LARGEST_FLOAT = 3.4028234663852886e38  # of float32, which the networks compute in

Node = Any  # PyYAML has no types

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TAGS = {"sequence": f"{_TAG}seq", "mapping": f"{_TAG}map"}
_DIGITS = "-+0123456789"
# The scalars of YAML 1.2 as ruamel.yaml, DVC's reader, has them; all other forms are PyYAML's.
_FORMS = {
    "bool": (re.compile(r"(true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (
        re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)$"),
        _DIGITS,
    ),
    "float": (
        re.compile(
            r"([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
            r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
        ),
        f"{_DIGITS}.",
    ),
}
_BASES = {"0b": 2, "0o": 8, "0x": 16}


def _integer(loader: Any, node: Node) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    sign, digits = (-1 if text[0] == "-" else 1), text.lstrip("+-")
    base = _BASES.get(digits[:2])
    return sign * (int(digits[2:], base) if base else int(digits))


# libyaml is ten times as fast, if PyYAML was built with it; every stage reads these files.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
for _side in dict.fromkeys((yaml.SafeLoader, _Loader)):
    _side.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag.removeprefix(_TAG) not in _FORMS]
        for first, forms in _side.yaml_implicit_resolvers.items()
    }
    _side.add_constructor(f"{_TAG}int", _integer)
# A dumper puts text into quotes that either version would read as something else.
for _side in dict.fromkeys((yaml.SafeLoader, _Loader, yaml.SafeDumper)):
    for _kind, (_form, _first) in _FORMS.items():
        _side.add_implicit_resolver(f"{_TAG}{_kind}", _form, list(_first))

_BY_1_1_ALONE = re.compile(
    r"(yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|[-+]?0[0-7_]*[1-7][0-7_]*"
    r"|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*)$"
)


def is_ambiguous(text: str) -> bool:
    """Return whether plain `text` is a number or boolean by YAML 1.1, and another value by 1.2."""
    return bool(_BY_1_1_ALONE.match(text))


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
        most = islice(found, MOST_PROBLEMS)
        all_found = [Problem(self.line(at), format_place(at), text) for at, text in most]
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


def read_text(path: Path) -> str:
    """Read the text of a file.

    Raises:
        InputError: if there is none, it is too large, or no text.
    """
    try:
        with path.open("rb") as file:
            return decoded(file.read(LARGEST_FILE + 1), path)
    except (OSError, ValueError) as error:  # a ValueError is of the path: it contains a NUL
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error


def decoded(content: bytes, where: object) -> str:
    """Return the text of a file's content; `where` begins a message.

    Raises:
        InputError: if it is too large, or no text.
    """
    if len(content) > LARGEST_FILE:
        raise InputError(f"{where} must be at most {LARGEST_FILE} bytes long")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where} cannot be read: it must be text in UTF-8") from None


def parse_json(text: str | bytes, where: object) -> Any:
    """Read the text of a JSON document; `where` begins a message.

    Raises:
        InputError: if it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{where} is not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error


def parse_yaml(text: str, path: Path) -> Any:
    """Read the text of a YAML document that is the file at `path`.

    Raises:
        InputError: a line for each problem.
    """
    document = parse_document(text)
    if document.form:
        raise InputError("\n".join(problem.of(path) for problem in document.form))
    return document.content


def read_document(path: Path) -> Document:
    """Read a file of one YAML document."""
    try:
        return parse_document(read_text(path))
    except InputError as error:
        return _broken(0, str(error).removeprefix(f"{path} "))


def parse_document(text: str) -> Document:
    """Read the text of one YAML document."""
    document = Document()
    try:
        if problem := _bounds_problem(text):
            return Document(form=[problem], broken=True)
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is not None:
            document.content = _Reader(loader, document).value(root, ())
    except yaml.YAMLError as error:
        return Document(form=[_syntax_problem(error, text)], broken=True)
    return document


@contextmanager
def refused_if_broken(where: object, wrong: str, mend: str) -> Iterator[None]:
    """Raise an `InputError` for whatever reading a file in the block raises.

    A file of foreign origin can make safetensors and torch raise nearly anything.
    """
    try:
        yield
    except Exception as error:
        raise InputError(f"{where} {wrong} ({error}); {mend}") from error


def _broken(line: int, message: str) -> Document:
    return Document(form=[Problem(line, "", message)], broken=True)


def _bounds_problem(text: str) -> Problem | None:
    """Look for what is too deep or too much, by events: building either would take the stack."""
    sizes: dict[str | None, tuple[int, int]] = {}  # by anchor: how many values, how deep
    around: list[list[Any]] = [["", 0, 0]]
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent) and event.version not in {None, (1, 2)}:
            return Problem(line, "", "must be YAML 1.2, as DVC reads it: remove the line %YAML")
        size, depth = 0, 0
        if isinstance(event, yaml.CollectionStartEvent):
            around.append([event.anchor, 1, 1])
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = around.pop()
            sizes[anchor] = size, depth
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            sizes[event.anchor] = 1, 0
        elif isinstance(event, yaml.AliasEvent):
            size, depth = sizes.get(event.anchor, (1, 0))
        outer = around[-1]
        outer[1:] = outer[1] + size, max(outer[2], depth + 1)
        if len(around) + depth > _DEEPEST:
            return Problem(line, "", f"must not be nested deeper than {_DEEPEST} levels")
        if outer[1] > _MOST_VALUES:
            return Problem(line, "", f"must hold at most {_MOST_VALUES} values, aliases included")
    return None


def _syntax_problem(error: Any, text: str) -> Problem:
    if mark := getattr(error, "problem_mark", None):
        reason = " ".join(filter(None, [error.context, error.problem]))
        line = min(mark.line, len(text.splitlines()) - 1) + 1  # libyaml's end is one line further
        return Problem(line, "", f"is not valid YAML: {reason}"[:_LONGEST_MESSAGE])
    line = text.encode().count(b"\n", 0, getattr(error, "position", 0)) + 1
    return Problem(line, "", f"is not valid YAML: {getattr(error, 'reason', error)}")


class _Reader:
    """Turns YAML's nodes into values; notes lines, names that are given twice and loops."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._construct = loader.construct_object
        self._document = document
        self._around: list[Node] = []

    def value(self, node: Node, place: Place) -> Any:
        self._document.lines.setdefault(place, node.start_mark.line + 1)
        if node.id == "scalar":
            return self._scalar(node, place)
        if node.tag != _TAGS[node.id]:
            return self._note(node, place, f"must not have the tag {node.tag}")
        if any(node is outer for outer in self._around):
            return self._note(node, place, "must not contain itself")
        self._around.append(node)
        try:
            if node.id == "sequence":
                return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
            return self._mapping(node, place)
        finally:
            self._around.pop()

    def _scalar(self, node: Node, place: Place) -> Any:
        if not node.style and is_ambiguous(node.value):
            text = f"is not the same to all readers of YAML, got {node.value}"
            return self._note(node, place, f"{text}: put text into quotes, or write a plain number")
        try:
            value = self._construct(node)
        except ValueError as error:  # 2026-02-31 has the form of a date and is none
            return self._note(node, place, f"cannot be read: {error}")
        if type(value) is int and abs(value) > _LARGEST_INT:
            return self._note(node, place, "must be a number of at most 64 bits")
        is_large = type(value) is float and abs(value) > _LARGEST_FLOAT
        if is_large and "inf" not in node.value.lower():
            message = f"must be within +-{_LARGEST_FLOAT:.2g}, as float32 is, got {node.value}"
            return self._note(node, place, message)
        return value

    def _mapping(self, node: Node, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in self._entries(node, place):
            name = self._name(key)
            inner = (*place, name)
            if key.id != "scalar" or len(name) > _LONGEST_NAME:
                self._note(key, place, f"must have names that are text of <= {_LONGEST_NAME}")
            elif name in result:
                first = self._document.lines[inner]
                self._note(key, inner, f"stands twice, first in line {first}")
            else:
                self._document.lines[inner] = key.start_mark.line + 1
                result[name] = self.value(value, inner)
        return result

    def _entries(self, node: Node, place: Place) -> list[tuple[Node, Node]]:
        """List the entries, last those that `<<` brings and the mapping lacks."""
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        known = {self._name(key) for key, _ in own}
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            for source in value.value if value.id == "sequence" else [value]:
                if source.id != "mapping" or source is node or source in self._around:
                    self._note(key, place, "'<<' must bring in another mapping")
                    continue
                entries = self._entries(source, place)
                brought = [entry for entry in entries if self._name(entry[0]) not in known]
                own += brought
                known |= {self._name(key) for key, _ in brought}
        return own

    def _name(self, key: Node) -> str:
        return str(key.value) if key.id == "scalar" else "?"

    def _note(self, node: Node, place: Place, message: str) -> None:
        line = node.start_mark.line + 1
        problem = Problem(line, format_place(place), message[:_LONGEST_MESSAGE])
        if len(self._document.form) < MOST_PROBLEMS:
            self._document.form.append(problem)
