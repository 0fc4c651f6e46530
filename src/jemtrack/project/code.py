"""Find the code that a stage depends on from its imports, without running any of it.

`[tool.jemtrack.code]` in pyproject.toml keeps the list short: a module under one of the `folders`
is listed as the whole folder, and a module under one of the `watchers`, which only watch or check
and cannot change a result, is left out.
"""

import ast
import os
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jemtrack.documents import read_text
from jemtrack.errors import InputError
from jemtrack.parameters import format_value

if TYPE_CHECKING:
    from grimp import ImportGraph

SOURCE = "src"
PACKAGE = __name__.partition(".")[0]
_CONFIG = Path("pyproject.toml")


class CodeRules(NamedTuple):
    """The `folders` and `watchers` of pyproject.toml: dotted names, such as `jemtrack.train`."""

    folders: tuple[str, ...] = ()
    watchers: tuple[str, ...] = ()


def code_deps(modules: Iterable[str], package: str = PACKAGE) -> list[str]:
    """List the source files and folders that `modules` use, relative to the working directory.

    Modules outside `package` are ignored. An import inside a function counts, one under
    `if TYPE_CHECKING:` does not. The imports of a watcher are not followed. An `__init__.py` is
    listed if it contains code.

    Raises:
        InputError: if a source file is not valid Python, if the working directory is not in a
            project, or if the rules in pyproject.toml are malformed.
    """
    source = source_folder()
    graph, rules = _import_graph(package), code_rules(source.parent / _CONFIG)
    reached: set[str] = set()
    pending = {*modules} & graph.modules
    while pending:
        module = pending.pop()
        # With the suffix, the name `jemtrack.__init__` covers that one file, not the package.
        if _enclosing(f"{module}.__init__", rules.watchers):
            continue
        reached.add(module)
        # Importing a module runs the `__init__.py` of its package first.
        parent = {module.rpartition(".")[0]} & graph.modules
        pending |= (graph.find_modules_directly_imported_by(module) | parent) - reached
    return sorted({path.as_posix() for module in reached for path in _paths(module, source, rules)})


def listed_paths(modules: Iterable[str]) -> list[str]:
    """List the source file or folder of each module, as `code_deps` does, without their imports."""
    source = source_folder()
    rules = code_rules(source.parent / _CONFIG)
    found = [
        path
        for module in modules
        if not _enclosing(f"{module}.__init__", rules.watchers)
        for path in _paths(module, source, rules)
    ]
    return sorted({path.as_posix() for path in found if path.exists()})


def code_rules(path: Path) -> CodeRules:
    """Read `[tool.jemtrack.code]` of the pyproject.toml at `path`; no rules if it has none.

    Raises:
        InputError: if the section has another key, or a value that is not a list of names.
    """
    if not path.exists():
        return CodeRules()
    try:
        rules: Any = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    for name in ("tool", "jemtrack", "code"):
        rules = rules.get(name, {})
        if not isinstance(rules, dict):
            raise InputError(f"{path}: {name} must be a table, got {format_value(rules)}")
    for name, value in rules.items():
        if name not in CodeRules._fields:
            raise InputError(f"{path}: tool.jemtrack.code has folders and watchers, got {name!r}")
        if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            raise InputError(
                f"{path}: tool.jemtrack.code.{name} must be a list of modules, "
                f"got {format_value(value)}"
            )
    return CodeRules(**{name: tuple(value) for name, value in rules.items()})


def source_folder() -> Path:
    """Find `src/` in the working directory or above it; return its path relative to the former.

    Raises:
        InputError: if there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / SOURCE).is_dir():
            return Path(os.path.relpath(folder / SOURCE))
    raise InputError(
        f"{Path.cwd()} has no {SOURCE}/, and no folder above it has one: write the graph from "
        "within the project; a notebook calls jemtrack.project.notebooks.enter_project() first"
    )


def _import_graph(package: str) -> "ImportGraph":
    """Parse the imports, without a cache: a notebook may have just exported a module."""
    # Every running stage imports this module through ZnTrack's plugin, but only `write_graph`
    # and `jemtrack check` need grimp.
    import grimp
    from grimp.exceptions import SourceSyntaxError

    try:
        return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    except SourceSyntaxError as error:
        raise InputError(f"{error}: expected valid Python, whose imports can be read") from error


def _paths(module: str, source: Path, rules: CodeRules) -> Iterator[Path]:
    """Yield the folder or file to list for a module; nothing for an `__init__.py` without code."""
    path = source.joinpath(*(_enclosing(module, rules.folders) or module).split("."))
    if not path.is_dir():
        yield path.with_suffix(".py")
    elif _enclosing(module, rules.folders):
        yield path
    elif _has_code(path / "__init__.py"):
        yield path / "__init__.py"


def _enclosing(module: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is `module` or a package that contains it."""
    return next((name for name in names if f"{module}.".startswith(f"{name}.")), None)


def _has_code(path: Path) -> bool:
    """Tell whether a file contains more than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return not all(isinstance(node, ast.Expr) for node in body)
