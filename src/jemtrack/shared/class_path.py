"""Classes of the user's own, by dotted path: looked up in their source, imported to be made.

A file that names a class must not be able to run any other code: before it is called, a class is
held against the `Role` that it is named for, by its source in a check and by itself in a run.
"""

import ast
import builtins
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from pydantic import field_validator
from zninit import Empty

from jemtrack.errors import InputError
from jemtrack.parameters import ValueProblem, parameters, refuse
from jemtrack.shared.components import Component, Option, imported


class Role(NamedTuple):
    """What a class must be: a subclass of one of `bases`, or one with one of the `methods`.

    `methods` has the number of positional arguments of each, `self` included.
    """

    what: str
    bases: tuple[str, ...] = ()
    methods: Mapping[str, int] = MappingProxyType({})

    def problem(self, cls: Any) -> str:
        """Explain why an imported object is no such class; return "" if it is one."""
        if isinstance(cls, type):
            if any(f"{each.__module__}.{each.__qualname__}" in self.bases for each in cls.__mro__):
                return ""
            for name, n_arguments in self.methods.items():
                method: Any = getattr(cls, name, None)
                code = getattr(inspect.unwrap(method), "__code__", None)
                if code and code.co_argcount == n_arguments:
                    return ""
        return f"must be {self.what}, and is none"


# One that is made anew for a training has `begin` instead, which returns the one that is called.
OBJECTIVE = Role(
    "an objective, a class with `__call__(self, models, batch)`",
    methods={"__call__": 3, "begin": 2},
)
OPTIMIZER = Role(
    "a subclass of torch.optim.Optimizer",
    ("torch.optim.optimizer.Optimizer", "torch.optim.Optimizer"),
)
SCHEDULER = Role(
    "a subclass of torch.optim.lr_scheduler.LRScheduler",
    ("torch.optim.lr_scheduler.LRScheduler",),
)
CALLBACK = Role("a subclass of Callback", ("jemtrack.events.handlers.Callback",))
TRACKER = Role("a subclass of Tracker", ("jemtrack.events.handlers.EventHandler",))


_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


def class_problem(path: str, role: Role | None = None) -> str:
    """Explain why `path`, such as `mine.PseudoHuber`, names no class of that `role`; or return "".

    Nothing is run: neither the module nor its parent packages. A class that is made while its
    module runs, or inherits from one, passes; the run holds it against its role again.
    """
    module, _, name = path.rpartition(".")
    wrong = f"must be the dotted path of a class, got {path!r}"
    file = _source(module)
    if file is None:
        return f"{wrong}: there is no module {module!r}"
    try:
        tree = _tree(file)
    except _NOT_PYTHON as error:
        return f"{wrong}: {module!r} is not valid Python: {error}"
    if name not in _names(tree):
        return f"{wrong}: {file.name} defines no {name!r}"
    return "" if role is None or _fits(path, role) else f"must be {role.what}, got {path!r}"


def _fits(path: str, role: Role) -> bool:
    """Return whether the class at `path` fits the role, or might."""
    for found in _ancestry(path):
        if found is None or found.path in role.bases:
            return True
        for node in found.node.body:
            if isinstance(node, ast.FunctionDef) and node.name in role.methods:
                n_arguments = len(node.args.posonlyargs + node.args.args)
                return n_arguments == role.methods[node.name]
    return False


def declared_component(path: str) -> type[Component] | None:
    """Make a component with the options that the source of the class at `path` declares.

    Nothing of the class is run. Returns None if its source does not show all of its options.
    """
    declared: dict[str, Option] = {}
    for found in _ancestry(path):
        if found is None:
            return None
        module = found.path.rpartition(".")[0]
        for name, call in _calls(found.node):
            for kind in islice(_option_kinds(_resolved(module, _dotted(call.func))), 1):
                if kind is None:
                    return None
                declared.setdefault(name, _option(kind, call))
    return type(path.rpartition(".")[2], (Component,), declared)


def _calls(node: ast.ClassDef) -> Iterator[tuple[str, ast.Call]]:
    """Yield the attributes of a class that a call makes."""
    for statement in node.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        call = statement.value
        # `property` and the like make no options.
        if isinstance(call, ast.Call) and not hasattr(builtins, _dotted(call.func)):
            yield from ((name, call) for name in names)


def _option_kinds(path: str) -> Iterator[type[Option] | None]:
    """Yield the classes of options that a class is or inherits from; None for what is hidden."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _subclasses(Option)}
    for found in _ancestry(path):
        if found is None or found.path in kinds:
            yield kinds[found.path] if found else None


def _subclasses(cls: type[Option]) -> Iterator[type[Option]]:
    yield cls
    for each in cls.__subclasses__():
        yield from _subclasses(each)


def _option(kind: type[Option], call: ast.Call) -> Option:
    """Make the option that a call declares; of one that is no literal, only the name is known."""
    keywords = {each.arg: each.value for each in call.keywords}
    try:
        chosen = {name or "": _literal(value) for name, value in keywords.items()}
        return kind(*map(_literal, call.args), **chosen)
    except (KeyError, *_NOT_PYTHON, TypeError):
        return Option(object, "", default=None if {"default", None} & {*keywords} else Empty)


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal, or types such as `int | None`."""
    if isinstance(node, ast.Name):
        return {"bool": bool, "float": float, "int": int, "str": str}[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _literal(node.left) | _literal(node.right)
    return ast.literal_eval(node)


class _Class(NamedTuple):
    path: str
    node: ast.ClassDef


def _ancestry(path: str, seen: tuple[str, ...] = ()) -> Iterator[_Class | None]:
    """Yield the class and those that it inherits from; None for each that its source hides."""
    found = _class_at(path)
    if found is None or path in seen:
        yield None
        return
    yield found
    module = found.path.rpartition(".")[0]
    for base in found.node.bases:
        name = _dotted(base.value if isinstance(base, ast.Subscript) else base)
        if not hasattr(builtins, name):
            yield from _ancestry(_resolved(module, name), (*seen, path))


def _class_at(path: str, seen: tuple[str, ...] = ()) -> _Class | None:
    """Find the definition of a class, through the imports of modules."""
    module, _, name = path.rpartition(".")
    file = _source(module)
    if file is None or path in seen:
        return None
    try:
        tree = _tree(file)
    except _NOT_PYTHON:
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Class(path, node)
    origin = _resolved(module, name)
    return _class_at(origin, (*seen, path)) if origin != path else None


def _resolved(module: str, name: str) -> str:
    """Return the dotted path of what `module` calls `name`, which may have dots."""
    first, dot, rest = name.partition(".")
    file = _source(module)
    for node in _tree(file).body if file else ():
        for alias in getattr(node, "names", ()):
            if isinstance(node, ast.Import) and (alias.asname or alias.name) in {first, name}:
                return f"{alias.name}{dot}{rest}" if alias.asname else name
            if isinstance(node, ast.ImportFrom) and (alias.asname or alias.name) == first:
                return f"{_origin(module, file, node)}.{alias.name}{dot}{rest}"
            if isinstance(node, ast.Import) and alias.name.partition(".")[0] == first:
                return name
    return f"{module}.{name}"


def _origin(module: str, file: Path | None, node: ast.ImportFrom) -> str:
    """Return the module that an import is from; one dot is the module's own package."""
    parts = module.split(".")
    n_above = node.level - (1 if file and file.stem == "__init__" else 0)
    above = parts[: len(parts) - n_above] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _tree(file: Path) -> ast.Module:
    return _parsed(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _parsed(file: Path, written: int) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


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


@parameters
class ClassPath:
    """A class of the user's own and its `options`; `type` is its dotted path."""

    role: ClassVar[Role]

    type: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @field_validator("type")
    @classmethod
    def _defined(cls, path: str) -> str:
        message = class_problem(path, cls.role)
        refuse([ValueProblem((), message)] if message else [], path)
        return path

    def imported(self) -> Any:
        """Import the class.

        Raises:
            InputError: if there is none, its module cannot be imported, or it has another role.
        """
        found = imported(self.type)
        if problem := self.role.problem(found):
            raise InputError(f"{self.type!r} {problem}")
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
        try:
            return cls(*arguments, **self.options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.type} does not take its options: {error}") from error
