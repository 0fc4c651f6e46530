"""Make a new project, which uses jemtrack as a library: `jemtrack init`."""

import contextlib
import importlib.util
import io
import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jemtrack
from jemtrack.commands.data import get_data
from jemtrack.errors import InputError
from jemtrack.files import SOURCE, name_problem, search_source
from jemtrack.project import graph

_HERE = Path(graph.__file__).parent
_TEMPLATE = _HERE / "template"  # a project, with the package my_study
_NAMES = re.compile("my[-_]study")
_VERSION = "0.0.0"  # of jemtrack, in its pyproject.toml
_DVC_FOLDER = _HERE / "dvc_folder"  # the plots that stages name, and a page that needs no network


def init(folder: Path) -> str:
    """Make a project in `folder`, a git and DVC repository; return what to do with it.

    It has the default data and the files of its graph, and nothing is committed. In a git
    repository, it becomes a part of that.

    Raises:
        InputError: if the name of the folder cannot be that of a package, the folder has files
            already, or git or DVC fails.
    """
    folder = folder.absolute()
    package = _package_name(folder.name)
    _check_empty(folder)
    if shutil.which("git") is None:
        raise InputError("git is not installed: DVC's experiments need it")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        _init_repositories()
        for path, content in _files(folder.name, package):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        get_data("digits", Path("data"))
        search_source(Path(SOURCE))
        with contextlib.redirect_stdout(io.StringIO()):  # which files, a new project need not say
            graph.write_graph(graph.declared_nodes())
    return _next_steps(folder, package)


def _package_name(name: str) -> str:
    """Return the name of the package of a project called `name`."""
    package = name.lower().replace("-", "_")
    problem = name_problem(name, dots=False)
    if not problem and not re.fullmatch(r"[A-Za-z](.*[A-Za-z0-9])?", name):
        problem = f"must begin with a letter and end with a letter or digit, got {name!r}"
    elif not problem and keyword.iskeyword(package):
        problem = f"must be another name, got {name!r}: Python has a keyword {package}"
    elif not problem and importlib.util.find_spec(package):
        problem = f"must be another name, got {name!r}: a package {package} is installed already"
    if problem:
        raise InputError(f"the name of a project {problem}")
    return package


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder that does not exist or is empty")
    # An empty clone is a good place.
    found = {each.name for each in folder.iterdir()} - {".git"} if folder.is_dir() else None
    if found:
        raise InputError(
            f"{folder} must not exist or be empty, but has {min(found)}: name another folder; "
            "nothing is overwritten"
        )


def _init_repositories() -> None:
    """Make the working directory a DVC repository, within the git repository that it is in."""
    command = ["git", "rev-parse", "--show-prefix"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        _run("git", "init", "--quiet")
    is_within = bool(asked.stdout.strip())
    _run(sys.executable, "-m", "dvc", "init", "--quiet", *["--subdir"] * is_within)


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"`{' '.join(command)}` failed: see its messages above")


def _files(name: str, package: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the path and the content of each file of the project."""

    def renamed(text: str) -> str:
        return _NAMES.sub(lambda found: name if "-" in found[0] else package, text)

    for source in _files_in(_TEMPLATE):
        path, text = source.relative_to(_TEMPLATE).as_posix(), source.read_text(encoding="utf-8")
        if path == "pyproject.toml":
            text = text.replace(_VERSION, jemtrack.__version__.partition("+")[0])
        yield Path(renamed(path)), renamed(text).encode()
    for source in _files_in(_DVC_FOLDER):
        yield Path(".dvc", source.relative_to(_DVC_FOLDER)), source.read_bytes()


def _files_in(folder: Path) -> list[Path]:
    # An installer compiles the modules of the template, too.
    found = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return sorted(path for path in found if path.is_file())


def _next_steps(folder: Path, package: str) -> str:
    here = Path.cwd()
    steps = [] if folder == here else [f"cd {folder.name if folder.parent == here else folder}"]
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("jemtrack") is None and activate.exists():
        steps.append(f"source {activate}")
    steps += ["make repro", "git add .", 'git commit -m "First results"']
    source = f"{SOURCE}/{package}"
    files = {
        f"{source}/objectives.py": "a penalty of your own",
        f"{source}/stages.py": "its trainer, which is a stage",
        f"{source}/workflow.py": "the graph of all stages",
        "params.yaml": "their parameters",
    }
    width = max(map(len, files))
    return "\n".join(
        [
            f"{folder.name} is a project of git, DVC and jemtrack {jemtrack.__version__}:",
            "",
            *(f"  {path:{width}}  {what}" for path, what in files.items()),
            "",
            "Next, run the graph, and commit its results, from which experiments start:",
            "",
            *(f"  {step}" for step in steps),
        ]
    )
