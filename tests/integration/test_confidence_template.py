"""The plot template `confidence` in a real DVC repository, rendered to SVG as a browser would."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert

from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures

TEMPLATE = Path(__file__).parents[2] / ".dvc" / "plots" / "confidence.json"
FOLDER = "nodes/EvaluateX/calibration"
PIPELINE = f"""
stages:
  EvaluateX:
    cmd: >-
      {Path(sys.executable).as_posix()} -c
      "import shutil; shutil.copytree('measured', '{FOLDER}')"
    deps: [measured]
    plots:
    - {FOLDER}:
        template: confidence
        x: confidence
        y: accuracy
"""
OLDEST, *_, NEWEST = (v for v in vl_convert.get_vegalite_versions() if v.startswith("5."))
SIDE = 330  # of a panel, in pixels


class Repository:
    """A DVC repository under git whose one stage plots the reliability tables it is given."""

    def __init__(self, path):
        self.path = path
        self.environment = os.environ | {
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(path / ".home"),
            "DVC_SYSTEM_CONFIG_DIR": str(path / ".home"),
            "DVC_SITE_CACHE_DIR": str(path / ".home"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
        }
        self.run("git", "init", "--quiet")
        self.dvc("init", "--quiet")
        (path / ".dvc" / "plots").mkdir()
        (path / ".dvc" / "plots" / TEMPLATE.name).write_bytes(TEMPLATE.read_bytes())
        (path / "dvc.yaml").write_text(PIPELINE)

    def run(self, *command):
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def dvc(self, *arguments):
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self, tag, tables):
        """Reproduce the stage on these tables and commit what came out under `tag`."""
        (self.path / "measured").mkdir(exist_ok=True)
        for name, table in tables.items():
            table.to_csv(self.path / "measured" / f"{name}.csv", index=False)
        self.dvc("repro", "--quiet")
        self.run("git", "add", "--all", ":!.home")
        self.run("git", "commit", "--quiet", "-m", tag)
        self.run("git", "tag", tag)

    def plots(self, *arguments):
        """The filled specification of each trainer's plot, by the trainer's name."""
        shown = json.loads(self.dvc("plots", *arguments, "--json"))
        assert "errors" not in shown
        return {Path(name).stem: plot["content"] for name, (plot,) in shown["data"].items()}


def reliability(seed, scale, n_images=500):
    """A table of a model that is too sure of itself (scale above 1) or not enough (below)."""
    generator = torch.Generator().manual_seed(seed)
    logits_NC = 3 * torch.randn(n_images, 10, generator=generator, dtype=torch.float64)
    labels_N = torch.multinomial(logits_NC.softmax(dim=1), 1, generator=generator)[:, 0]
    return CalibrationMeasures()(scale * logits_NC, labels_N).reliability


def sure_of_one_class(n_images, n_wrong):
    """A table with all images in the last bin."""
    logits_NC = torch.tensor([[9.0, 0.0]]).repeat(n_images, 1)
    labels_N = (torch.arange(n_images) < n_wrong).long()
    return CalibrationMeasures()(logits_NC, labels_N).reliability


FIRST = {
    "XEntropyAugmented": reliability(0, 1.8),
    "MaxEntropyL1": reliability(1, 0.5),
    "MaxEntropyL2": sure_of_one_class(n_images=1200, n_wrong=57),
}
SECOND = {
    "XEntropyAugmented": reliability(2, 1.4),
    "MaxEntropyL1": reliability(3, 0.8, n_images=30),
    "MaxEntropyL2": sure_of_one_class(n_images=1200, n_wrong=0),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.commit("first", FIRST)
    repository.commit("second", SECOND)
    return repository


@pytest.fixture(scope="module")
def shown(repository):
    return repository.plots("show")


@pytest.fixture(scope="module")
def compared(repository):
    return repository.plots("diff", "workspace", "first", "second")


def render(specification, version=OLDEST):
    svg = vl_convert.vegalite_to_svg(json.dumps(specification), vl_version=version)
    return ElementTree.fromstring(svg)


def marks(svg, layer):
    """The shapes of one layer of the template, panel after panel."""
    groups = (g for g in svg.iter() if f"{layer}_marks" in g.get("class", ""))
    return [shape for group in groups for shape in group]


def texts(svg):
    return [element.text for element in svg.iter() if element.tag.endswith("}text")]


def rectangle(shape):
    """Left, top, width and height in pixels of a path such as `M0,330h16.5v-33h-16.5Z`."""
    found = re.fullmatch(r"M([^,]+),([^h]+)h([^v]+)v([^h]+)h.*Z", shape.get("d"))
    return [float(number) for number in found.groups()]


def expected_bars(table: pd.DataFrame):
    """What the bars of a table are in pixels: y grows downwards."""
    left = table.bin_left * SIDE
    top = (1 - table.accuracy) * SIDE
    width = (table.bin_right - table.bin_left) * SIDE
    return pd.concat([left, top, width, table.accuracy * SIDE], axis=1).to_numpy()


def test_template_of_the_folder_makes_a_plot_a_trainer(shown):
    assert shown.keys() == SECOND.keys()


@pytest.mark.parametrize("trainer", SECOND)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_title_names_the_trainer_and_its_error(shown, trainer, version):
    table = SECOND[trainer]

    written = texts(render(shown[trainer], version))

    assert f"{trainer}: ECE {table.ece[0]:.3f}" in written
    assert f"workspace ({table['count'].sum():,} images)" in written
    assert not [text for text in written if re.search("DVC_METRIC|undefined|NaN|null", text)]


@pytest.mark.parametrize("trainer", SECOND)
def test_a_bar_for_each_bin_that_holds_images(shown, trainer):
    bars = [rectangle(bar) for bar in marks(render(shown[trainer]), "bars")]

    assert len(bars) == len(SECOND[trainer])
    assert bars == pytest.approx(expected_bars(SECOND[trainer]), abs=1e-3)


@pytest.mark.parametrize("trainer", SECOND)
def test_gaps_reach_from_accuracy_to_mean_confidence(shown, trainer):
    gaps = [rectangle(gap) for gap in marks(render(shown[trainer]), "gaps")]

    heights = [height for _, _, _, height in gaps]
    assert heights == pytest.approx(SECOND[trainer].gap.abs() * SIDE, abs=1e-3)


def test_gaps_are_coloured_by_their_direction(shown):
    table = SECOND["XEntropyAugmented"]
    gaps = marks(render(shown["XEntropyAugmented"]), "gaps")

    colours = {(gap.get("fill"), bool(sign)) for gap, sign in zip(gaps, table.gap < 0, strict=True)}
    assert len(colours) == 2
    assert len({fill for fill, _ in colours}) == 2


def test_diagonal_goes_from_corner_to_corner(shown):
    (diagonal,) = marks(render(shown["MaxEntropyL1"]), "diagonal")

    assert diagonal.get("d") == f"M0,{SIDE}L{SIDE},0"


def test_bars_fade_with_the_logarithm_of_their_share_of_images(shown):
    """A thousandth of the images or less has opacity .25, so that no bar is lost; all have 1."""
    count = SECOND["XEntropyAugmented"]["count"]
    strength = 1 + np.log10(count / count.sum()).clip(lower=-3) / 3

    bars = marks(render(shown["XEntropyAugmented"]), "bars")

    opacities = [float(bar.get("opacity")) for bar in bars]
    assert opacities == pytest.approx((0.25 + 0.75 * strength).tolist(), abs=1e-3)


@pytest.mark.parametrize("trainer", FIRST)
def test_diff_gives_each_revision_a_panel_of_its_own(compared, trainer):
    """The workspace holds what `second` holds: equal numbers must not fall together either."""
    revisions = {"workspace": SECOND, "first": FIRST, "second": SECOND}
    tables = [tables[trainer] for tables in revisions.values()]
    svg = render(compared[trainer])

    written = texts(svg)
    titles = [text for text in written if text.startswith(f"{trainer}: ECE ")]
    subtitles = [text for text in written if text.endswith(" images)")]
    bars = [rectangle(bar) for bar in marks(svg, "bars")]
    assert titles == [f"{trainer}: ECE {table.ece[0]:.3f}" for table in tables]
    assert subtitles == [
        f"{revision} ({table['count'].sum():,} images)"
        for revision, table in zip(revisions, tables, strict=True)
    ]
    assert bars == pytest.approx(np.concatenate([expected_bars(t) for t in tables]), abs=1e-3)
    assert len(marks(svg, "diagonal")) == 3


def test_all_images_in_one_bin_make_one_bar(compared):
    bars = [rectangle(bar) for bar in marks(render(compared["MaxEntropyL2"]), "bars")]

    left, width, wrong = 0.95 * SIDE, 0.05 * SIDE, 57 / 1200 * SIDE
    assert len(bars) == 3
    assert bars[1] == pytest.approx([left, wrong, width, SIDE - wrong])


def test_bin_centre_can_stand_on_the_axis_and_a_title_be_given(repository):
    specification = repository.plots(
        "show", FOLDER, "-x", "bin_centre", "--title", """Anna's "own" model"""
    )["XEntropyAugmented"]
    table = SECOND["XEntropyAugmented"]

    svg = render(specification)

    assert f"""Anna's "own" model: ECE {table.ece[0]:.3f}""" in texts(svg)
    heights = [rectangle(gap)[3] for gap in marks(svg, "gaps")]
    assert heights == pytest.approx((table.accuracy - table.bin_centre).abs() * SIDE, abs=1e-3)
