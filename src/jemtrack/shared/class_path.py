"""Classes of the user's own, by dotted path: looked up in their source, imported to be made."""

import ast
import dataclasses
import inspect
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from jemtrack.errors import InputError
from jemtrack.parameters import ValueProblem, parameters, refuse
from jemtrack.shared.components import imported


def class_problem(path: str) -> str:
    """Explain why `path`, such as `mine.PseudoHuber`, names no class; empty if it names one.

    Nothing is run: neither the module nor its parent packages.
    """
    module, _, name = path.rpartition(".")
    wrong = f"must be the dotted path of a class, got {path!r}"
    file = _source(module)
    if file is None:
        return f"{wrong}: there is no module {module!r}"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"{wrong}: {module!r} is not valid Python: {error}"
    return "" if name in _names(tree) else f"{wrong}: {file.name} defines no {name!r}"


def _source(module: str) -> Path | None:
    folders: list[str] | None = None
    spec = None
    parts = module.split(".")
    for n in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: n + 1]), folders)
        if spec is None:
            return None
        folders = [*(spec.submodule_search_locations or [])]
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _names(tree: ast.Module) -> set[str]:
    """Collect the names of a module's classes and imports: a class may come from elsewhere."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return classes | {alias.asname or alias.name for node in imports for alias in node.names}


def _defined(path: str) -> str:
    refuse([ValueProblem((), message)] if (message := class_problem(path)) else [], path)
    return path


@parameters
class ClassPath:
    """A class of the user's own and its `options`; `type` is its dotted path."""

    type: Annotated[str, AfterValidator(_defined)]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def imported(self) -> Any:
        """Import the class.

        Raises:
            InputError: if there is none, or its module cannot be imported.
        """
        found = imported(self.type)
        if not callable(found):
            raise InputError(f"{self.type!r} is not a class")
        return found

    def instantiate(self, *arguments: Any) -> Any:
        """Make an object of the class: of `arguments`, then the options by name.

        Raises:
            InputError: if the class does not take them.
        """
        cls = self.imported()
        try:
            inspect.signature(cls).bind(*arguments, **self.options)
        except TypeError as error:
            raise InputError(f"{self.type} does not take its options: {error}") from error
        return cls(*arguments, **self.options)
