"""What the result of a training or stage depends on, as it is now, and what has changed since.

DVC hashes parameters, code and data after a stage has run, and so would record an edit that was
made meanwhile as what the result was made from. A stage therefore compares both moments itself.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pathspec

from jemtrack.errors import InputError
from jemtrack.files import atomic_write, file_digest
from jemtrack.project.params import (
    DECISIVE,
    DVC,
    PARAMS,
    VERSIONS,
    ZNTRACK,
    read_parameters,
    read_stages,
)
from jemtrack.shared.plain import plain
from jemtrack.train.checkpoint import FORMAT

if TYPE_CHECKING:  # its import takes a while
    from jemtrack.train.recipe import Recipe

SCRATCH = ".jemtrack"
ROOT_VARIABLE = "JEMTRACK_ROOT"
RECIPES = "recipes/"  # before the name of a recipe file that is trained outside of DVC
_RECORD = "determined_by.json"
_ABSENT: Any = object()


def project_root() -> Path:
    """Return the folder of dvc.yaml in the user's project, even if DVC runs a copy of the project.

    It is the root of the project, or the folder of another graph in it.
    """
    here = Path.cwd()
    # In a temporary copy, DVC sets its variable to the root of the original project; in the clone
    # of a worker, which for an experiment sets it to the clone, the worker sets ours.
    original = os.environ.get(ROOT_VARIABLE) or os.environ.get("DVC_ROOT")
    if original is None:
        return Path()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    return Path(original) / here.relative_to(root)


def scratch_folder() -> Path:
    """Return the folder of all unfinished trainings of the project."""
    return project_root() / SCRATCH


def scratch_key(determining: Any) -> str:
    """Compute the key of a training: a digest of all that determines it, serialised as JSON."""
    text = json.dumps(determining, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclasses.dataclass  # not frozen: Fabric hands no frozen one to the processes that it starts
class Determinants:
    """All that the result of `stage` depends on.

    Attributes:
        stage: name of the stage; of a recipe file trained outside of DVC, `recipes/<name>`.
        parameters: the parameters as the stage reads them.
        values: the stage's section of params.yaml, to name differences to a person.
        contents: digests of the stage's dependencies, by path.
        format: version of the checkpoints' format.
    """

    stage: str
    parameters: Mapping[str, Any]
    values: Mapping[str, Any]
    contents: Mapping[str, str]
    format: int = FORMAT

    @property
    def folder(self) -> Path:
        """The folder of such a training, and of no other."""
        key = scratch_key([self.format, self.stage, self.parameters, self.contents])
        return scratch_folder() / f"{self.stage}-{key}"

    def write(self) -> None:
        """Write this to the folder, so that `jemtrack scratch` can name what has changed."""
        text = json.dumps(dataclasses.asdict(self), indent=1, default=str)
        atomic_write(self.folder / _RECORD, lambda unfinished: unfinished.write_text(text))

    def changes(self) -> list[str]:
        """Name the parameters and files that differ now, by path."""
        if self.stage.startswith(RECIPES):
            return self._differences(self.values, content_digests(self.contents))
        try:
            if self.stage not in read_stages():
                return [f"the stage {self.stage} of {DVC}"]
            values = read_parameters().get(self.stage) or {}
            return self._differences(values, dep_digests(self.stage))
        except InputError as error:
            return [str(error)]

    def _differences(self, values: Mapping[str, Any], contents: Mapping[str, str]) -> list[str]:
        paths = sorted({*contents, *self.contents})
        return [
            *_changed_values(self.values, values),
            *(path for path in paths if contents.get(path) != self.contents.get(path)),
        ]


def determinants(stage: str, chosen: Mapping[str, Any]) -> Determinants | None:
    """Collect what determines a stage with the `chosen` parameters; None without such a stage.

    Raises:
        InputError: if dvc.yaml or params.yaml is missing or broken.
    """
    if not DVC.exists() or stage not in read_stages():
        return None
    values = read_parameters().get(stage) or {}
    return Determinants(stage, plain(chosen), values, dep_digests(stage))


def recipe_determinants(
    name: str, parameters: Mapping[str, Any], recipe: "Recipe", paths: Iterable[Path]
) -> Determinants:
    """Collect what determines a recipe's training outside of DVC: `paths` and all code."""
    used = [path for step in recipe.steps for path in step.class_paths]
    used += [str(each["type"]) for each in recipe.callbacks if "." in str(each["type"])]
    code = [*sorted(Path(__file__).parents[1].rglob("*.py")), *own_code(used)]
    versions = {package: version(package) for package in DECISIVE}
    return Determinants(
        stage=f"{RECIPES}{name}",
        parameters={**parameters, "versions": versions},
        values={},
        contents=content_digests(map(str, [*paths, *code])),
    )


def read_determinants(folder: Path) -> Determinants | None:
    """Read the determinants in a training's folder; return None if there are none to read."""
    try:
        return Determinants(**json.loads((folder / _RECORD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def dep_digests(stage: str) -> dict[str, str]:
    """Compute the digest of each dependency of the stage in dvc.yaml, code and versions included.

    The digest of a folder covers the names and contents of its files, as DVC's does: without
    those that .dvcignore names.
    """
    return content_digests([*read_stages()[stage].get("deps", []), str(VERSIONS)])


def content_digests(paths: Iterable[str]) -> dict[str, str]:
    """Compute the digest of each file or folder that exists."""
    return {path: _digest(Path(path)) for path in paths if Path(path).exists()}


def own_code(modules: Iterable[str]) -> list[Path]:
    """List the source files of the packages that `modules` are in; of installed ones, none."""
    installed = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]
    files: list[Path] = []
    for package in sorted({module.partition(".")[0] for module in modules}):
        spec = find_spec(package)
        folders = [Path(each) for each in (spec.submodule_search_locations or ())] if spec else []
        files += [file for folder in folders for file in sorted(folder.rglob("*.py"))]
        files += [Path(spec.origin)] if spec and spec.origin and not folders else []
    return [file for file in files if not any(file.is_relative_to(each) for each in installed)]


def environment() -> dict[str, str]:
    """Describe what a result depends on beside its inputs: versions, and the processor.

    PyTorch chooses its kernels by the processor, whose sums differ in the last digits.
    """
    found = {"python": platform.python_version(), "processor": _processor()}
    for name in ("jemtrack", *DECISIVE):
        with contextlib.suppress(PackageNotFoundError):  # jemtrack may be a folder on the path
            found[name] = version(name)
    if torch := sys.modules.get("torch"):
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    """Return the processor's name; Python itself knows its family alone."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment_differences(environments: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say in what the environments of results, by stage, differ; a line for each such thing."""
    names = dict.fromkeys(name for found in environments.values() for name in found)
    lines = []
    for name in names:
        stages: dict[str, list[str]] = {}
        for stage, found in environments.items():
            if name in found:
                stages.setdefault(found[name], []).append(stage)
        if len(stages) > 1:
            sides = (f"{value} ({', '.join(made)})" for value, made in stages.items())
            lines.append(f"made with another {name}: {'; '.join(sides)}")
    return lines


def refuse_edits_since(started: float, stage: str) -> None:
    """Check that parameters and code are still those that this process has read.

    Raises:
        InputError: if a file was changed since the time `started`, before anything was read.
    """
    code = (path for dep in map(Path, read_stages()[stage].get("deps", [])) for path in _code(dep))
    for path in (PARAMS, DVC, ZNTRACK, VERSIONS, *code):
        # Not the time of the content, which a copy keeps; a clock that was set back proves nothing.
        if path.exists() and started < path.stat().st_ctime <= time.time():
            raise InputError(
                f"{path} was changed while the stage started, which may have read either version "
                "of it: run it again"
            )


def _code(dep: Path) -> Iterator[Path]:
    yield from dep.rglob("*.py") if dep.is_dir() else [dep] if dep.suffix == ".py" else []


def _digest(path: Path) -> str:
    if path.is_file():
        return _file_digest(path)
    ignored = _ignored()
    files = [each for each in sorted(path.rglob("*")) if each.is_file()]
    return scratch_key(
        [
            (each.relative_to(path).as_posix(), _file_digest(each))
            for each in files
            if not ignored.match_file(each)
        ]
    )


def _ignored() -> pathspec.GitIgnoreSpec:
    """Read the .dvcignore of the project, whose root may be above the working directory."""
    paths = (folder / ".dvcignore" for folder in (Path.cwd(), *Path.cwd().parents))
    path = next((each for each in paths if each.exists()), None)
    lines = path.read_text().splitlines() if path else []
    return pathspec.GitIgnoreSpec.from_lines([*lines, "__pycache__"])


def _file_digest(path: Path) -> str:
    found = path.stat()
    return _digest_of_version(
        path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


@functools.cache
def _digest_of_version(path: Path, *version: int) -> str:
    """Read a file once in each of its versions: data sets take a second a gigabyte."""
    return file_digest(path)


def _changed_values(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str = ""
) -> list[str]:
    """Name the parameters that were changed, added or removed."""
    found = []
    for name in {**now, **before}:
        old, value = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if isinstance(value, dict) and isinstance(old, dict):
            found += _changed_values(old, value, f"{where}{name}.")
        elif value != old:
            found.append(f"{where}{name}")
    return found
