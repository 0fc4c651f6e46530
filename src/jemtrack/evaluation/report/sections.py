"""The page of an evaluation's results, section by section."""

from base64 import b64encode
from collections.abc import Mapping

import pandas as pd

from jemtrack.evaluation.comparison import rows_of
from jemtrack.evaluation.outlier_detection import OutlierDetection
from jemtrack.evaluation.report import pictures
from jemtrack.evaluation.report.page import Cell, Section, page
from jemtrack.evaluation.report.verdicts import (
    best_model,
    detection_verdict,
    robustness_verdicts,
    verdict,
)
from jemtrack.evaluation.results import Findings, OtherFindings
from jemtrack.evaluation.statistics.paired_tests import SIGNIFICANT

_NAMES = {
    "accuracy": "accuracy",
    "top_k_accuracy": "top-k accuracy",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "brier_reliability": "its reliability (0 is best)",
    "brier_resolution": "its resolution (more is better)",
    "ece": "ECE",
    "ece_bin_centre": "ECE, bin centres",
    "ece_equal_mass": "ECE, equal mass",
    "ece_class_wise": "ECE, class-wise",
    "aurc": "AURC",
    "excess_aurc": "excess AURC",
    "temperature": "temperature",
    "nll_at_temperature": "NLL at the temperature",
    "brier_at_temperature": "Brier score at the temperature",
    "ece_at_temperature": "ECE at the temperature",
    "feature_distance": "distance to test images",
    "recognised": "taken for their class by the classifier",
    "energy": "median energy",
}
_WHAT = ("measure", "partner", "score")  # a test is of


def in_short_section(findings: Findings, others: OtherFindings) -> Section:
    """Say which model to use for what, and how sure that is."""
    section, comparison = Section("In short"), findings.comparison
    lines = [
        verdict(comparison, "accuracy", "Classifying", _percent),
        verdict(comparison, "nll", "Probabilities to rely on, by NLL", _number),
        verdict(comparison, "ece", "Being as sure as it is right", _number),
    ]
    if findings.detection is not None:
        lines.append(detection_verdict(findings.detection.figures, findings.detection.pairs))
    lines += robustness_verdicts(others.robustness)
    section.points(lines)
    section.text(
        "Surely means: a difference that chance alone would bring about in fewer than 5 of 100 "
        "such evaluations, after a correction for the number of comparisons. All of it is said of "
        "these models, each from one training: how far trainings differ, runs over seeds tell."
    )
    return section


def figures_section(findings: Findings) -> Section:
    """Show the main measures with intervals, all measures, and all tests between models."""
    section, comparison = Section("Figures"), findings.comparison
    figures = comparison.figures
    rows = []
    for measure in dict.fromkeys(figures["measure"]):
        best = best_model(figures, measure)
        cells = [
            Cell(
                _number(row["value"]),
                f"{_number(row['low'])} to {_number(row['high'])}",
                row["model"] == best,
            )
            for row in rows_of(figures[figures["measure"] == measure])
        ]
        rows.append([Cell(_NAMES.get(measure, measure)), *cells])
    section.table(["", *findings.models], rows)
    section.picture(
        pictures.intervals(figures),
        f"Each measure with its interval at {findings.level:.0%}. Accuracy: more is better; of the "
        "others, less is.",
    )
    section.table(*_all_metrics(findings), under="All measures")
    if len(comparison.pairs):
        section.table(*_pairs(comparison.pairs), under="Which models differ: all tests")
    return section


def _all_metrics(findings: Findings) -> tuple[list[str], list[list[Cell]]]:
    names = dict.fromkeys(
        name
        for metrics in findings.metrics.values()
        for name, value in metrics.items()
        if isinstance(value, int | float)
    )
    rows = [
        [Cell(_NAMES.get(name, name))]
        + [Cell(_number(metrics[name])) for metrics in findings.metrics.values()]
        for name in names
    ]
    return ["", *findings.models], rows


def _pairs(pairs: pd.DataFrame) -> tuple[list[str], list[list[Cell]]]:
    rows = [
        [
            Cell(" ".join(str(row[name]) for name in _WHAT if name in row)),
            Cell(row["first"]),
            Cell(row["second"]),
            Cell(f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            Cell(_p_value(row["p_value"])),
            Cell(_p_value(row["p_corrected"]), best=row["p_corrected"] < SIGNIFICANT),
            Cell(row["test"]),
        ]
        for row in rows_of(pairs)
    ]
    header = ["measure", "first", "second", "first less second", "p", "p, corrected", "test"]
    return header, rows


def calibration_section(findings: Findings) -> Section:
    """Draw the reliability diagrams."""
    section = Section("Calibration")
    section.picture(
        pictures.reliability(findings.calibration),
        "Bars: the accuracy of the images in a bin of confidence, with its interval at 95%; "
        "hatched: the gap to the mean confidence; dashed: perfect calibration; grey: the share "
        "of the images in each bin. Below the diagonal a model is surer than it should be.",
    )
    return section


def other_sections(findings: Findings) -> list[Section]:
    """Draw risk over coverage, the mistakes and the energies."""
    declining = Section("Declining to classify")
    declining.picture(
        pictures.risk_coverage(findings.risk_coverage),
        "If a model classifies only the images that it is surest of: how often it is then wrong.",
    )
    mistakes = Section("Mistakes")
    mistakes.picture(
        pictures.confusion(findings.confusion),
        "Images by label and by the class that they were taken for; darker is more of the label.",
    )
    energies = Section("Energies")
    energies.picture(
        pictures.energies(findings.energies),
        "How the energies of images, training images and outliers are spread. What a model has "
        "not seen should lie apart, at higher energy. Energies of two models cannot be compared.",
    )
    return [declining, mistakes, energies]


def outliers_section(detection: OutlierDetection, models: list[str]) -> Section:
    """Show how well each score of each model notices each kind of outliers."""
    section, figures = Section("Outliers"), detection.figures
    section.text(
        "AUROC: how often an image of the data set has a higher score than an outlier; .5 is "
        "guessing, 1 is never wrong. No score was fitted to outliers."
    )
    best = figures.groupby("partner")["auroc"].max()
    rows = []
    for score in dict.fromkeys(figures["score"]):
        for model in models:
            some = figures[(figures["score"] == score) & (figures["model"] == model)]
            cells = [
                Cell(
                    f"{row['auroc']:.3f}",
                    f"{row['auroc_low']:.3f} to {row['auroc_high']:.3f}",
                    row["auroc"] == best[row["partner"]],
                )
                for row in rows_of(some)
            ]
            rows.append([Cell(f"{score}, {model}"), *cells])
    section.table(["score, model", *dict.fromkeys(figures["partner"])], rows)
    section.picture(
        pictures.roc_curves(detection.roc()),
        "Images that pass a threshold on the score over outliers that pass it, too.",
    )
    others = ["auroc", "aupr_in", "aupr_out", "fpr95"]
    rows = [
        [Cell(row[name]) for name in ("model", "partner", "score")]
        + [
            Cell(f"{row[name]:.3f}", f"{row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f}")
            for name in others
        ]
        + [Cell(str(row[name])) for name in ("n_images", "n_outliers")]
        for row in rows_of(figures)
    ]
    header = ["model", "outliers", "score", "AUROC", "AUPR, images", "AUPR, outliers"]
    header += ["FPR at 95% TPR", "images", "outliers"]
    section.table(header, rows, under="Other measures")
    if len(detection.pairs):
        section.table(*_pairs(detection.pairs), under="Which models differ: all tests")
    return section


def robustness_section(curves: pd.DataFrame, models: list[str]) -> Section:
    """Show the accuracy of corrupted and attacked images."""
    section = Section("Robustness")
    means = curves.groupby(["group", "kind", "model"], sort=False)["accuracy"].mean()
    rows = []
    for group, kind in dict.fromkeys((row["group"], row["kind"]) for row in rows_of(curves)):
        values = [float(means[group, kind, model]) for model in models]
        cells = [Cell(_number(value), best=value == max(values)) for value in values]
        rows.append([Cell("no corruption" if kind == "none" else kind), *cells])
    section.table(["accuracy, mean over the strengths", *models], rows)
    section.picture(
        pictures.robustness(curves[curves["kind"] != "none"], models),
        "Accuracy over the strength of a corruption (1 to 5) or the radius of an attack (pixels "
        "from 0 to 1), with its interval at 95%.",
    )
    if not (curves["group"] == "attack").any():
        section.text(
            "No attacks: they need the Adversarial Robustness Toolbox, which was not installed "
            "(pip install 'jemtrack[attacks]')."
        )
    return section


def samples_section(others: OtherFindings) -> Section:
    """Show what the models drew."""
    section = Section("Samples")
    section.text(
        "Images that chains of Langevin dynamics climb to for each class. The distance is a kernel "
        "distance between samples and test images on the features of this project's own "
        "classifier; it is no FID and no KID, and only compares the models of this page."
    )
    found = others.samples.values()
    rows = [
        [Cell(_NAMES.get(name, name)), *(Cell(f"{each[name]:.4g}") for each in found)]
        for name in dict.fromkeys(name for each in found for name in each)
    ]
    section.table(["", *others.samples], rows)
    for model, png in others.grids.items():
        section.image(b64encode(png).decode(), f"Samples of {model}, a row a class.")
    return section


def made_by_section(parameters: Mapping[str, Mapping[str, str]]) -> Section:
    """Give the parameters of each stage."""
    section = Section("Made by")
    for stage, values in parameters.items():
        rows = [[Cell(name), Cell(value)] for name, value in values.items()]
        section.table(["parameter", "value"], rows, words=True, under=f"Parameters of {stage}")
    return section


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< .001"


def evaluation_page(
    title: str,
    facts: Mapping[str, str],
    findings: Findings,
    others: OtherFindings,
    parameters: Mapping[str, Mapping[str, str]],
) -> str:
    """Give the HTML of the whole page.

    `facts` say what was measured on what; `parameters` those of each stage, by name.
    """
    sections = [
        in_short_section(findings, others),
        figures_section(findings),
        calibration_section(findings),
        *other_sections(findings),
    ]
    if findings.detection is not None:
        sections.append(outliers_section(findings.detection, findings.models))
    if len(others.robustness):
        sections.append(robustness_section(others.robustness, findings.models))
    if others.grids:
        sections.append(samples_section(others))
    return page(title, facts, [*sections, made_by_section(parameters)])
