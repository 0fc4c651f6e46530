"""Export the cells of a notebook as modules of the project's package, which stages can run."""

import ast
import importlib
import importlib.util
import keyword
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyflakes.checker import Checker
from pyflakes.messages import UndefinedName

from jemtrack.errors import InputError
from jemtrack.files import SOURCE, search_source
from jemtrack.project.code import own_packages, workflow_module

_DIRECTIVES = ("default_exp", "export", "exporti", "exports")
_DEFAULT = "#"  # nbdev's name for the module that default_exp names


def enter_project() -> None:
    """Change to the root of the project that the working directory is in.

    The packages in its `src/` can then be imported. The commands of the running Python's
    environment are put on PATH, so that `dvc` is found even if Jupyter was started without
    activating the environment.

    Raises:
        InputError: if neither the working directory nor a folder above it is a project.
    """
    os.chdir(_project_root(Path.cwd()))
    search_source(Path(SOURCE))
    scripts, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + path


def export(path: str | Path) -> list[Path]:
    """Write the exported cells of the notebook at `path` into modules; return their paths.

    The directives are nbdev's: `#| default_exp cubic` names the module of the notebook, in the
    project's package: `src/my_study/cubic.py`, which is imported as `my_study.cubic`. A cell under
    `#| export` goes there, and one under `#| export penalties.cubic` into that module. A first
    cell that is a docstring, or a markdown cell under `#| export`, documents the module. If ruff
    is installed, it sorts the imports and formats. The running Python forgets the modules, so that
    the next import, even in the same kernel, loads the new ones.

    Raises:
        InputError: if the file is not a notebook or exports nothing; if the name of a module
            leads out of the package or belongs to a module from elsewhere; if the code is not
            Python or uses names that no exported cell of its module defines. Then nothing is
            written.
    """
    notebook = Path(path).resolve()
    root = _project_root(notebook.parent)
    package = workflow_module(root / SOURCE).partition(".")[0]
    header = f"# Exported from {notebook.relative_to(root).as_posix()}: edit it there.\n"
    modules = {}
    for name, cells in _cells_by_module(notebook, package).items():
        module = f"{package}.{name}"
        target = _target(root / SOURCE, module, header)
        source = header + "\n" + _source(cells, notebook)
        _check_syntax(source, f"{notebook}: {module}")
        _check_names(source, f"{notebook}: {module}")
        modules[module] = target, _formatted(source, target, root)
    for module, (target, source) in modules.items():
        _write(target, source)
        _forget(module, target)
    return [Path(os.path.relpath(target)) for target, _ in modules.values()]


def _project_root(folder: Path) -> Path:
    for root in (folder, *folder.parents):
        if own_packages(root / SOURCE):
            return root
    raise InputError(
        f"{folder}: neither it nor a folder above it is a project with a package in {SOURCE}/"
    )


def _cells_by_module(notebook: Path, package: str) -> dict[str, list[Any]]:
    """Sort the exported cells, with nbdev, by the names of their modules below the package."""
    from nbdev.export import ExportModuleProc
    from nbdev.process import NBProcessor

    exported = ExportModuleProc()
    try:
        processor = NBProcessor(notebook, exported)
    except OSError as error:
        raise InputError(f"{notebook}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{notebook}: is not a Jupyter notebook of format 4 ({error})") from error
    _check_directives([cell.directives_ for cell in processor.nb.cells], notebook, package)
    processor.process()
    modules: dict[str, list[Any]] = {}
    for name, cells in exported.modules.items():
        # nbdev puts the title of the notebook into the default module, even one without code.
        if any(cell.cell_type == "code" for cell in cells):
            name = exported.default_exp if name == _DEFAULT else name
            modules.setdefault(name, []).extend(cells)
    return {name: sorted(cells, key=lambda cell: cell.idx_) for name, cells in modules.items()}


def _check_directives(directives: list[dict[str, str]], notebook: Path, package: str) -> None:
    given = [(name, cell[name]) for cell in directives for name in _DIRECTIVES if name in cell]
    defaults = [module for name, module in given if name == "default_exp"]
    if all(name == "default_exp" for name, _ in given):
        raise InputError(f"{notebook}: no cell begins with `#| export`: there is nothing to export")
    if len(defaults) > 1:
        raise InputError(
            f"{notebook}: has {len(defaults)} cells with `#| default_exp`, expected one: "
            "a cell for a further module begins with `#| export <module>`"
        )
    for name, module in given:
        if module or name == "default_exp":
            _check_module_name(module, f"{notebook}: `#| {name} {module}`", package)
        elif not defaults:
            raise InputError(
                f"{notebook}: `#| {name}` has no module to go to: name one in it, "
                "or in a cell of its own with `#| default_exp <module>`"
            )


def _check_module_name(module: str, where: str, package: str) -> None:
    parts = module.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise InputError(
            f"{where}: expected the name of a module below {package}, such as stages.my_trainer"
        )
    if parts[0] == package:
        raise InputError(f"{where}: names are below {package}: write {'.'.join(parts[1:])}")


def _target(source: Path, module: str, header: str) -> Path:
    """Return the path of the module; refuse a file that this notebook has not written."""
    target = source.joinpath(*module.split(".")).with_suffix(".py")
    packages = [folder for folder in target.parents if source in folder.parents]
    for taken in (target.with_suffix(""), *(folder.with_suffix(".py") for folder in packages)):
        if taken.exists():
            raise InputError(f"{module}: {taken} has that name: choose another")
    if target.exists() and not target.read_text(encoding="utf-8").startswith(header):
        raise InputError(
            f"{target}: was not exported from this notebook, so it is not overwritten: "
            "choose another name for the module, or delete the file first"
        )
    return target


def _source(cells: list[Any], notebook: Path) -> str:
    """Join the cells into the source of a module, its docstring first."""
    code = [cell.source.strip() for cell in cells if cell.cell_type == "code"]
    for source in code:
        _check_syntax(source, f"{notebook}: the exported cell {source.partition(chr(10))[0]!r} ...")
    prose = [
        cell.source.strip()
        for cell in cells
        if cell.cell_type == "markdown" and "export" in cell.directives_
    ]
    docstring = [f'"""{text}\n"""' if "\n" in text else f'"""{text}"""' for text in prose[:1]]
    return "\n\n\n".join(docstring + code) + "\n"


def _check_syntax(source: str, where: str) -> None:
    try:
        compile(source, where, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise InputError(
            f"{where} is not valid Python for a module: {error.msg}: {(error.text or '').strip()!r}"
            "; commands for the shell and for Jupyter belong in cells that are not exported"
        ) from error


def _check_names(source: str, where: str) -> None:
    """Refuse what works only in the kernel, which runs the cells that are not exported, too."""
    problems = Checker(ast.parse(source)).messages
    missing = {each.message_args[0] for each in problems if isinstance(each, UndefinedName)}
    if missing:
        raise InputError(
            f"{where} uses {', '.join(sorted(missing))}, which none of its exported cells defines: "
            "add `#| export` to the cell that does, or import the name in an exported one"
        )


def _formatted(source: str, target: Path, root: Path) -> str:
    """Sort imports and format as in the other files of the project, if ruff is installed."""
    if importlib.util.find_spec("ruff") is None:
        return source
    for command in (["check", "--fix-only", "--select=I"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", f"--stdin-filename={target}", "-"],
            input=source.encode(),
            cwd=root,
            check=True,
            stdout=subprocess.PIPE,
        )
        source = done.stdout.decode()
    return source


def _write(target: Path, source: str) -> None:
    """Write the module, and the `__init__.py` of a new folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in target.parents:
        if (folder / "__init__.py").exists():
            break
        (folder / "__init__.py").touch()
    target.write_text(source, encoding="utf-8")


def _forget(module: str, target: Path) -> None:
    """Have the next import read the file again."""
    package, _, name = module.rpartition(".")
    sys.modules.pop(module, None)
    if package in sys.modules:
        vars(sys.modules[package]).pop(name, None)
    importlib.invalidate_caches()
    # Python compares whole seconds and the size, so it could take the old .pyc for the new file.
    Path(importlib.util.cache_from_source(str(target))).unlink(missing_ok=True)
