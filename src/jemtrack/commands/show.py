"""Print the models side by side: the main measures, or all of them with each stage's costs."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.box import MARKDOWN, SIMPLE
from rich.console import Console
from rich.table import Table

from jemtrack.commands.tables import table_console
from jemtrack.documents import parse_json, read_text
from jemtrack.errors import InputError
from jemtrack.evaluation.models.outlier_detection import MEAN
from jemtrack.evaluation.models.results import SIGNIFICANT, metrics_of, read_tables
from jemtrack.evaluation.report.summary import LOWER_IS_BETTER, not_worse
from jemtrack.project.provenance import environment_differences

NODES = Path("nodes")
# The headline's columns in their order; they fit 80 characters beside the trainers' names. An arrow
# points to the better end.
MEASURE_LABELS = {
    "accuracy": "accuracy ↑",
    "nll": "NLL ↓",
    "brier": "Brier ↓",
    "ece": "ECE ↓",
    "auroc": "AUROC ↑",
    "corruption": "corrupted ↑",
}
_LEGEND = (
    f"*: best, or not significantly worse (p ≥ {SIGNIFICANT}, Holm), where others are worse",
    "AUROC: mean over the kinds of outliers, by log p~(x)",
    "corrupted: mean accuracy over all corruptions of the test images",
)


Measures = dict[str, dict[str, float]]  # by model and name


class Results(NamedTuple):
    """What the stages under `nodes/` have measured.

    Attributes:
        evaluations: by evaluation, all measures by model.
        others: by stage, such as MeasureRobustness, measures by model, or by what was measured.
        costs: by stage, seconds and memory.
        environments: by stage, versions and the processor, on which a result depends, too.
    """

    evaluations: dict[str, Measures]
    others: dict[str, Measures]
    costs: dict[str, dict[str, float]]
    environments: dict[str, dict[str, str]]


def results() -> Results:
    """Read the results in the working directory.

    Raises:
        InputError: if there are none yet.
    """
    costs = {path.parent.name: _read(path) for path in sorted(NODES.glob("*/resources.json"))}
    if not costs:
        raise InputError(f"{NODES}/ has no results yet: run `dvc repro`")
    environments = {stage: found.pop("environment", {}) for stage, found in costs.items()}
    others = {path.parent.name: _grouped(_read(path)) for path in NODES.glob("*/metrics.json")}
    return Results(
        {
            path.parent.parent.name: metrics_of(pd.read_csv(path))
            for path in sorted(NODES.glob("*/tables/measures.csv"))
        },
        {stage: others[stage] for stage in sorted(others) if others[stage]},
        costs,
        environments,
    )


def show(
    console: Console | None = None, *, every: bool = False, as_json: bool = False, md: bool = False
) -> None:
    """Print a headline table for each evaluation; with `every`, all measures and costs.

    Where there is no EvaluateX, the measures of the other stages are the headline.

    `as_json` prints everything as JSON instead, `md` the headline tables as Markdown.

    Raises:
        InputError: if there are no results yet.
    """
    found = results()
    if as_json:
        print(json.dumps(found._asdict(), indent=2))
        return
    console = console or table_console()
    for name, measures in found.evaluations.items():
        console.print(_headline(name, measures, md))
    for table in _all_tables(found, every, md):
        console.print(table)
    if md:
        return
    if found.evaluations:
        console.print(*_LEGEND, sep="\n", style="dim", highlight=False)
    for line in environment_differences(found.environments):
        console.print(line, highlight=False)
    for path in sorted(NODES.glob("*/report.html")):
        console.print(f"Report: [link={path.absolute().as_uri()}]{path}[/link]", highlight=False)
    if not every:
        console.print("All measures, run times and memory: jemtrack show --all", highlight=False)


def _all_tables(found: Results, every: bool, md: bool) -> Iterator[Table]:
    if every or not found.evaluations:
        for title, models in (found.evaluations | found.others).items():
            yield _by_measure(title, models, md)
    if every:
        yield _by_stage(found.costs)


class _Tested(NamedTuple):
    """A measure by model, and the models to mark: the best, if any is significantly worse."""

    measure: str
    values: dict[str, float]
    marked: set[str]


def _tested_auroc(evaluation: str, measures: Measures) -> Iterator[_Tested]:
    """Read the tests of the mean AUROC, if the evaluation has outliers of several kinds."""
    path = NODES / evaluation / "tables" / "tests_outliers.csv"
    tests = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["partner"])
    tests = tests[tests["partner"] == MEAN]
    values = {model: each["auroc"] for model, each in measures.items() if "auroc" in each}
    if len(tests) and len(values) == len(measures):
        yield _marking("auroc", values, tests)


def _marking(measure: str, values: dict[str, float], tests: pd.DataFrame) -> _Tested:
    figures = pd.DataFrame({"model": [*values], "value": [*values.values()]})
    best = not_worse(figures, tests, measure in LOWER_IS_BETTER)
    return _Tested(measure, values, best if best < values.keys() else set())


def _tested(evaluation: str, measures: Measures) -> Iterator[_Tested]:
    """Read the measures that have tests: of the evaluation, and of these models' robustness."""
    yield from _tested_auroc(evaluation, measures)
    for stage in (evaluation, "MeasureRobustness"):
        folder = NODES / stage / "tables"
        tables = read_tables(folder) if folder.is_dir() else {}
        if not {"figures", "tests"} <= tables.keys():
            continue
        figures, tests = tables["figures"], tables["tests"]
        for measure, rows in figures.groupby("measure"):
            values = dict(zip(rows["model"], rows["value"], strict=True))
            if measures.keys() <= values.keys():
                yield _marking(str(measure), values, tests[tests["measure"] == measure])


def _headline(name: str, measures: Measures, md: bool) -> Table:
    """Build the table of an evaluation: a row for each model, the best values marked."""
    tested = {each.measure: each for each in _tested(name, measures)}
    untested = {key for each in measures.values() for key in each}
    shown = [key for key in MEASURE_LABELS if key in tested or key in untested]
    table = _table(md)
    table.add_column(name)
    for key in shown:
        table.add_column(MEASURE_LABELS[key], justify="right")
    for model, values in measures.items():
        cells = []
        for key in shown:
            value = tested[key].values[model] if key in tested else values.get(key)
            cells.append(_marked(_cell(value), key in tested and model in tested[key].marked, md))
        table.add_row(model, *cells)
    return table


def _marked(cell: str, best: bool, md: bool) -> str:
    if md:
        return f"**{cell}**" if best else cell
    return f"[bold]{cell}[/bold]*" if best else f"{cell} "


def _table(md: bool) -> Table:
    """Make a table in Markdown, or one with little padding: seven columns fit 80 characters."""
    return Table(box=MARKDOWN) if md else Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)


def _by_measure(title: str, models: dict[str, dict[str, float]], md: bool) -> Table:
    """Build a table with a column per model and a row per measure."""
    table = _table(md)
    table.add_column(title)
    for model in models:
        table.add_column(model if md else model.replace(" ", "\n"), justify="right")
    for measure in _names(models.values()):
        table.add_row(measure, *(_cell(each.get(measure)) for each in models.values()))
    return table


def _by_stage(costs: dict[str, dict[str, float]]) -> Table:
    columns = _names(costs.values())
    table = Table("stage", *columns)
    for name, row in costs.items():
        table.add_row(name, *(_cell(row.get(column)) for column in columns))
    return table


def _grouped(content: dict[str, Any], name: str = "") -> Measures:
    """Group nested measures by the names above them; those that no name is above are left out."""
    measures = {key: each for key, each in content.items() if not isinstance(each, dict)}
    found = {name: measures} if name and measures else {}
    for key, each in content.items():
        if isinstance(each, dict):
            found |= _grouped(each, f"{name} {key}".strip())
    return found


def _names(rows: Iterable[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: float | None) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return "" if value is None else str(value)


def _read(path: Path) -> dict[str, Any]:
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold names and values: `dvc checkout` restores it")
    return content
