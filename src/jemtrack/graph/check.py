"""What can be said of the project's files before anything runs."""

from pathlib import Path

import yaml

from jemtrack.errors import InputError
from jemtrack.graph.code import code_files
from jemtrack.stages.parameter_file import (
    check_parameter_file,
    read_graph,
    read_parameters,
    sections,
)


def check() -> None:
    """Check params.yaml, the data set that it names, and that dvc.yaml lists the code in use.

    Raises:
        InputError: with a line for each problem.
    """
    check_parameter_file()
    found = [*_stale_code(), *_missing_data()]
    if found:
        raise InputError("\n".join(found))


def _stale_code() -> list[str]:
    """Find stages whose code gained or lost a file since the graph was written."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    found = []
    for name, entry in read_graph().items():
        if name not in stages:
            continue
        listed = {dep for dep in stages[name].get("deps", []) if str(dep).startswith("src/")}
        modules = [stages[name]["cmd"].split()[2].rpartition(".")[0]]
        modules += [
            field["value"]["module"]
            for field in entry.values()
            if isinstance(field, dict) and field.get("_type") == "@dataclasses.dataclass"
        ]
        if missing := sorted(set(code_files(modules)) - listed):
            found.append(
                f"dvc.yaml: {name}.deps lacks {', '.join(missing)}, which the stage imports: "
                "type `jemtrack graph`, or the node's write_graph()"
            )
    return found


def _missing_data() -> list[str]:
    from jemtrack.data.own import find_source
    from jemtrack.stages.prepare_data import DataArgs

    found = []
    for section in sections(read_graph(), read_parameters()):
        if issubclass(section.cls, DataArgs):
            try:
                find_source(section.values["dataset"], Path(section.values["data_root"]))
            except InputError as error:
                found.append(f"{section.where}.dataset: {error}")
    return found
