"""Convert a node to a stage of dvc.yaml, based on ZnTrack's own conversion.

`zntrack.Project.build()` uses this plugin too, but overwrites the files: edits by hand are lost.
`write_graph` keeps them.
"""

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import zntrack
from zntrack.config import FIELD_TYPE, FieldTypes
from zntrack.plugins.dvc_plugin import DVCPlugin

from jemtrack.errors import InputError
from jemtrack.files import SOURCE, has_library
from jemtrack.project.code import PACKAGE, code_deps, own_packages, source_folder
from jemtrack.project.params import VERSIONS

# The order of a stage's keys, for readers: what it runs, reads and writes.
_KEYS = ("cmd", "desc", "always_changed", "deps", "params", "outs", "metrics", "plots")


class StagePlugin(DVCPlugin):  # type: ignore[misc]
    """Add the code to the dependencies of ZnTrack's stage; keep ZnTrack's metadata out of metrics.

    ZnTrack lists its `node-meta.json`, which differs in every run, as a metric.
    """

    def convert_to_dvc_yaml(self) -> dict[str, Any]:
        """Return `emit` for the parameters that the node holds; ZnTrack calls this."""
        return self.emit(self.parameters())

    def parameters(self) -> dict[str, Any]:
        """Return the stage's section of params.yaml; empty if it has no parameters."""
        found = self.convert_to_params_yaml()
        return found if isinstance(found, dict) else {}

    def emit(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stage under `stages`, and what it adds to `plots` and `artifacts` of dvc.yaml.

        Some of the stage's inputs depend on its `parameters`. Curves of the same name of several
        stages share a plot.

        Raises:
            InputError: if `dvc repro` cannot import the class of the node or of an object in its
                fields, or if a source file is not valid Python.
        """
        emitted = super().convert_to_dvc_yaml()
        stage: dict[str, Any] = emitted["stages"]
        if has_library(source_folder()):
            # ZnTrack would read dvc.lock to record the inputs, and hang while DVC has it locked.
            stage["cmd"] += " --no-save-lockfile"
        else:
            # It does not record them either, and finds the project's own packages.
            stage["cmd"] = stage["cmd"].replace("zntrack run ", "jemtrack stage ", 1)
        meta = (self.node.nwd / "node-meta.json").as_posix()
        stage["metrics"] = [entry for entry in stage["metrics"] if _path(entry) != meta]
        stage["outs"] = sorted([*stage.get("outs", []), meta], key=_path)
        code = code_deps([*_modules(self.node), *self.node.code_modules(parameters)])
        inputs = self.node.input_paths(parameters)
        stage["params"] = [*stage.get("params", []), {VERSIONS.as_posix(): None}]
        stage["deps"] = sorted({*stage.get("deps", []), *inputs, *code})
        declared = self._plots()
        curves = [entry for entry in declared if isinstance(entry, dict) and _has_curves(entry)]
        stage["desc"] = _summary(type(self.node))
        # DVC draws several curves in one plot only for top-level plots. All others are outs of
        # their stage, where `dvc plots show <path>` finds them.
        stage["plots"] = [entry for entry in declared if entry not in curves]
        plots = {_path(entry) for entry in stage["plots"]}
        stage["outs"] = [entry for entry in stage["outs"] if _path(entry) not in plots]
        ordered = {key: stage[key] for key in _KEYS if stage.get(key)}
        overlays = [plot for entry in curves for plot in _overlays(*next(iter(entry.items())))]
        plots_of_all = [*emitted["plots"], *overlays]
        return {"stages": ordered, "plots": plots_of_all, "artifacts": self._artifacts()}

    def _artifacts(self) -> dict[str, Any]:
        """Return the out that is declared as an artifact, by a name that DVC's registry allows."""
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", self.node.name).lower()
        for field in dataclasses.fields(self.node):
            if kind := field.metadata.get("artifact"):
                return {name: {"path": getattr(self.node, field.name).as_posix(), "type": kind}}
        return {}

    def _plots(self) -> list[str | dict[str, Any]]:
        """Return the outs declared as plots: {path: options}, or the path alone for images."""
        declared = (
            (field.name, field.metadata.get("plot")) for field in dataclasses.fields(self.node)
        )
        paths = [
            (getattr(self.node, name).as_posix(), options)
            for name, options in declared
            if options is not None
        ]
        return [{path: copy.deepcopy(options)} if options else path for path, options in paths]


def _modules(node: zntrack.Node) -> list[str]:
    """Return the modules of the node's class and of the objects in its fields."""
    holders = [node]
    for field in dataclasses.fields(node):
        if field.metadata.get(FIELD_TYPE) == FieldTypes.DEPS:
            holders += _objects(getattr(node, field.name))
    for holder in holders:
        if type(holder).__module__ == "__main__":
            raise InputError(
                f"{type(holder).__name__} is defined in a notebook or script, where "
                "`dvc repro` cannot find it: export it to a module (`#| export` and "
                "jemtrack.project.notebooks.export), and import it from there"
            )
    modules = [type(holder).__module__ for holder in holders]
    source = source_folder()
    # `zntrack run` of jemtrack's own repository searches no other package there.
    packages = [PACKAGE] if has_library(source) else own_packages(source)
    for module in modules:
        package = module.partition(".")[0]
        own = (source / package).is_dir() or (source / f"{package}.py").is_file()
        if own and package not in packages:
            where = f"{SOURCE}/{packages[0] if packages else 'my_study'}/"
            raise InputError(
                f"{type(node).__name__} imports {module} from {SOURCE}/, where it is in no package "
                f"whose modules a stage depends on: move it into {where}"
            )
    return modules


def _objects(value: Any) -> Iterator[Any]:
    """Yield the dataclass instances in a field's value, nested ones included."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple | set):
        for entry in value:
            yield from _objects(entry)
    elif dataclasses.is_dataclass(value):
        yield value
        # Another node is an input by its outs; its own fields are not code of this stage.
        if not isinstance(value, zntrack.Node):
            for field in dataclasses.fields(value):
                yield from _objects(getattr(value, field.name))


def _path(entry: str | dict[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _summary(cls: type) -> str:
    """Return the first line of a class's docstring; none for the signature that dataclasses add."""
    doc = cls.__doc__ or ""
    return "" if doc.startswith(f"{cls.__name__}(") else doc.strip().partition("\n")[0]


def _overlays(path: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plot for each of the file's columns, in which other files may draw theirs."""
    for column in options["y"]:
        yield {column: {**options, "y": {path: column}}}


def _has_curves(entry: dict[str, Any]) -> bool:
    return isinstance(next(iter(entry.values())).get("y"), list)
