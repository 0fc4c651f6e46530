"""The models side by side, and what each stage took."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jemtrack.errors import InputError

NODES = Path("nodes")


def show(console: Console | None = None) -> None:
    """Print the metrics of each evaluation, and the seconds and memory of each stage.

    Raises:
        InputError: when there are no results yet.
    """
    console = console or Console(width=None if Console().is_terminal else 120)
    costs = {path.parent.name: _read(path) for path in sorted(NODES.glob("*/resources.json"))}
    if not costs:
        raise InputError(f"{NODES}/ holds no results yet: `dvc repro` makes them")
    for path in sorted(NODES.glob("*/metrics.json")):
        content = _read(path)
        if content and all(isinstance(entry, dict) for entry in content.values()):
            console.print(_table(path.parent.name, content))
    console.print(_table("stage", costs))


def _table(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table(title, *columns)
    for name, row in rows.items():
        table.add_row(name, *(_shown(row.get(column)) for column in columns))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return "" if value is None else str(value)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
