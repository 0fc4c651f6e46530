"""The pictures of an evaluation: matplotlib figures of its tables.

A picture is a list of panels, each its own figure, so that a page lays out as many side by side as
it is wide. A model, image set or score has the same colour in all panels, one of `COLOURS` by its
place, which the page shows in a legend.
"""

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jemtrack.evaluation.report.labels import MEASURES, kind_label
from jemtrack.evaluation.statistics.calibration_interval import with_intervals

# Okabe and Ito's colours, which people with colour blindness can tell apart, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_GREY = "#777777"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "svg.fonttype": "none",  # the page's own font, and words that can be searched
    "svg.hashsalt": "jemtrack",  # equal tables make equal bytes
}


_styled = mpl.rc_context(STYLE)


def as_svg(figure: Figure) -> str:
    """Convert a figure to an `<svg>` element, without the header of a file.

    Its title, which a screen reader says and a pointer shows, is that of the axes and their labels.
    """
    written = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    text = written.getvalue()
    start = text.index("<svg")
    end = text.index(">", start)
    title = html.escape(", ".join(filter(None, map(_described, figure.axes))))
    return f'{text[start:end]} role="img"><title>{title}</title>{text[end + 1 :]}'


@_styled
def intervals(figures: pd.DataFrame) -> list[Figure]:
    """Draw each measure's value and interval, a panel a measure and a line a model.

    `figures` has the columns of `Comparison.figures`.
    """
    measures = list(dict.fromkeys(figures["measure"]))
    models = list(dict.fromkeys(figures["model"]))
    panels: list[Figure] = []
    for measure in measures:
        axis = _panel(panels, 4.2, 0.8 + 0.28 * len(models))
        rows = figures[figures["measure"] == measure].set_index("model").loc[models]
        for at, (colour, row) in enumerate(
            zip(_colours(models), rows.to_dict("records"), strict=True)
        ):
            axis.plot([row["low"], row["high"]], [at, at], color=colour, lw=2.5, alpha=0.6)
            axis.plot(row["value"], at, "o", color=colour, markersize=6)
        axis.set_yticks(range(len(models)), models)
        axis.set_ylim(len(models) - 0.5, -0.5)
        axis.set_title(MEASURES.get(measure, measure), loc="left")
        axis.locator_params(axis="x", nbins=5)
        axis.grid(visible=False, axis="y")
    return panels


@_styled
def training_curves(histories: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Draw the loss, and NLL and accuracy of validation images, over epochs: a line for each model.

    A table has the column `epoch` and a column for each metric.
    """
    shown = {
        "train_loss": "training loss",
        "valid_nll": "validation NLL",
        "valid_accuracy": "validation accuracy",
    }
    panels: list[Figure] = []
    for name, title in shown.items():
        if not any(name in history for history in histories.values()):
            continue
        axis = _panel(panels, 3, 2.4)
        for colour, history in zip(_colours(histories), histories.values(), strict=True):
            if name in history:
                axis.plot(history["epoch"], history[name], color=colour, lw=1.3)
        axis.set_xlabel("epoch")
        axis.set_title(title, loc="left")
    return panels


_LEAST = 10  # images in a bar of a reliability diagram: fewer say next to nothing of an accuracy


@_styled
def reliability(tables: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Draw a reliability diagram for each model, over a histogram of its confidence.

    The tables are those of `reliability_table`. Neighbouring bins of few images share a bar.
    """
    panels: list[Figure] = []
    for name, table in tables.items():
        panels.append(Figure(figsize=(3, 3.8), layout="constrained"))
        top, bottom = panels[-1].subplots(2, sharex=True, height_ratios=[3, 1])
        bars = with_intervals(merged_bins(table, _LEAST))
        left, widths = bars["bin_left"], bars["bin_right"] - bars["bin_left"]
        top.bar(left, bars["accuracy"], widths, align="edge", color=COLOURS[0], alpha=0.35,
                edgecolor="white")  # fmt: skip
        top.vlines(
            bars["confidence"], bars["accuracy_low"], bars["accuracy_high"], COLOURS[0], lw=1.5
        )
        top.plot(bars["confidence"], bars["accuracy"], "o", color=COLOURS[0], ms=4, clip_on=False)
        top.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1)
        top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        top.set_title(f"{name}\nECE {table['ece'].iloc[0]:.3f}", loc="left", fontsize=9)
        width = table["bin_right"] - table["bin_left"]
        share = table["count"] / table["count"].sum()
        bottom.bar(table["bin_left"], share, width, align="edge", color=_GREY, edgecolor="white")
        bottom.set(xlabel="confidence", ylabel="images", ylim=(0, 1))
    return panels


def merged_bins(table: pd.DataFrame, least: int) -> pd.DataFrame:
    """Merge neighbouring bins of a `reliability_table` until each holds at least `least` images."""
    groups, count = [], table["count"].to_numpy()
    group = held = 0
    for at, images in enumerate(count):
        groups.append(group)
        held += images
        # What would remain, if too few, joins this group.
        if held >= least and count[at + 1 :].sum() >= least:
            group, held = group + 1, 0
    weighted = table.assign(
        **{name: table[name] * count for name in ("confidence", "accuracy", "gap")}, group=groups
    )
    sums = weighted.groupby("group")[["confidence", "accuracy", "gap", "count"]].sum()
    ends = weighted.groupby("group").agg(
        bin_left=("bin_left", "first"), bin_right=("bin_right", "last")
    )
    means = sums[["confidence", "accuracy", "gap"]].div(sums["count"], axis=0)
    return ends.join(means).join(sums["count"].astype(int)).reset_index(drop=True)


@_styled
def risk_coverage(curves: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Draw the risk of each model over its coverage."""
    panels: list[Figure] = []
    axis = _panel(panels, 5.5, 3.2)
    for colour, (name, curve) in zip(_colours(curves), curves.items(), strict=True):
        axis.plot(curve["coverage"], curve["risk"], color=colour, label=name)
    axis.set(xlim=(0, 1), xlabel="coverage: share of images that are classified")
    axis.set(ylabel="risk: error rate among them")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left")
    return panels


@_styled
def energies(histograms: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Draw a panel a model with the spread of energies of each image set."""
    sets = list(dict.fromkeys(name for table in histograms.values() for name in table["images"]))
    panels: list[Figure] = []
    for name, table in histograms.items():
        axis = _panel(panels, 3.6, 2.6)
        for colour, images in zip(_colours(sets), sets, strict=True):
            rows = table[table["images"] == images]
            edges = [*rows["left"], rows["right"].iloc[-1]]
            axis.stairs(rows["share"], edges, color=colour, linewidth=1.3)
        axis.set(xlabel="energy, -log p̃(x)", ylabel="share of images")
        axis.set_title(name, loc="left")
    return panels


@_styled
def roc_curves(curves: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Draw a panel a model and partner, with a curve a score.

    The tables have the columns `partner`, `score`, `false_positive_rate` and `true_positive_rate`.
    """
    panels: list[Figure] = []
    for model, table in curves.items():
        for partner, some in table.groupby("partner", sort=False):
            axis = _panel(panels, 2.4, 2.7)
            by_score = some.groupby("score", sort=False)
            for colour, (_, curve) in zip(COLOURS, by_score, strict=False):
                axis.plot(
                    curve["false_positive_rate"], curve["true_positive_rate"],
                    color=colour, linewidth=1.3,
                )  # fmt: skip
            axis.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=0.8)
            axis.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axis.set(xlabel="false positive rate", ylabel="true positive rate")
            axis.set_aspect("equal")
            axis.set_title(f"{model}\n{partner}", fontsize=8, loc="left")
    return panels


@_styled
def confusion(table: pd.DataFrame) -> list[Figure]:
    """Draw a panel a model: the share of each label by predicted class; errors stand out.

    `table` has the columns `model`, `label`, `predicted` and `count`.
    """
    panels: list[Figure] = []
    for name, rows in table.groupby("model", sort=False):
        axis = _panel(panels, 3, 3)
        counts_CC = rows.pivot(index="label", columns="predicted", values="count").to_numpy()
        share_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
        axis.imshow(np.sqrt(share_CC), cmap="Blues", vmin=0, vmax=1)
        if len(counts_CC) <= 20:
            axis.set(xticks=range(len(counts_CC)), yticks=range(len(counts_CC)))
            for row, column in zip(*np.nonzero(counts_CC), strict=True):
                light = share_CC[row, column] > 0.3
                axis.text(
                    column, row, str(counts_CC[row, column]), ha="center", va="center",
                    fontsize=6, color="white" if light else "black",
                )  # fmt: skip
        axis.set(xlabel="predicted", ylabel="label")
        axis.set_title(str(name), loc="left")
        axis.grid(visible=False)
    return panels


@_styled
def robustness(curves: pd.DataFrame, models: Sequence[str]) -> list[Figure]:
    """Draw a panel a kind of corruption or attack, with accuracy over strength for each model."""
    panels: list[Figure] = []
    for kind, some in curves.groupby("kind", sort=False):
        axis = _panel(panels, 2.6, 2.2)
        for colour, model in zip(_colours(models), models, strict=True):
            rows = some[some["model"] == model]
            axis.plot(rows["strength"], rows["accuracy"], "o-", color=colour, ms=3)
            axis.fill_between(rows["strength"], rows["low"], rows["high"], color=colour, alpha=0.15)
        axis.set(ylim=(0, 1.02), xlabel="radius" if "attack" in {*some["group"]} else "severity")
        axis.set(ylabel="accuracy")
        axis.set_title(kind_label(str(kind)), loc="left", fontsize=8)
    return panels


def _described(axis: Axes) -> str:
    labels = " over ".join(filter(None, (axis.get_ylabel(), axis.get_xlabel())))
    return ": ".join(filter(None, (axis.get_title(loc="left").replace("\n", ", "), labels)))


def _panel(panels: list[Figure], width: float, height: float) -> Axes:
    """Add a panel of a size in inches, and return its axes."""
    panels.append(Figure(figsize=(width, height), layout="constrained"))
    return panels[-1].subplots()


def _colours(names: Iterable[str]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index, _ in enumerate(names)]
