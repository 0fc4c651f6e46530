"""List experiments in five columns: `dvc exp show` has one for every parameter, metric and file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import NotDvcRepoError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from jemtrack.commands.tables import table_console
from jemtrack.errors import InputError
from jemtrack.project.params import PARAMS, read_mapping

Row = Mapping[str, Any]
_SHOWN = {"accuracy": "accuracy ↑", "valid_nll": "valid NLL ↓"}


def exps(console: Console | None = None) -> None:
    """Print the commit and its experiments: what was changed, and the models that it changed.

    Raises:
        InputError: if the working directory is not in a DVC project.
    """
    console = console or table_console()
    try:
        found = dvc.api.exp_show()
    except NotDvcRepoError as error:
        raise InputError(f"{Path.cwd()} is not in a DVC project") from error
    rows = [row for row in found if row["rev"] != "workspace"]
    stages = read_mapping(PARAMS) if PARAMS.exists() else {}
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("experiment", "changed", "model", *_SHOWN.values()):
        table.add_column(title, justify="right" if title in _SHOWN.values() else "left")
    for cells in table_rows(rows, [*stages]):
        table.add_row(*cells)
    console.print(table)
    console.print("Compare: jemtrack compare EXPERIMENT; everything: dvc exp show", highlight=False)


def table_rows(rows: Sequence[Row], stages: Sequence[str]) -> Iterator[list[str]]:
    """Yield the five cells of each model of the commit, and of those that an experiment changed.

    `rows` are those of `dvc.api.exp_show`: commits, each followed by its experiments. `stages`
    are the sections of the parameters.
    """
    commit: Row = {}
    for row in rows:
        if row["typ"] == "baseline":
            commit, changed, models = row, "", _models(row)
        else:
            changed = ", ".join(_changed(commit, row, stages))
            before = _models(commit)
            models = {name: each for name, each in _models(row).items() if each != before.get(name)}
        names = [str(row["Experiment"] or row["rev"]), changed]
        if not models:
            state = "no results" if row is commit else row["State"] or "unchanged"
            yield [*names, state.lower(), "", ""]
        for model, measures in models.items():
            yield [*names, model, *(_number(measures.get(key)) for key in _SHOWN)]
            names = ["", ""]


def _models(row: Row) -> dict[str, dict[str, Any]]:
    """Group the metrics of a row by model.

    The keys are such as `nodes/EvaluateX/metrics/MODEL.json:accuracy`, of an evaluation, and
    `nodes/MODEL/metrics.json:valid_nll`, of a trainer. With one model they have no path.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        file, _, measure = key.rpartition(":")
        if measure in _SHOWN and value is not None:
            path = Path(file)
            model = path.parent.name if path.name == "metrics.json" else path.stem
            found.setdefault(model, {})[measure] = value
    return found


def _changed(commit: Row, row: Row, stages: Sequence[str]) -> Iterator[str]:
    for key, value in row.items():
        if key.partition(".")[0] in stages and value != commit.get(key):
            yield f"{key}={value}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
