"""How a node becomes a stage in dvc.yaml, over ZnTrack's own conversion.

`zntrack.Project.build()` comes by here too, but writes the files anew: hand edits are lost.
`write_graph` keeps them.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import zntrack
from zntrack.config import FIELD_TYPE, FieldTypes
from zntrack.plugins.dvc_plugin import DVCPlugin

from jemtrack.errors import InputError
from jemtrack.project.code import PACKAGE, SOURCE, code_deps, source_folder
from jemtrack.project.params import VERSIONS

# The order of a stage's keys for those who read it: what it runs, reads and writes.
_KEYS = ("cmd", "always_changed", "deps", "params", "outs", "metrics", "plots")


class StagePlugin(DVCPlugin):  # type: ignore[misc]
    """Adds to ZnTrack's stage its code, and keeps what differs in every run out of the metrics."""

    def convert_to_dvc_yaml(self) -> dict[str, Any]:
        """Give what ZnTrack asks for: `emit`, with the parameters that the node holds."""
        return self.emit(self.parameters())

    def parameters(self) -> dict[str, Any]:
        """Give the stage's section of params.yaml; it is empty where there are no parameters."""
        found = self.convert_to_params_yaml()
        return found if isinstance(found, dict) else {}

    def emit(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Give `stages`, the one stage, and `plots`, a list of those that stand beside it.

        Some of the stage's inputs follow from the `parameters` that it is to have.

        Raises:
            InputError: when the class or an object of its fields is where `dvc repro` cannot
                find it, or is not valid Python.
        """
        emitted = super().convert_to_dvc_yaml()
        stage: dict[str, Any] = emitted["stages"]
        # ZnTrack's own record of the inputs reads dvc.lock while others write it: it can hang.
        stage["cmd"] += " --no-save-lockfile"
        meta = (self.node.nwd / "node-meta.json").as_posix()
        stage["metrics"] = [entry for entry in stage["metrics"] if _path(entry) != meta]
        stage["outs"] = sorted([*stage.get("outs", []), meta], key=_path)
        code = code_deps([*_modules(self.node), *self.node.code_modules(parameters)])
        inputs = self.node.input_paths(parameters)
        stage["params"] = [*stage.get("params", []), {VERSIONS.as_posix(): None}]
        stage["deps"] = sorted({*stage.get("deps", []), *inputs, *code})
        declared = self._plots()
        curves = [entry for entry in declared if _has_curves(entry)]
        # DVC knows several curves in one plot only beside the stages; other plots are outs of
        # their stage, where they are also found when their path is asked for.
        stage["plots"] = [entry for entry in declared if entry not in curves]
        plots = {_path(entry) for entry in stage["plots"]}
        stage["outs"] = [entry for entry in stage["outs"] if _path(entry) not in plots]
        ordered = {key: stage[key] for key in _KEYS if stage.get(key)}
        return {"stages": ordered, "plots": [*emitted["plots"], *curves]}

    def _plots(self) -> list[str | dict[str, Any]]:
        """Describe the outs that were declared as plots, each under its path; of images, that."""
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
    """Name the modules of the node's class and of the objects that its fields hold."""
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
    for module in modules:
        package = module.partition(".")[0]
        # The one package that runs from the folder that one stands in: see its __init__.py.
        source = source_folder()
        own = (source / package).is_dir() or (source / f"{package}.py").is_file()
        if own and package != PACKAGE:
            raise InputError(
                f"{type(node).__name__} needs {module} in {SOURCE}/, where a queued experiment "
                f"would not find its own copy of it: move it into {SOURCE}/{PACKAGE}/"
            )
    return modules


def _objects(value: Any) -> Iterator[Any]:
    """Find the dataclass instances in a field's value: in lists, mappings and one another."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple | set):
        for entry in value:
            yield from _objects(entry)
    elif dataclasses.is_dataclass(value):
        yield value
        # Another node stands for its outs: what it was made of is its own concern.
        if not isinstance(value, zntrack.Node):
            for field in dataclasses.fields(value):
                yield from _objects(getattr(value, field.name))


def _path(entry: str | dict[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _has_curves(entry: str | dict[str, Any]) -> bool:
    return isinstance(entry, dict) and isinstance(next(iter(entry.values())).get("y"), list)
