"""The page of a model's evaluation: its tables, curves and pictures in one HTML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from jemtrack.evaluation.report.pictures import COLOURS, STYLE, as_svg
from jemtrack.evaluation.report.tables import side_by_side, words
from jemtrack.evaluation.report.template import rendered
from jemtrack.flux.evaluation.measure import REAL, Measures

_LABELS = {
    "judged_right": "judged right ↑",
    "distance": "distance ↓",
    "psnr": "PSNR, dB ↑",
    "evaluations": "evaluations ↓",
    "milliseconds": "processor ms an image ↓",
}
_PANELS = ("judged_right", "distance", "milliseconds")

_SECTIONS = """\
{% macro facts() -%}
<p class="facts">measured on <b>{{ page.n_images }} test images</b> and as many samples · captions
<b>of templates that no training has seen</b> · samples by <b>{{ page.sampler }}</b></p>
{%- endmacro %}

{% macro measured() %}
{{ table(measures, "Measures") }}
<p>Judged right: how often a classifier that no training has seen finds the class. What it finds in
samples with guidance above its accuracy on test images is the work of guidance, not quality. The
distance from the test images is a squared MMD of its features; that of training images is the least
to be expected, and no published figure can be held against it. An evaluation is one of the flow
processor for an image; guidance takes two.</p>
<p>Samples are {{ "%.2f" | format(page.memorised) }} times as far from their nearest training image
as test images are (medians). A ratio near 0 would mean copies; smooth images are nearer than sharp
ones.</p>
{% endmacro %}

{% macro cost() %}
{% call picture(curves, solvers) %}Without guidance, over the number of evaluations of the flow
processor, which guidance doubles. The dashed line is what the judge finds in test images.
{% endcall %}
{% endmacro %}

{% macro grids(pictures) %}
<div class="grids">{% for name, png in pictures.items() %}
<figure style="max-width: 32rem"><img class="pixels" alt="{{ name }}" src="{{ png | png }}">
<figcaption>{{ name }}</figcaption></figure>{% endfor %}</div>
{% endmacro %}

{% macro samples() %}
{{ grids(page.samples) }}
<p>Rows: {{ page.rows | join(", ") }}. The first of each, none chosen.</p>
{% endmacro %}

{% macro pairs() %}{{ grids(page.pairs) }}{% endmacro %}

{% macro chosen() %}{{ table(parameters, "Parameters", words=True) }}{% endmacro %}

{% set sections = {"Measures": measured, "Cost of a sample": cost, "Samples": samples,
  "Beside real images": pairs, "Parameters": chosen} -%}
"""


@dataclass(frozen=True)
class FluxPage:
    """What the page shows.

    Attributes:
        title: of the page.
        n_images: test images that were measured.
        sampler: how the samples were drawn, in words.
        measures: of each set of images.
        memorised: see `Evaluation.memorised`.
        curve: the rows of `Evaluation.curve`.
        samples: PNG files with a row for each class, by name.
        rows: what the images of these rows are of.
        pairs: PNG files of images beside others, by what they show.
        parameters: of the evaluation and of what was evaluated.
    """

    title: str
    n_images: int
    sampler: str
    measures: Mapping[str, Measures]
    memorised: float
    curve: pd.DataFrame
    samples: Mapping[str, bytes]
    rows: list[str]
    pairs: Mapping[str, bytes]
    parameters: Mapping[str, str]


def render(page: FluxPage) -> str:
    """Write the HTML of the whole page."""
    columns = {
        label: {
            name: getattr(each, key)
            for name, each in page.measures.items()
            if getattr(each, key) is not None
        }
        for key, label in _LABELS.items()
    }
    return rendered(
        _SECTIONS,
        page=page,
        measures=side_by_side(columns, "{:.4g}".format),
        curves=[as_svg(each) for each in _curves(page)],
        solvers=[*dict.fromkeys(page.curve["solver"])],
        colours=COLOURS,
        parameters=words(["", ""], page.parameters),
    )


@rc_context(STYLE)
def _curves(page: FluxPage) -> list[Figure]:
    panels = []
    for name in _PANELS:
        panels.append(Figure(figsize=(3.4, 2.6), layout="constrained"))
        axis: Any = panels[-1].subplots()
        by_solver = page.curve.groupby("solver", sort=False)
        for colour, (_, rows) in zip(COLOURS, by_solver, strict=False):
            axis.plot(rows["evaluations"], rows[name], "o-", color=colour, ms=4, lw=1.3)
        if name == "judged_right":
            axis.axhline(page.measures[REAL].judged_right, color=COLOURS[-1], ls="--", lw=1)
        axis.set_xscale("log", base=2)
        ticks = sorted({*page.curve["evaluations"]})
        axis.set_xticks(ticks, [*map(str, ticks)])
        axis.set_xlabel("evaluations")
        axis.set_title(_LABELS[name], loc="left")
    return panels
