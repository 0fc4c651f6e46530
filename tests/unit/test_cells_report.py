"""The page of an evaluation of cells, and the intervals on it."""

import numpy as np
import pandas as pd
import pytest
from test_report import Whole

from jemtrack.evaluation.cell_intervals import half_widths, subset_scores
from jemtrack.evaluation.cell_report import CellPage, render

SETS = {"held_out": "Held-out cells", "all": "All cells"}


def test_intervals_of_a_mean_are_those_of_its_standard_error():
    values = np.random.default_rng(1).normal(size=300)

    subsets = subset_scores(lambda chosen: {"mean": values[chosen].mean()}, 300, 400, seed=2)

    expected = 1.96 * values.std(ddof=1) / np.sqrt(300)
    assert half_widths(subsets)["mean"] == pytest.approx(expected, rel=0.15)
    again = subset_scores(lambda chosen: {"mean": values[chosen].mean()}, 300, 400, seed=2)
    assert again.equals(subsets)


def page(**options) -> CellPage:
    scores = [
        {"cells": cells, "embedding": name, "n_cells": 90, "bio": bio, "batch": 0.5, "total": bio,
         "ilisi": np.nan, "pcr": 0.25, "pcr_half": 0.05, "bio_gain_half": 0.02,
         "batch_gain_half": 0.1}
        for cells in SETS
        for name, bio in (("X_inVAE", 0.875), ("X_pca", 0.75))
    ]  # fmt: skip
    values = {
        "title": "EvaluateCells: 90 cells of <mine>",
        "scores": pd.DataFrame(scores),
        "likelihood": {"nll": (12.5, 0.25)},
        "grid": b"\x89PNG",
        "projection": "UMAP",
        "counts": pd.DataFrame({"b1": [3, 4], "b2": [5, 6]}, index=["t1", "no label"]),
        "parameters": {"neighbours": "90"},
        "model": {"MD5": "0123"},
        "code": "commit 4567",
        "changed_files": ["src/x.py"],
    }
    return CellPage(**{**values, **options})


def test_the_page_is_whole_and_says_what_was_measured():
    found = Whole(render(page(), SETS, "X_inVAE", "X_pca"))

    words = " ".join(" ".join(found.words).split())
    assert (
        "0.875, +0.125 beside X_pca (0.750); interval of the difference +0.105 to +0.145." in words
    )
    assert "-0.100 to +0.100, so it may be 0." in words
    assert "0.200 to 0.300" in words
    assert "12.2 to 12.8" in words
    assert "EvaluateCells: 90 cells of <mine>" in words
    assert "iLISI" not in {*found.words}  # it could not be measured
    assert all(each.startswith(("#", "data:")) for each in found.addresses)


def test_what_was_not_measured_has_no_section():
    without = page(scores=page().scores.iloc[:0], likelihood={})

    found = Whole(render(without, SETS, "X_inVAE", "X_pca"))

    assert "#measures" in found.addresses
    assert "#likelihood" not in found.addresses
    assert "There are too few labelled held-out cells." in " ".join(found.words)
