"""Which of the project's own files a stage runs, read from the imports without running any."""

from collections.abc import Iterable
from pathlib import Path

import grimp
from grimp.exceptions import SourceSyntaxError

from jemtrack.errors import InputError

SOURCE = Path("src")
PACKAGE = __name__.partition(".")[0]


def code_files(modules: Iterable[str], package: str = PACKAGE) -> list[str]:
    """List the source files that `modules` reach by imports, relative to the project's root.

    Modules from outside of the project's `package` bring none. A package's `__init__.py` is run
    by an import of what lies in it, so it is listed, and what it imports with it. An import
    within a function counts; one for type checkers alone (`if TYPE_CHECKING:`) does not.

    Raises:
        InputError: when one of the project's files is not valid Python.
    """
    graph = _import_graph(package)
    reached: set[str] = set()
    waiting = {*modules} & graph.modules
    while waiting:
        module = waiting.pop()
        reached.add(module)
        above = {module.rpartition(".")[0]} & graph.modules
        waiting |= (graph.find_modules_directly_imported_by(module) | above) - reached
    return sorted(_file(module) for module in reached)


def _import_graph(package: str) -> grimp.ImportGraph:
    """Read the imports anew: a notebook may just have exported a module."""
    try:
        return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    except SourceSyntaxError as error:
        raise InputError(f"{error}: expected valid Python to find imports in") from error


def _file(module: str) -> str:
    path = SOURCE.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).as_posix()
