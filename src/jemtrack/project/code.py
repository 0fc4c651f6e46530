"""Find the project's own code, and what of it a stage depends on, without running any of it.

The project's own code is the packages in its `src/`. All other code is represented by its version,
in versions.yaml; jemtrack is both, in its own repository the one and elsewhere the other.

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
from jemtrack.files import SOURCE, has_library, search_source
from jemtrack.parameters import format_value, suggestion

if TYPE_CHECKING:
    from grimp import ImportGraph

PACKAGE = __name__.partition(".")[0]
_CONFIG = Path("pyproject.toml")
_SETTINGS = ("code", "workflow")  # of its [tool.jemtrack]


class CodeRules(NamedTuple):
    """The `folders` and `watchers` of pyproject.toml: dotted names, such as `jemtrack.train`."""

    folders: tuple[str, ...] = ()
    watchers: tuple[str, ...] = ()


def code_deps(modules: Iterable[str]) -> list[str]:
    """List the source files and folders that `modules` use, relative to the working directory.

    Modules outside of `src/` are ignored. An import inside a function counts, one under
    `if TYPE_CHECKING:` does not. The imports of a watcher are not followed. An `__init__.py` is
    listed if it contains code.

    Raises:
        InputError: if a source file is not valid Python or its folder has no `__init__.py`, if the
            working directory is not in a project, or if the rules in pyproject.toml are malformed.
    """
    source = source_folder()
    if not (packages := own_packages(source)):
        return []
    graph, rules = _import_graph(source, packages), code_rules(source.parent / _CONFIG)
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
    for name, value in (rules := _settings(path, "tool", "jemtrack", "code")).items():
        if name not in CodeRules._fields:
            raise InputError(f"{path}: tool.jemtrack.code has folders and watchers, got {name!r}")
        if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            raise InputError(
                f"{path}: tool.jemtrack.code.{name} must be a list of modules, "
                f"got {format_value(value)}"
            )
    return CodeRules(**{name: tuple(value) for name, value in rules.items()})


def own_packages(source: Path) -> list[str]:
    """List the packages in the folder `source`, by name; none if there is no such folder."""
    return sorted(path.parent.name for path in source.glob("*/__init__.py"))


def workflow_module(source: Path) -> str:
    """Name the module that declares the project's graph: `workflow` of the package in `source`.

    `workflow` under `[tool.jemtrack]` in pyproject.toml names another.

    Raises:
        InputError: if it must be named there, since `source` has no package or several.
    """
    path = source.parent / _CONFIG
    settings = _settings(path, "tool", "jemtrack")
    for name in settings:
        if name not in _SETTINGS:
            raise InputError(
                f"{path}: tool.jemtrack has no {name!r}; {suggestion(name, _SETTINGS)}"
            )
    if not (packages := own_packages(source)):
        raise InputError(f"{source} has no package: `jemtrack init` makes a project with one")
    chosen = settings.get("workflow")
    if chosen is None and len(packages) == 1:
        return f"{packages[0]}.workflow"
    if isinstance(chosen, str) and chosen.partition(".")[0] in packages:
        return chosen
    raise InputError(
        f"{path}: tool.jemtrack.workflow must be a module of {' or '.join(packages)}, such as "
        f"{packages[0]}.workflow, got {'nothing' if chosen is None else format_value(chosen)}"
    )


def _settings(path: Path, *names: str) -> dict[str, Any]:
    """Read the table under these `names` of the TOML file at `path`; it is empty if there is none.

    Raises:
        InputError: if the file is not TOML, or there is something else than a table.
    """
    if not path.exists():
        return {}
    try:
        found: Any = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    for name in names:
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise InputError(f"{path}: {name} must be a table, got {format_value(found)}")
    return dict(found)


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


def _import_graph(source: Path, packages: list[str]) -> "ImportGraph":
    """Parse the imports, without a cache: a notebook may have just exported a module."""
    search_source(source)  # grimp looks for packages where Python does
    if not has_library(source):  # whose template is no part of its package
        _check_folders(source, packages)
    # Every running stage imports this module through ZnTrack's plugin, but only `write_graph`
    # and `jemtrack check` need grimp.
    import grimp
    from grimp.exceptions import SourceSyntaxError

    try:
        return grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    except SourceSyntaxError as error:
        raise InputError(f"{error}: expected valid Python, whose imports can be read") from error


def _check_folders(source: Path, packages: list[str]) -> None:
    """Refuse a folder of modules that Python imports, but whose imports grimp does not see."""
    for package in packages:
        for folder in sorted({path.parent for path in (source / package).rglob("*.py")}):
            if not (folder / "__init__.py").exists():
                raise InputError(
                    f"{folder} has no __init__.py, so that no stage would depend on its modules: "
                    "add an empty one"
                )


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
