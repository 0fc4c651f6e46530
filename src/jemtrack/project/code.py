"""Which of the project's own files a stage runs, read from the imports without running any."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jemtrack.errors import InputError

if TYPE_CHECKING:
    from grimp import ImportGraph

SOURCE = "src"
PACKAGE = __name__.partition(".")[0]


def code_files(modules: Iterable[str], package: str = PACKAGE) -> list[str]:
    """List the source files that `modules` reach by imports, relative to the working directory.

    Modules from outside of the project's `package` bring none. A package's `__init__.py` is run
    by an import of what lies in it, so it is listed, and what it imports with it. An import
    within a function counts; one for type checkers alone (`if TYPE_CHECKING:`) does not.

    Raises:
        InputError: when one of the project's files is not valid Python, or there are none here.
    """
    source, graph = source_folder(), _import_graph(package)
    reached: set[str] = set()
    waiting = {*modules} & graph.modules
    while waiting:
        module = waiting.pop()
        reached.add(module)
        above = {module.rpartition(".")[0]} & graph.modules
        waiting |= (graph.find_modules_directly_imported_by(module) | above) - reached
    return sorted(_file(source, module) for module in reached)


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


def _file(source: Path, module: str) -> str:
    path = source.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).as_posix()
