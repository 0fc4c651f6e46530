"""The page of an evaluation's results: its tables and pictures, put into the template."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined

from jemtrack.evaluation.models.results import SIGNIFICANT, EvaluationResults
from jemtrack.evaluation.report import pictures
from jemtrack.evaluation.report.summary import LOWER_IS_BETTER, not_worse, verdicts
from jemtrack.evaluation.report.template import TEMPLATE

_LABELS = {
    "top_k_accuracy": "top-k accuracy",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "brier_reliability": "Brier reliability (lower is better)",
    "brier_resolution": "Brier resolution (higher is better)",
    "ece": "ECE",
    "ece_bin_centre": "ECE, bin centres",
    "ece_equal_mass": "ECE, equal mass",
    "ece_class_wise": "ECE, class-wise",
    "aurc": "AURC",
    "excess_aurc": "excess AURC",
    "nll_at_temperature": "NLL at the temperature",
    "brier_at_temperature": "Brier score at the temperature",
    "ece_at_temperature": "ECE at the temperature",
    "auroc": "AUROC",
    "feature_distance": "distance to test images",
    "recognised": "classified as their class",
    "energy": "median energy",
    "none": "no corruption",
}
_DETECTION = {
    "auroc": "AUROC",
    "aupr_in": "AUPR, images",
    "aupr_out": "AUPR, outliers",
    "fpr95": "FPR at 95% TPR",
}


@dataclass(frozen=True)
class PageContent:
    """What a page shows.

    Attributes:
        title: of the page.
        facts: what was measured on which images, as `EvaluateX` writes it.
        results: of the evaluation.
        robustness: rows with the columns `model`, `group` (corruption or attack), `kind`,
            `strength`, `accuracy`, `low`, `high`, `count`; or none.
        grids: by model, a PNG file of samples with a row a class.
        samples: by model, what was measured on its samples.
        code: the commit of the code that made the results.
        changed_files: source files that differed from it.
        parameters: by stage, values by dotted name.
    """

    title: str
    facts: Mapping[str, Any]
    results: EvaluationResults
    robustness: pd.DataFrame
    code: str
    changed_files: Sequence[str] = ()
    grids: Mapping[str, bytes] = field(default_factory=dict)
    samples: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Cell(NamedTuple):
    """A table's cell: its text, the interval beside it, and whether it is to stand out."""

    text: str
    interval: str = ""
    best: bool = False


class Table(NamedTuple):
    """The names of the columns, and the cells of each row."""

    header: list[str]
    rows: list[list[Cell]]


def render(content: PageContent) -> str:
    """Write the HTML of the whole page; what was not measured has no section."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["anchor"] = lambda name: name.lower().replace(" ", "-")
    results, tables, robustness = content.results, content.results.tables, content.robustness
    html = environment.from_string(TEMPLATE).render(
        page=content,
        verdicts=verdicts(results, robustness),
        significant=SIGNIFICANT,
        level=f"{content.facts['level']:.0%}",
        figures=_figures(tables["figures"], tables["tests"]),
        metrics=_side_by_side(results.metrics, _number),
        tests=_tests(tables["tests"]),
        **_detection(tables),
        **_robustness(robustness, results.models),
        sample_metrics=_side_by_side(content.samples, "{:.4g}".format),
        grids={
            model: b64encode(content.grids[model]).decode()
            for model in results.models
            if model in content.grids
        },
        pictures=_pictures(results, robustness),
        colours=pictures.COLOURS,
        image_sets=_names(results.energies, "images"),
        scores=_names(results.roc, "score"),
        md5=_words(["model", "MD5 of model.safetensors"], content.facts["md5"]),
        parameters={
            stage: _words(["parameter", "value"], values)
            for stage, values in content.parameters.items()
        },
    )
    return html.lstrip()  # the macros leave empty lines before the page


def _pictures(results: EvaluationResults, robustness: pd.DataFrame) -> dict[str, list[str]]:
    corrupted = robustness[robustness["kind"] != "none"] if len(robustness) else robustness
    panels = {
        "intervals": pictures.intervals(results.tables["figures"]),
        "reliability": pictures.reliability(results.calibration),
        "risk_coverage": pictures.risk_coverage(results.risk_coverage),
        "confusion": pictures.confusion(results.tables["confusion"]),
        "energies": pictures.energies(results.energies),
        "roc": pictures.roc_curves(results.roc),
        "robustness": pictures.robustness(corrupted, results.models) if len(corrupted) else [],
    }
    return {name: [pictures.as_svg(each) for each in figures] for name, figures in panels.items()}


def _names(tables: Mapping[str, pd.DataFrame], column: str) -> list[str]:
    """List what a column of any of the tables names, in order."""
    return list(dict.fromkeys(name for table in tables.values() for name in table[column]))


def _figures(figures: pd.DataFrame, tests: pd.DataFrame) -> Table:
    best = {
        measure: not_worse(rows, tests[tests["measure"] == measure], measure in LOWER_IS_BETTER)
        for measure, rows in figures.groupby("measure")
    }
    return _side_by_side(
        {
            str(model): {
                row["measure"]: _with_interval(row, "value", row["model"] in best[row["measure"]])
                for row in rows.to_dict("records")
            }
            for model, rows in figures.groupby("model", sort=False)
        }
    )


def _detection(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    if "outliers" not in tables:
        return dict.fromkeys(("auroc", "detection", "outlier_tests"))
    figures, tests = tables["outliers"], tables["tests_outliers"]
    best = {
        (partner, score): not_worse(
            rows.rename(columns={"auroc": "value"}),
            tests[(tests["partner"] == partner) & (tests["score"] == score)],
        )
        for (partner, score), rows in figures.groupby(["partner", "score"])
    }
    auroc = {
        str(partner): {
            f"{row['score']}, {row['model']}": _with_interval(
                row, "auroc", row["model"] in best[partner, row["score"]]
            )
            for row in rows.sort_values("score", kind="stable", key=_first_seen).to_dict("records")
        }
        for partner, rows in figures.groupby("partner", sort=False)
    }
    rows = [
        [*(Cell(row[name]) for name in ("model", "partner", "score"))]
        + [_with_interval(row, name) for name in _DETECTION]
        + [Cell(str(row[name])) for name in ("n_images", "n_outliers")]
        for row in figures.to_dict("records")
    ]
    header = ["model", "outliers", "score", *_DETECTION.values(), "images", "outliers"]
    return {
        "auroc": _side_by_side(auroc),
        "detection": Table(header, rows),
        "outlier_tests": _tests(tests),
    }


def _first_seen(names: pd.Series) -> pd.Series:
    """Rank names by where they first occur."""
    return pd.Series(pd.factorize(names)[0], index=names.index)


def _robustness(curves: pd.DataFrame, models: list[str]) -> dict[str, Any]:
    if not len(curves):
        return {"accuracies": None, "attacked": False}
    means = curves.groupby(["kind", "model"])["accuracy"].mean().to_dict()
    columns: dict[str, dict[str, Cell]] = {model: {} for model in models}
    for kind in curves["kind"].unique():
        highest = max(means[kind, model] for model in models)
        for model, column in columns.items():
            value = means[kind, model]
            column[kind] = Cell(_number(value), best=value == highest)
    accuracies = _side_by_side(columns, corner="mean accuracy over the strengths")
    return {"accuracies": accuracies, "attacked": (curves["group"] == "attack").any()}


def _tests(pairs: pd.DataFrame) -> Table | None:
    """List all tests, the significant ones marked; None if there is one model only."""
    header = ["measure", "first", "second", "first less second", "p", "p, corrected", "test"]
    rows = [
        [
            Cell(" ".join(row[name] for name in ("measure", "partner", "score") if name in row)),
            *(Cell(row["first"]), Cell(row["second"])),
            Cell(f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            Cell(_p_value(row["p_value"])),
            Cell(_p_value(row["p_corrected"]), best=row["p_corrected"] < SIGNIFICANT),
            Cell(row["test"]),
        ]
        for row in pairs.to_dict("records")
    ]
    return Table(header, rows) if rows else None


def _side_by_side(
    columns: Mapping[str, Mapping[str, Any]],
    form: Callable[[Any], str] = str,
    corner: str = "",
) -> Table:
    """Make a table with a column a key and a row for each name in any of them."""
    names = dict.fromkeys(
        name
        for column in columns.values()
        for name, value in column.items()
        if not isinstance(value, Mapping)
    )
    rows = []
    for name in names:
        values = [column.get(name, Cell("")) for column in columns.values()]
        cells = [each if isinstance(each, Cell) else Cell(form(each)) for each in values]
        rows.append([Cell(_LABELS.get(name, name)), *cells])
    return Table([corner, *columns], rows)


def _words(header: list[str], values: Mapping[str, str]) -> Table:
    return Table(header, [[Cell(name), Cell(value)] for name, value in values.items()])


def _with_interval(row: Mapping[Any, Any], name: str, best: bool = False) -> Cell:
    """Show a figure with its bounds: `low` and `high`, or those that bear its name."""
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    form = _number if name == "value" else "{:.3f}".format
    return Cell(form(row[name]), f"{form(row[low])} to {form(row[high])}", best)


def _number(value: float) -> str:
    return f"{value:.4f}"


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< .001"
