"""Which of the project's own files a stage runs, read from the imports without running any."""

import functools
from collections.abc import Iterable
from pathlib import Path

import grimp

SOURCE = Path("src")


def code_files(modules: Iterable[str]) -> list[str]:
    """List the source files that `modules` reach by imports, relative to the project's root.

    Modules from outside of the project's `src/` bring none. A package's `__init__.py` is run
    by an import of what lies in it, so it is listed, and what it imports with it.
    """
    reached: set[str] = set()
    waiting = [module for module in modules if _is_own(module)]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        package = module.rpartition(".")[0]
        waiting += [package] if package else []
        waiting += _graph(module.partition(".")[0]).find_modules_directly_imported_by(module)
    return sorted(_file(module).as_posix() for module in reached)


def _is_own(module: str) -> bool:
    package = SOURCE / module.partition(".")[0]
    return package.is_dir() or package.with_suffix(".py").is_file()


@functools.cache
def _graph(package: str) -> grimp.ImportGraph:
    return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)


def _file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
