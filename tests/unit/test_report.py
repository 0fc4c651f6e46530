"""The evaluation's page: whole, without the network, and what its words say."""

import base64
import csv
import functools
import io
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.models.evaluate import MEASURED, TRAIN, Statistics, evaluate
from jemtrack.evaluation.models.model_outputs import ModelOutputs
from jemtrack.evaluation.report import pictures
from jemtrack.evaluation.report.content import Examples, Misclassified, PageContent, Robustness
from jemtrack.evaluation.report.page import render
from jemtrack.evaluation.report.summary import best_model, detection_verdict, verdict
from jemtrack.evaluation.report.tables import Cell, Table
from jemtrack.evaluation.statistics.means import compare_means

EMPTY = {"area", "br", "col", "hr", "img", "input", "link", "meta"}
LABELS = torch.arange(200) % 4


class Whole(HTMLParser):
    """Reads a page; holds that every element is closed, and keeps what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.names: set[str] = set()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)
        self.addresses += [v for k, v in attrs if k in {"href", "src", "xlink:href", "action"}]

    def handle_startendtag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in {"href", "src", "xlink:href"}]

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def outputs_of(seed, sure, n=200, own=True):
    """A model's outputs, the more confident of the label, the higher `sure`."""
    stream = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, generator=stream)
    if own:
        logits[torch.arange(n), LABELS[:n]] += sure
    mass, distance = -torch.rand(2, n, generator=stream)
    return ModelOutputs(logits, logits.logsumexp(1), mass, distance)


@functools.cache
def results(models=("Good", "Bad"), partners=("letters", "uniform"), same=False):
    sure = dict(zip(models, (4.0, 0.5), strict=False))
    outputs = {}
    for i, name in enumerate(models):
        measured = outputs_of(1, 2.0) if same else outputs_of(i, sure[name])
        outliers = {partner: outputs_of(9 + i, 0, 90, own=False) for partner in partners}
        outputs[name] = {MEASURED: measured, TRAIN: measured, **outliers}
    return evaluate(
        outputs,
        {MEASURED: LABELS},
        split="test",
        measures=CalibrationMeasures(),
        statistics=Statistics(seed=0, n_resamples=200),
    )


def robustness(models=("Good", "Bad"), corruption="blur"):
    rows = [
        {"model": model, "group": group, "kind": kind, "strength": strength,
         "accuracy": 0.9 - 0.1 * i, "low": 0.5, "high": 0.95, "count": 10}
        for i, model in enumerate(models)
        for group, kind in [("corruption", "none"), ("corruption", corruption), ("attack", "pgd")]
        for strength in ([0] if kind == "none" else [1, 2])
    ]  # fmt: skip
    right = {m: (torch.arange(100) < 90 - 10 * i).double().numpy() for i, m in enumerate(models)}
    names = ["corruption", "attack", corruption]
    return Robustness(pd.DataFrame(rows), *compare_means(dict.fromkeys(names, right), seed=0))


FACTS = {
    "dataset": "quarters", "split": "test", "n_images": 200, "noise": True, "level": 0.95,
    "outliers": {"letters": 90, "uniform": 90}, "n_resamples": 200, "md5": {"Good": "0123"},
}  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the pictures, which take seconds to draw."""
    monkeypatch.setattr(pictures, "as_svg", lambda figure: "<svg></svg>")


def whole_page(**changed):
    content = {
        "title": "EvaluateX: <digits>",
        "facts": FACTS,
        "results": results(),
        "robustness": robustness(),
        "grids": {"Good": b"png"},
        "samples": {"Good": {"x": 1.0}},
        "examples": Examples(
            b"real", {"letters": b"a"}, {"blur": b"b"}, {"Good": [Misclassified(b"c", 3, 5, 0.987)]}
        ),
        "histories": {"Good": pd.DataFrame({"epoch": [1, 2], "valid_nll": [2.0, 1.5]})},
        "training": {"Good": {"weights": "303,307", "seconds": "12"}},
        "data": {"licence": "CC BY 4.0"},
        "counts": pd.DataFrame({"train": [7, 8], "test": [2, 3]}),
        "environment": {"Python": "3.11.7"},
        "code": "commit abc",
        "parameters": {"Good": {"params.lr": "0.001", "params.note": "<b>"}},
    }
    return render(PageContent(**(content | changed)))


def test_the_page_is_whole_and_needs_no_network():
    text = whole_page()

    read = Whole(text)
    assert text.startswith("<!DOCTYPE html>")
    assert {"svg", "table", "img", "figcaption", "details"} <= read.names
    assert not {"script", "link", "iframe"} & read.names
    for address in read.addresses:
        assert address.startswith(("#", "data:image/png;base64,", "data:text/plain;")), address
    assert not re.search(r"url\((?!#)|@import", text)
    assert "<digits>" not in text
    assert "<b></td>" not in text
    for words in (
        "200 test images of quarters",
        "90 letters, 90 uniform",
        "at 95%",
        "commit abc",
        "0123",
        "params.lr",
        "0.001",
        "303,307",
        "CC BY 4.0",
        "3.11.7",
        "Guo et al., On Calibration of Modern Neural Networks",
    ):
        assert words in " ".join(read.words)
    for title in ("Most accurate", "Most likely labels", "Best OOD detection"):
        assert f"<li><b>{title}: Good" in text


def test_links_lead_to_the_sections(undrawn):
    text = whole_page()

    links = re.findall(r'<a href="#([^"]+)">', text)
    assert links == re.findall(r'<section id="([^"]+)"', text)
    assert links == [
        "summary", "metrics", "training", "calibration", "selective-prediction",
        "confusion-matrices", "ood-detection", "energy-distributions", "corruption-robustness",
        "samples", "data", "references", "provenance",
    ]  # fmt: skip


def test_equal_results_make_equal_pages():
    assert whole_page() == whole_page()


def test_every_figure_stands_on_the_page(undrawn):
    found = results()

    words = " ".join(Whole(whole_page(results=found)).words)

    for row in found.tables["figures"].to_dict("records"):
        assert all(f"{row[name]:.4f}" in words for name in ("value", "low", "high"))
    for row in found.tables["outliers"].to_dict("records"):
        assert all(
            f"{row[name]:.3f}" in words for name in ("auroc", "aupr_in", "aupr_out", "fpr95")
        )
    for metrics in found.metrics.values():
        assert all(f"{value:.4f}" in words for value in metrics.values())


def test_what_was_not_measured_has_no_section(undrawn):
    text = whole_page(
        results=results(models=("Good",), partners=()),
        robustness=Robustness(),
        grids={},
        samples={},
        training={},
        data={},
    )

    Whole(text)
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert sections == [
        "summary", "metrics", "calibration", "selective-prediction", "confusion-matrices",
        "energy-distributions", "references", "provenance",
    ]  # fmt: skip
    assert "ignifican" not in text
    assert 'class="best"' not in text


def test_code_that_differs_from_the_commit_is_named(undrawn):
    words = "".join(Whole(whole_page(changed_files=["src/a.py", "src/b.py"])).words)

    assert "commit abc with changes" in words
    assert "commit abc, with changes in src/a.py, src/b.py." in words
    assert "with changes" not in whole_page()


def test_all_models_that_are_not_significantly_worse_are_bold(undrawn):
    """Of equal models all, whatever chance has made of their figures; of others the best."""
    for found, n_bold in ((results(), 1), (results(("One", "Two", "Three"), same=True), 3)):
        text = whole_page(results=found, robustness=Robustness())
        metrics = text[text.index('<section id="metrics"') :]
        row = re.search(r"<tr><th[^>]*>accuracy.*?</tr>", metrics, re.DOTALL)[0]
        assert row.count('class="best"') == n_bold


@pytest.mark.parametrize(
    ("measure", "best"), [("accuracy", "Good"), ("nll", "Good"), ("brier", "Good")]
)
def test_a_significant_difference_is_said_to_be_one(measure, best):
    tables = results().tables

    assert best_model(tables["figures"], measure) == best
    title, text = verdict(tables["figures"], tables["tests"], measure, "Use", "{:.2f}".format)
    assert title == "Use: Good."
    assert text.lower().startswith(f"{measure} ")
    assert text.endswith("Significantly better than Bad.")


def test_what_the_images_do_not_tell_is_said_not_to_be_told():
    tables = results(("One", "Two", "Three"), same=True).tables

    title, text = verdict(tables["figures"], tables["tests"], "accuracy", "Use", str)
    assert title == "Use: no significant difference."
    assert text.startswith("One: Accuracy ")
    assert text.endswith("Not significantly different from Two and Three.")


def test_the_best_score_is_named_with_its_hardest_outliers():
    tables = results().tables
    title, text = detection_verdict(tables["outliers"], tables["tests_outliers"])

    assert title == "Best OOD detection: Good by log p̃(x)."
    assert "2 kinds of outliers" in text
    assert text.endswith(
        "Significantly better than all other models by this score on letters and uniform."
    )


def test_robustness_is_ranked_with_intervals_and_tests(undrawn):
    text = whole_page()

    for group in ("corruptions", "attacks"):
        assert f"<b>Most robust to {group}: Good.</b> Mean accuracy 90.0%, " in text
    assert "Significantly better than Bad." in text
    assert "Most robust" not in whole_page(robustness=Robustness())


def test_a_reader_who_does_not_see_is_told_what_is_shown():
    read = Whole(whole_page())

    svgs = [attrs for tag, attrs in read.tags if tag == "svg"]
    assert len(svgs) > 10
    assert all(attrs["role"] == "img" for attrs in svgs)
    assert len([tag for tag, _ in read.tags if tag == "title"]) == 1 + len(svgs)
    assert all(attrs["alt"] for tag, attrs in read.tags if tag == "img")
    assert all(attrs["scope"] in {"row", "col"} for tag, attrs in read.tags if tag == "th")
    rows = [tag for tag, _ in read.tags].count("tr")
    heads = [attrs["scope"] for tag, attrs in read.tags if tag == "th"].count("row")
    tables = [attrs["aria-label"] for tag, attrs in read.tags if tag == "table"]
    assert heads == rows - len(tables)
    assert "Image of class 3, classified as 5" in [attrs.get("alt") for _, attrs in read.tags]


def test_each_table_can_be_downloaded_from_the_page_itself(undrawn):
    tags = Whole(whole_page()).tags

    files = {attrs["download"]: attrs["href"] for tag, attrs in tags if "download" in attrs}
    n_tables = [tag for tag, _ in tags].count("table")
    assert len(files) == 2 * n_tables
    content = base64.b64decode(files["main-metrics.csv"].partition(",")[2]).decode()
    header, *rows = csv.reader(io.StringIO(content))
    assert header == ["", "Good", "Good interval", "Bad", "Bad interval"]
    figures = results().tables["figures"].set_index(["model", "measure"])
    assert rows[0][:2] == ["accuracy ↑", f"{figures.loc[('Good', 'accuracy'), 'value']:.4f}"]


def test_a_table_in_latex_is_escaped_and_has_what_is_bold():
    table = Table(["a_b", "M&M"], [[Cell("50%"), Cell("0.9", "0.8 to 1.0", best=True)]])

    assert table.latex().splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r"a\_b & M\&M \\", r"\midrule",
        r"50\% & \textbf{0.9} (0.8 to 1.0) \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def test_only_the_parameters_that_differ_are_set_side_by_side(undrawn):
    parameters = {
        "Good": {"params.lr": "0.1", "params.width": "2", "objective._cls": "a.b.L1"},
        "Bad": {"params.lr": "0.1", "params.width": "4", "objective._cls": "a.b.L2"},
        "PrepareData": {"params.seed": "1"},
    }
    text = whole_page(parameters=parameters)
    differing = text[text.index('aria-label="Parameters that differ') :].partition("</table>")[0]

    assert re.findall(r'<th scope="row">(.*?)</th>', differing) == ["params.width", "objective"]
    assert re.findall(r"<td>(.*?)</td>", differing) == ["2", "4", "L1", "L2"]


@pytest.mark.parametrize(
    ("counts", "bars"), [([1, 2, 30, 3], [36]), ([20, 4, 8, 9, 15], [20, 12, 24])]
)
def test_neighbouring_bins_of_few_images_share_a_bar(counts, bars):
    n_bins = len(counts)
    edges = torch.arange(n_bins + 1).double().numpy() / n_bins
    table = pd.DataFrame(
        {"bin_left": edges[:-1], "bin_right": edges[1:], "confidence": edges[1:], "gap": 0.0,
         "accuracy": 0.5, "count": counts}
    )  # fmt: skip

    merged = pictures.merged_bins(table, 10)

    assert merged["count"].tolist() == bars
    assert merged["bin_left"].tolist() == [0, *merged["bin_right"].tolist()[:-1]]
    assert merged["accuracy"].tolist() == pytest.approx([0.5] * len(bars))
    mean = (table["confidence"] * table["count"]).sum() / sum(counts)
    assert (merged["confidence"] * merged["count"]).sum() / sum(counts) == pytest.approx(mean)


def test_nothing_that_a_user_names_is_markup():
    name = "<i>&x</i>"
    rows = robustness(corruption=name)

    text = whole_page(title=name, robustness=rows, parameters={name: {name: name}}, code=name)

    Whole(text)
    assert name not in text
    assert text.count("&lt;i&gt;&amp;x&lt;/i&gt;") > 7


def test_a_picture_s_words_are_words_and_escaped():
    figure = Figure()
    figure.subplots().set_title("<script>")

    svg = pictures.as_svg(figure)
    assert svg.startswith("<svg")
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg
