"""Print the metrics of the models side by side, and the run time and memory of each stage."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jemtrack.documents import parse_json, read_text
from jemtrack.errors import InputError

_WITHOUT_TERMINAL = 120


def table_console() -> Console:
    """Return a console as wide as the terminal, or 120 columns if there is no terminal.

    rich takes a notebook for a terminal, because Jupyter sets `FORCE_COLOR`; `isatty` does not.
    """
    return Console(width=None if sys.stdout.isatty() else _WITHOUT_TERMINAL)


NODES = Path("nodes")


def show(console: Console | None = None) -> None:
    """Print the metrics of each evaluation, and the seconds and peak memory (MiB) of each stage.

    Raises:
        InputError: if there are no results yet.
    """
    console = console or table_console()
    costs = {path.parent.name: _read(path) for path in sorted(NODES.glob("*/resources.json"))}
    if not costs:
        raise InputError(f"{NODES}/ has no results yet: run `dvc repro`")
    for path in sorted(NODES.glob("*/metrics.json")):
        content = _read(path)
        if content and all(isinstance(entry, dict) for entry in content.values()):
            console.print(_by_measure(path.parent.name, content))
    console.print(_by_stage(costs))


def _by_measure(title: str, models: dict[str, dict[str, Any]]) -> Table:
    """Build a table with a column per model and a row per measure."""
    table = Table(title, *models)
    # Nested values, such as AUROC by outliers and score, are left to the report.
    for measure in _names(models.values()):
        table.add_row(measure, *(_cell(each.get(measure)) for each in models.values()))
    return table


def _by_stage(costs: dict[str, dict[str, Any]]) -> Table:
    columns = _names(costs.values())
    table = Table("stage", *columns)
    for name, row in costs.items():
        table.add_row(name, *(_cell(row.get(column)) for column in columns))
    return table


def _names(rows: Iterable[dict[str, Any]]) -> list[str]:
    found = (name for row in rows for name, value in row.items() if not _is_nested(value))
    return list(dict.fromkeys(found))


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return "" if value is None else str(value)


def _read(path: Path) -> dict[str, Any]:
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold names and values: `dvc checkout` restores it")
    return content
