"""The page of an evaluation's results: its tables and pictures, put into the template."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from jemtrack.evaluation.models.results import SIGNIFICANT
from jemtrack.evaluation.report import pictures
from jemtrack.evaluation.report.content import PageContent, Robustness
from jemtrack.evaluation.report.labels import MEASURES, REFERENCES, kind_label, score_label
from jemtrack.evaluation.report.summary import LOWER_IS_BETTER, not_worse, verdicts
from jemtrack.evaluation.report.tables import (
    Cell,
    Table,
    number,
    p_value,
    side_by_side,
    with_interval,
    words,
)
from jemtrack.evaluation.report.template import IMAGE_SECTIONS, rendered

_DETECTION = {
    "auroc": "AUROC ↑",
    "aupr_in": "AUPR, images ↑",
    "aupr_out": "AUPR, outliers ↑",
    "fpr95": "FPR at 95% TPR ↓",
}


def render(content: PageContent) -> str:
    """Write the HTML of the whole page; what was not measured has no section."""
    results, tables = content.results, content.results.tables
    return rendered(
        IMAGE_SECTIONS,
        page=content,
        models=results.models,
        verdicts=verdicts(results, content.robustness),
        significant=SIGNIFICANT,
        level=f"{content.facts['level']:.0%}",
        figures=_figures(tables["figures"], tables["tests"]),
        metrics=side_by_side(results.metrics, number, labels=MEASURES),
        tests=_tests(tables["tests"]),
        **_detection(tables),
        **_robustness(content.robustness),
        sample_metrics=side_by_side(content.samples, "{:.4g}".format, labels=MEASURES),
        training=side_by_side(content.training),
        differing=_differing(content.parameters, results.models),
        grids={m: content.grids[m] for m in results.models if m in content.grids},
        counts=_counts(content.counts),
        pictures=_pictures(content),
        colours=pictures.COLOURS,
        image_sets=_names(results.energies, "images"),
        scores=[score_label(name) for name in _names(results.roc, "score")],
        references=REFERENCES,
        **_provenance(content),
    )


def _pictures(content: PageContent) -> dict[str, list[str]]:
    results, curves = content.results, content.robustness.curves
    corrupted = curves[curves["kind"] != "none"] if len(curves) else curves
    panels = {
        "intervals": pictures.intervals(results.tables["figures"]),
        "histories": pictures.training_curves(content.histories),
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
    """Set measures (rows) of models (columns) side by side; bold: not worse than the best."""
    columns: dict[str, dict[str, Cell]] = {str(model): {} for model in figures["model"].unique()}
    for measure, rows in figures.groupby("measure", sort=False):
        lower = measure in LOWER_IS_BETTER
        best = _bold(rows, tests[tests["measure"] == measure], lower)
        for row in rows.to_dict("records"):
            columns[row["model"]][str(measure)] = with_interval(row, best=row["model"] in best)
    return side_by_side(
        columns, labels={each: _measure_label(each) for each in figures["measure"].unique()}
    )


def _bold(figures: pd.DataFrame, tests: pd.DataFrame, lower: bool = False) -> set[str]:
    """Name the models to set in bold; a model alone is not the best of any."""
    return not_worse(figures, tests, lower) if len(figures) > 1 else set()


def _measure_label(name: str) -> str:
    return MEASURES.get(name) or kind_label(name)


def _detection(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    if "outliers" not in tables:
        return dict.fromkeys(("auroc", "detection", "outlier_tests"))
    figures, tests = tables["outliers"], tables["tests_outliers"]
    auroc: dict[str, dict[str, Cell]] = {str(name): {} for name in figures["partner"].unique()}
    # The rows of a score are together, in the order of the models.
    for score in figures["score"].unique():
        for partner, column in auroc.items():
            rows = figures[(figures["score"] == score) & (figures["partner"] == partner)]
            tested = tests[(tests["score"] == score) & (tests["partner"] == partner)]
            best = _bold(rows.rename(columns={"auroc": "value"}), tested)
            for row in rows.to_dict("records"):
                cell = with_interval(row, "auroc", row["model"] in best)
                column[f"{score_label(score)}, {row['model']}"] = cell
    rows = [
        [Cell(row["model"]), Cell(row["partner"]), Cell(score_label(row["score"]))]
        + [with_interval(row, name) for name in _DETECTION]
        + [Cell(str(row[name])) for name in ("n_images", "n_outliers")]
        for row in figures.to_dict("records")
    ]
    header = ["model", "outliers", "score", *_DETECTION.values(), "images", "outliers"]
    return {
        "auroc": side_by_side(auroc, corner="AUROC ↑"),
        "detection": Table(header, rows),
        "outlier_tests": _tests(tests),
    }


def _robustness(found: Robustness) -> dict[str, Any]:
    if not len(found.figures):
        return {"accuracies": None, "robustness_tests": None}
    return {
        "accuracies": _figures(found.figures, found.tests),
        "robustness_tests": _tests(found.tests),
    }


def _tests(pairs: pd.DataFrame) -> Table | None:
    """List all tests, the significant ones marked; None if there is one model only."""
    header = ["measure", "first", "second", "first - second", "p", "p, corrected", "test"]
    rows = [
        [
            Cell(_tested(row)),
            *(Cell(row["first"]), Cell(row["second"])),
            Cell(f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            Cell(p_value(row["p_value"])),
            Cell(p_value(row["p_corrected"]), best=row["p_corrected"] < SIGNIFICANT),
            Cell(row["test"]),
        ]
        for row in pairs.to_dict("records")
    ]
    return Table(header, rows) if rows else None


def _tested(row: Mapping[Any, Any]) -> str:
    """Name what a test is about: AUROC by its outliers and score, too."""
    if "partner" in row:
        return f"AUROC, {row['partner']}, {score_label(row['score'])}"
    return _measure_label(str(row["measure"]))


def _differing(parameters: Mapping[str, Mapping[str, str]], models: list[str]) -> Table | None:
    """Set the parameters that differ between the models' trainers side by side."""
    of_models = {model: parameters[model] for model in models if model in parameters}
    names = dict.fromkeys(name for values in of_models.values() for name in values)
    differing = [
        name for name in names if len({values.get(name) for values in of_models.values()}) > 1
    ]
    if not differing:
        return None
    columns = {
        model: {name: _without_module(name, values.get(name, "-")) for name in differing}
        for model, values in of_models.items()
    }
    labels = {name: name.replace("._cls", "") for name in differing}
    return side_by_side(columns, labels=labels)


def _without_module(name: str, value: str) -> str:
    return value.rpartition(".")[2] if name.endswith("_cls") else value


def _counts(counts: pd.DataFrame) -> Table | None:
    if not len(counts):
        return None
    rows = [
        [Cell(str(label)), *(Cell(str(n)) for n in row.values())]
        for label, row in counts.to_dict("index").items()
    ]
    rows.append([Cell("all"), *(Cell(str(n)) for n in counts.sum())])
    return Table(["class", *map(str, counts.columns)], rows)


def _provenance(content: PageContent) -> dict[str, Any]:
    return {
        "data": words(["", content.facts["dataset"]], content.data),
        "environment": words(["", "the models were made with"], content.environment),
        "md5": words(["model", "MD5 of its file"], content.facts["md5"]),
        "parameters": {
            stage: words(["parameter", "value"], values)
            for stage, values in content.parameters.items()
        },
    }
