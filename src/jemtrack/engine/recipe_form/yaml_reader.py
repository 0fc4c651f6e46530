"""From the text of a YAML document to its values and their lines."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from jemtrack.engine.recipe_form.document import Document, Place, Problem, shown_place

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

    def value(self, node: Node, place: Place) -> Any:
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

    def _scalar(self, node: Node, place: Place) -> Any:
        try:
            return self._construct(node)
        except ValueError as error:  # 2026-02-31 has the form of a date and is none
            self._note(node, place, f"cannot be read: {error}")
            return None

    def _mapping(self, node: Node, place: Place) -> dict[str, Any]:
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

    def _entries(self, node: Node, place: Place) -> list[tuple[Node, Node]]:
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

    def _note(self, node: Node, place: Place, message: str) -> None:
        problem = Problem(node.start_mark.line + 1, shown_place(place), message)
        self._document.form.append(problem)
