"""The evaluation's page: whole, without the network, and what its words say."""

import functools
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
from jemtrack.evaluation.report.page import PageContent, render
from jemtrack.evaluation.report.summary import (
    best_model,
    detection_verdict,
    robustness_verdicts,
    verdict,
)

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
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
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


def robustness(models=("Good", "Bad"), attacks=True):
    rows = [
        {"model": model, "group": group, "kind": kind, "strength": strength,
         "accuracy": 0.9 - 0.1 * i, "low": 0.5, "high": 0.95, "count": 10}
        for i, model in enumerate(models)
        for group, kind in [("corruption", "none"), ("corruption", "blur"), ("attack", "pgd_l2")]
        for strength in ([0] if kind == "none" else [1, 2])
        if attacks or group != "attack"
    ]  # fmt: skip
    return pd.DataFrame(rows)


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
        assert address.startswith(("#", "data:image/png;base64,")), address
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
    ):
        assert words in " ".join(read.words)
    assert "No attacks" not in " ".join(read.words)
    for title in ("Most accurate", "Best calibrated", "Best out-of-distribution detection"):
        assert f"<li><b>{title}: Good" in text


def test_links_lead_to_the_sections(undrawn):
    text = whole_page()

    links = re.findall(r'<a href="#([^"]+)">', text)
    assert links == re.findall(r'<section id="([^"]+)"', text)
    assert links == [
        "summary", "measures", "calibration", "selective-classification", "confusion", "energies",
        "out-of-distribution-detection", "robustness", "samples", "provenance",
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
        robustness=pd.DataFrame(),
        grids={},
        samples={},
    )

    Whole(text)
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert not {"out-of-distribution-detection", "robustness", "samples"} & {*sections}
    assert "ignificantly" not in text


def test_without_attacks_the_page_says_what_they_need(undrawn):
    assert "jemtrack[attacks]" in whole_page(robustness=robustness(attacks=False))


def test_code_that_differs_from_the_commit_is_named(undrawn):
    words = "".join(Whole(whole_page(changed_files=["src/a.py", "src/b.py"])).words)

    assert "commit abc with changes" in words
    assert "commit abc, with changes in src/a.py, src/b.py." in words
    assert "with changes" not in whole_page()


def test_all_models_that_are_not_significantly_worse_are_bold(undrawn):
    """Of equal models all, whatever chance has made of their figures; of others the best."""
    for found, n_bold in ((results(), 1), (results(("One", "Two", "Three"), same=True), 3)):
        text = whole_page(results=found, robustness=pd.DataFrame())
        metrics = text[text.index('<section id="measures">') :]
        row = re.search(r"<tr><td[^>]*>accuracy.*?</tr>", metrics, re.DOTALL)[0]
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

    _, text = verdict(tables["figures"], tables["tests"], "accuracy", "Use", str)
    assert text.endswith("Not significantly different from Two and Three.")


def test_the_best_score_is_named_with_its_hardest_outliers():
    tables = results().tables
    title, text = detection_verdict(tables["outliers"], tables["tests_outliers"])

    assert title == "Best out-of-distribution detection: Good by log_density."
    assert "2 kinds of outliers" in text
    assert text.endswith("significantly better than all other models on letters and uniform.")


def test_robustness_names_the_best_by_mean_accuracy():
    corrupted, attacked = robustness_verdicts(robustness())

    assert corrupted == (
        "Most robust to corruptions: Good.",
        "Mean accuracy: Good 90.0%, Bad 80.0%.",
    )
    assert attacked[0] == "Most robust to attacks: Good."
    assert robustness_verdicts(pd.DataFrame()) == []


def test_nothing_that_a_user_names_is_markup():
    name = "<i>&x</i>"
    rows = robustness(models=("Good", "Bad")).replace({"blur": name})

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
