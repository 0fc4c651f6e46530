"""The code that a stage depends on, found by its imports without running any of it.

`[tool.jemtrack.code]` in pyproject.toml says how the list is kept short: of the modules under
`folders`, the whole folder is listed; those under `watchers`, which only watch or check and can
change no result, are left out.
"""

import ast
import os
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jemtrack.errors import InputError
from jemtrack.parameters import format_value

if TYPE_CHECKING:
    from grimp import ImportGraph

SOURCE = "src"
PACKAGE = __name__.partition(".")[0]
_CONFIG = Path("pyproject.toml")


class CodeRules(NamedTuple):
    """How imports become dependencies: names of packages and modules, such as `jemtrack.train`."""

    folders: tuple[str, ...] = ()
    watchers: tuple[str, ...] = ()


def code_deps(modules: Iterable[str], package: str = PACKAGE) -> list[str]:
    """List the source files and folders that `modules` use, relative to the working directory.

    Modules from outside of the project's `package` add none. An import within a function counts,
    one for type checkers alone (`if TYPE_CHECKING:`) does not. What a watcher imports is not
    followed. An `__init__.py` is listed if it has code.

    Raises:
        InputError: when one of the project's files is not valid Python, when there is no source
            here, or when pyproject.toml has rules of another form.
    """
    source = source_folder()
    graph, rules = _import_graph(package), code_rules(source.parent / _CONFIG)
    reached: set[str] = set()
    waiting = {*modules} & graph.modules
    while waiting:
        module = waiting.pop()
        if _holder(f"{module}.__init__", rules.watchers):
            continue
        reached.add(module)
        above = {module.rpartition(".")[0]} & graph.modules
        waiting |= (graph.find_modules_directly_imported_by(module) | above) - reached
    return sorted({path.as_posix() for module in reached for path in _paths(module, source, rules)})


def code_rules(path: Path) -> CodeRules:
    """Read `[tool.jemtrack.code]` of the pyproject.toml at `path`; no rules where it has none.

    Raises:
        InputError: when it holds something else than lists of names.
    """
    if not path.exists():
        return CodeRules()
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    rules = found.get("tool", {}).get("jemtrack", {}).get("code", {})
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
    """Find the project's sources here or above, relative to the working directory.

    Raises:
        InputError: when there are none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / SOURCE).is_dir():
            return Path(os.path.relpath(folder / SOURCE))
    raise InputError(
        f"{Path.cwd()} has no {SOURCE}/, nor has a folder above it: the graph is written in the "
        "project; a notebook gets there by jemtrack.project.notebooks.enter_project()"
    )


def _import_graph(package: str) -> "ImportGraph":
    """Read the imports anew: a notebook may just have exported a module."""
    # A stage that runs comes by here, through ZnTrack's plugin, and asks for no graph.
    import grimp
    from grimp.exceptions import SourceSyntaxError

    try:
        return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    except SourceSyntaxError as error:
        raise InputError(f"{error}: expected valid Python to find imports in") from error


def _paths(module: str, source: Path, rules: CodeRules) -> Iterator[Path]:
    """Find the folder or file that stands for a module; none for an `__init__.py` without code."""
    path = source.joinpath(*(_holder(module, rules.folders) or module).split("."))
    if not path.is_dir():
        yield path.with_suffix(".py")
    elif _holder(module, rules.folders):
        yield path
    elif _has_code(path / "__init__.py"):
        yield path / "__init__.py"


def _holder(module: str, names: Iterable[str]) -> str | None:
    """Find the one of `names` that is `module`, or a package around it."""
    return next((name for name in names if f"{module}.".startswith(f"{name}.")), None)


def _has_code(path: Path) -> bool:
    """Say whether a file holds more than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return not all(isinstance(node, ast.Expr) for node in body)
