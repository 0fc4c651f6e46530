"""How a node becomes a stage in dvc.yaml, over ZnTrack's own conversion."""

import dataclasses
from typing import Any

from zntrack.config import FIELD_TYPE, FieldTypes
from zntrack.plugins.dvc_plugin import DVCPlugin

from jemtrack.errors import InputError
from jemtrack.graph.code import code_files


class StagePlugin(DVCPlugin):  # type: ignore[misc]
    """Adds to ZnTrack's stage its code, and keeps what differs in every run out of the metrics."""

    def convert_to_dvc_yaml(self) -> dict[str, Any]:
        """Give the stage, and the plots that stand beside it.

        Raises:
            InputError: when the class or an object of its fields was defined in a script or a
                notebook, where `dvc repro` cannot find it.
        """
        emitted: dict[str, Any] = super().convert_to_dvc_yaml()
        stage = emitted["stages"]
        # ZnTrack's own record of the inputs reads dvc.lock while others write it: it can hang.
        stage["cmd"] += " --no-save-lockfile"
        meta = (self.node.nwd / "node-meta.json").as_posix()
        stage["metrics"] = [entry for entry in stage["metrics"] if meta not in entry]
        if not stage["metrics"]:
            del stage["metrics"]
        stage["outs"] = sorted([*stage.get("outs", []), meta], key=_path)
        code = code_files(self._modules())
        stage["deps"] = sorted({*stage.get("deps", []), *code})
        emitted["plots"] += self._plots()
        return emitted

    def _plots(self) -> list[dict[str, Any]]:
        """Describe the outs that were declared as plots, each under its path."""
        declared = (
            (field.name, field.metadata.get("plot")) for field in dataclasses.fields(self.node)
        )
        return [
            {getattr(self.node, name).as_posix(): options} for name, options in declared if options
        ]

    def _modules(self) -> list[str]:
        """Name the modules of the node's class and of the objects that its fields hold."""
        holders = [self.node]
        for field in dataclasses.fields(self.node):
            if field.metadata.get(FIELD_TYPE) == FieldTypes.DEPS:
                holders.append(getattr(self.node, field.name))
        modules = [type(holder).__module__ for holder in holders]
        for holder, module in zip(holders, modules, strict=True):
            if module == "__main__":
                raise InputError(
                    f"{type(holder).__name__} is defined in a notebook or script, where "
                    "`dvc repro` cannot find it: export it to a module (jemtrack.notebook.export) "
                    "and import it from there"
                )
        return modules


def _path(entry: str | dict[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))
