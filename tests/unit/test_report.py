"""The evaluation's page: whole, without the network, and what its words say."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from jemtrack.evaluation.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.model_outputs import ModelOutputs
from jemtrack.evaluation.report import pictures
from jemtrack.evaluation.report.page import Cell, Section, page
from jemtrack.evaluation.report.sections import evaluation_page
from jemtrack.evaluation.report.verdicts import (
    best_model,
    detection_verdict,
    robustness_verdicts,
    verdict,
)
from jemtrack.evaluation.results import (
    Findings,
    OtherFindings,
    Statistics,
    compared,
    confusions,
    histogram,
    outlier_detection,
    selective_curve,
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


def said(seed, sure, n=200, own=True):
    """What a model says that is the surer of the label, the higher `sure`."""
    stream = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, generator=stream)
    if own:
        logits[torch.arange(n), LABELS[:n]] += sure
    mass, distance = -torch.rand(2, n, generator=stream)
    return ModelOutputs(logits, logits.logsumexp(1), mass, distance)


def findings(models=("Good", "Bad"), partners=("letters", "uniform"), n_resamples=200):
    sure = dict(zip(models, (4.0, 0.5), strict=False))
    measured = {name: said(i, sure[name]) for i, name in enumerate(models)}
    statistics = Statistics(seed=0, n_resamples=n_resamples)
    outliers = {
        partner: {name: said(9 + i, 0, 90, own=False) for i, name in enumerate(models)}
        for partner in partners
    }
    calibrations = {n: CalibrationMeasures()(s.logits_NC, LABELS) for n, s in measured.items()}
    return Findings(
        metrics={name: {**each.metrics, "auroc": {}} for name, each in calibrations.items()},
        calibration={name: each.reliability for name, each in calibrations.items()},
        comparison=compared(measured, LABELS, statistics),
        detection=outlier_detection(measured, outliers, statistics),
        energies={n: histogram(s, s, {}, "test") for n, s in measured.items()},
        risk_coverage={name: selective_curve(each, LABELS) for name, each in measured.items()},
        confusion=confusions(measured, LABELS),
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


def whole_page(found=None, **changed):
    others = {
        "robustness": robustness(),
        "grids": {"Good": b"png"},
        "samples": {"Good": {"x": 1.0}},
    }
    return evaluation_page(
        title="EvaluateX: <digits>",
        facts={"measured on": "200 images", "commit": "abc"},
        findings=found or findings(),
        others=OtherFindings(**(others | changed)),
        parameters={"Good": {"params.lr": "0.001", "params.note": "<b>"}},
    )


def test_the_page_is_whole_and_needs_no_network():
    text = whole_page()

    read = Whole(text)
    assert {"svg", "table", "img", "figcaption", "details"} <= read.names
    assert not {"script", "link", "iframe"} & read.names
    for address in read.addresses:
        assert address.startswith(("#", "data:image/png;base64,")), address
    assert not re.search(r"url\((?!#)|@import", text)
    assert "<digits>" not in text
    assert "<b></td>" not in text
    for words in ("measured on", "200 images", "commit", "params.lr", "0.001", "No attacks"):
        assert (words in " ".join(read.words)) == (words != "No attacks")


def test_links_lead_to_the_sections():
    text = whole_page()

    links = re.findall(r'<a href="#([^"]+)">', text)
    assert links == re.findall(r'<section id="([^"]+)"', text)
    assert links[0] == "in-short"
    assert {"figures", "calibration", "outliers", "robustness", "samples", "made-by"} <= {*links}


def test_equal_findings_make_equal_pages():
    assert whole_page() == whole_page()


def test_what_was_not_measured_has_no_section():
    text = whole_page(
        findings(models=("Good",), partners=()),
        robustness=pd.DataFrame(),
        grids={},
        samples={},
    )

    Whole(text)
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert not {"outliers", "robustness", "samples"} & {*sections}
    assert "tell it from" not in text


def test_without_attacks_the_page_says_what_they_need():
    assert "jemtrack[attacks]" in whole_page(robustness=robustness(attacks=False))


@pytest.mark.parametrize(
    ("measure", "best"), [("accuracy", "Good"), ("nll", "Good"), ("brier", "Good")]
)
def test_a_sure_difference_is_said_to_be_one(measure, best):
    comparison = findings().comparison

    assert best_model(comparison.figures, measure) == best
    line = verdict(comparison, measure, "Use", "{:.2f}".format)
    assert line.startswith(f"*Use: Good* ({measure} ")
    assert line.endswith("It is surely better than Bad.")


def test_what_the_images_do_not_tell_is_said_not_to_be_told():
    same = {name: said(1, 2.0) for name in ("One", "Two", "Three")}
    comparison = compared(same, LABELS, Statistics(0, 200))

    line = verdict(comparison, "accuracy", "Use", str)
    assert line.endswith("These images do not tell it from Two and Three.")


def test_the_best_score_is_named_with_its_hardest_outliers():
    found = findings().detection
    line = detection_verdict(found.figures, found.pairs)

    assert "*Noticing what it has never seen: Good* by log_density" in line
    assert "2 kinds of outliers" in line
    assert line.endswith("surely better than all others on letters and uniform.")


def test_robustness_names_the_best_by_mean_accuracy():
    corrupted, attacked = robustness_verdicts(robustness())

    assert corrupted == (
        "*Seeing through corruptions: Good* (mean accuracy: Good 90.0%, Bad 80.0%)."
    )
    assert attacked.startswith("*Withstanding attacks: Good*")
    assert robustness_verdicts(pd.DataFrame()) == []


def test_a_line_between_asterisks_is_bold_and_nothing_is_markup():
    section = Section("A & B")
    section.points(["*<i>x</i>* rest"])
    section.table(["<h>"], [[Cell("<c>", "<d>")]], under="<s>")

    text = page("t", {}, [section])
    assert "<b>&lt;i&gt;x&lt;/i&gt;</b> rest" in text
    assert all(f"&lt;{name}&gt;" in text for name in "hcds")
    assert section.anchor == "a-b"


def test_a_picture_s_words_are_words_and_escaped():
    figure = Figure()
    figure.subplots().set_title("<script>")

    svg = pictures.as_svg(figure)
    assert svg.startswith("<svg")
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg
