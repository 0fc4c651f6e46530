"""A class that a file names by its dotted path, looked for without running its module."""

import ast
from importlib.machinery import PathFinder
from pathlib import Path


def class_fault(path: str) -> str:
    """Say why `path`, such as `jemtrack.stages.mine.PseudoHuber`, names no class."""
    module, _, name = path.rpartition(".")
    file = _source(module)
    if file is None:
        return f"must be the dotted path of a class, got {path!r}: there is no module {module!r}"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"cannot be found in {module!r}, which is not valid Python: {error}"
    if name in _names(tree):
        return ""
    return f"must be the dotted path of a class, got {path!r}: {file.name} defines no {name!r}"


def _source(module: str) -> Path | None:
    """Find a module's file as an import would; that of a parent package is not run either."""
    folders: list[str] | None = None
    spec = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return None
        folders = [*(spec.submodule_search_locations or [])]
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _names(tree: ast.Module) -> set[str]:
    """Name the classes of a module, and what it imports: a class may come from elsewhere."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return classes | {alias.asname or alias.name for node in imports for alias in node.names}
