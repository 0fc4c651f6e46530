"""The page of an evaluation of cells: embeddings before and after, and what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jemtrack.evaluation.integration import KBET, SCIB_TOTAL
from jemtrack.evaluation.report.tables import Cell, Table, side_by_side, words
from jemtrack.evaluation.report.template import rendered

_MEASURES = {
    "isolated_labels": "isolated labels",
    "kmeans_nmi": "k-means, NMI",
    "kmeans_ari": "k-means, ARI",
    "silhouette_label": "silhouette of types",
    "clisi": "cLISI",
    "bio": "types, mean of five",
    "bras": "BRAS",
    "ilisi": "iLISI",
    "graph_connectivity": "graph connectivity",
    "pcr": "PCR",
    KBET: "kBET",
    "batch": "batches, mean of four",
    "total": "total of nine",
    SCIB_TOTAL: "scib total of ten",
    "transfer_accuracy": "label transfer, accuracy",
    "transfer_macro_f1": "label transfer, macro F1",
    "transfer_nll": "label transfer, NLL (nats, lower is better)",
    "transfer_ece": "label transfer, ECE (lower is better)",
}
_LIKELIHOODS = {
    "elbo": "evidence lower bound ↑",
    "nll": "negative log likelihood ↓",
    "elbo_given_label": "evidence lower bound, given the label ↑",
    "nll_given_label": "negative log likelihood, given the label ↓",
}
_GROUPS = {"bio": "Types", "batch": "Batches", "total": "Total of nine measures"}
REFERENCES = {
    "inVAE": "Aliee, Kapl, Hediyeh-Zadeh and Theis, Conditionally Invariant Representation "
    "Learning for Disentangling Cellular Heterogeneity, 2023; the decoder is given the batch as in "
    "Lopez et al., Deep Generative Modeling for Single-cell Transcriptomics, Nature Methods 2018",
    "Measures and their total": "Luecken et al., Benchmarking Atlas-level Data Integration in "
    "Single-cell Genomics, Nature Methods 2022; by the definitions of scib-metrics 0.5.10",
    "BRAS": "Rautenstrauch and Ohler, Shortcomings of Silhouette in Single-cell Integration "
    "Benchmarking, Nature Biotechnology 2025",
    "LISI, Harmony": "Korsunsky et al., Fast, Sensitive and Accurate Integration of Single-cell "
    "Data with Harmony, Nature Methods 2019",
    "kBET": "Büttner et al., A Test Metric for Assessing Single-cell RNA-seq Batch Correction, "
    "Nature Methods 2019",
    "Genes": "Stuart et al., Comprehensive Integration of Single-Cell Data, Cell 2019",
    "Likelihood by importance sampling": "Burda, Grosse and Salakhutdinov, Importance Weighted "
    "Autoencoders, ICLR 2016",
    "Intervals": "Shao and Wu, A General Theory for Jackknife Variance Estimation, Annals of "
    "Statistics 1989",
    "UMAP": "McInnes, Healy and Melville, UMAP: Uniform Manifold Approximation and Projection for "
    "Dimension Reduction, 2018",
}


@dataclass(frozen=True)
class CellPage:
    """What a page shows.

    Attributes:
        title: of the page.
        scores: a row for each embedding and set of cells, as `EvaluateCells` writes it.
        likelihood: nats a held-out cell, by name, with the half width of its interval.
        grid: a PNG file of the embeddings.
        projection: of the embeddings to two dimensions.
        counts: cells by type (rows) and batch (columns).
        parameters: of the evaluation, as text.
        model: what is known of the model's file, as text.
        code: the commit of the code that made the results.
        changed_files: source files that differed from it.
    """

    title: str
    scores: pd.DataFrame
    likelihood: Mapping[str, tuple[float, float]]
    grid: bytes
    projection: str
    counts: pd.DataFrame
    parameters: Mapping[str, str]
    model: Mapping[str, str]
    code: str
    changed_files: Sequence[str] = ()


def render(page: CellPage, sets: Mapping[str, str], model: str, baseline: str) -> str:
    """Write the HTML of the page.

    `sets` names the sets of cells, the first one those held out; `model` and `baseline` are the
    embeddings that the summary compares.
    """
    tables = {
        title: _measures(page.scores[page.scores["cells"] == name])
        for name, title in sets.items()
        if (page.scores["cells"] == name).any()
    }
    return rendered(
        _SECTIONS,
        page=page,
        verdicts=_verdicts(page.scores, next(iter(sets)), model, baseline),
        tables=tables,
        likelihood=_likelihood(page.likelihood),
        counts=_counts(page.counts),
        parameters=words(["parameter", "value"], page.parameters),
        model=words(["model", ""], page.model),
        references=REFERENCES,
    )


def _measures(rows: pd.DataFrame) -> Table:
    """Set the measures (rows) of embeddings (columns) side by side, with their intervals."""
    columns: dict[str, dict[str, Cell]] = {}
    for row in rows.to_dict("records"):
        named = {name: row[name] for name in _MEASURES if pd.notna(row.get(name))}
        columns[str(row["embedding"])] = {
            name: Cell(f"{value:.3f}", _bounds(row, name)) for name, value in named.items()
        }
    return side_by_side(columns, labels=_MEASURES)


def _bounds(row: Mapping[Any, Any], name: str) -> str:
    if pd.isna(half := row.get(f"{name}_half")):
        return ""
    return f"{max(row[name] - half, 0):.3f} to {min(row[name] + half, 1):.3f}"


def _verdicts(scores: pd.DataFrame, cells: str, model: str, baseline: str) -> list[tuple[str, str]]:
    """Say of held-out cells how the model compares with the baseline."""
    rows = {row["embedding"]: row for row in scores.to_dict("records") if row["cells"] == cells}
    found = []
    for name, title in _GROUPS.items():
        own, other = (rows.get(each, {}).get(name) for each in (model, baseline))
        if own is None or other is None or pd.isna(own - other):
            continue
        gain, half = own - other, rows[model].get(f"{name}_gain_half")
        text = f"{own:.3f}, {gain:+.3f} beside {baseline} ({other:.3f})"
        if pd.notna(half):
            sure = "" if abs(gain) > half else ", so it may be 0"
            text += f"; interval of the difference {gain - half:+.3f} to {gain + half:+.3f}{sure}"
        found.append((f"{title}.", f"{text}."))
    return found or [("Nothing is compared.", "There are too few labelled held-out cells.")]


def _likelihood(values: Mapping[str, tuple[float, float]]) -> Table | None:
    if not values:
        return None
    rows = [
        [
            Cell(_LIKELIHOODS[name]),
            Cell(f"{value:.1f}", f"{value - half:.1f} to {value + half:.1f}"),
        ]
        for name, (value, half) in values.items()
    ]
    return Table(["nats a held-out cell", ""], rows)


def _counts(counts: pd.DataFrame) -> Table:
    rows = [
        [Cell(str(name)), *(Cell(str(n)) for n in row.values())]
        for name, row in counts.to_dict("index").items()
    ]
    return Table(["type", *map(str, counts.columns)], rows)


_SECTIONS = """\
{% macro facts() -%}
<p class="facts">code <b>{{ page.code }}{% if page.changed_files %} with changes in
{{ page.changed_files | join(", ") }}{% endif %}</b></p>
{%- endmacro %}

{% macro summary() %}
<p>Of the held-out cells, which neither the training nor the choice of genes has seen:</p>
<ul>{% for title, text in verdicts %}<li><b>{{ title }}</b> {{ text }}</li>{% endfor %}</ul>
<p>All measures are 1 at best. The encoder was given no label of any cell. Intervals are at 95%,
over which cells were measured; the model was trained once, and trainings vary, too.</p>
{% endmacro %}

{% macro pictures() %}
<figure><img style="width: 100%; background: #fff" alt="Embeddings by batch and by type"
src="{{ page.grid | png }}">
<figcaption>All cells by {{ page.projection }}, coloured by batch and by type: before (principal
components of the training cells) and after. Distances between the groups of such a picture mean
little; the measures below are of the embeddings themselves.</figcaption></figure>
{% endmacro %}

{% macro measures() %}
{% for title, content in tables.items() %}<h3>{{ title }}</h3>{{ table(content, title) }}
{% endfor %}
<p>Types: isolated labels, k-means, silhouette and cLISI ask whether cells of a type are together.
Batches: BRAS, iLISI, graph connectivity, PCR and kBET ask whether the batches of a type are mixed.
The total is 0.6 times the first mean and 0.4 times the second. That of nine lacks kBET, and is not
to be compared with totals of ten. An embedding by Harmony has seen the held-out cells.</p>
{% endmacro %}

{% macro likelihoods() %}
{{ table(likelihood, "Likelihood") }}
<p>Means over cells. The likelihood is by importance sampling. Without the label of a cell, its
prior is the mixture of all labels'.</p>
{% endmacro %}

{% macro cells() %}
{{ table(counts, "Cells by type and batch") }}
{% endmacro %}

{% macro provenance() %}
{{ table(model, "Model", words=True) }}
{{ details("Parameters of the evaluation", parameters, words=True) }}
{% endmacro %}

{% set sections = {
  "Summary": summary, "Embeddings": pictures, "Measures": measures,
  "Likelihood": likelihoods if likelihood, "Cells": cells, "References": papers,
  "Provenance": provenance} -%}
"""
