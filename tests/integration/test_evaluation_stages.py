"""Outliers, robustness, samples and the evaluation over them, run in this process."""

import hashlib
import importlib.util
import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from stage_runs import N_CLASSES, SMALL, metrics_in, prepared_file, ran, weights_in

from jemtrack.data.images import DataSplits, load_outliers
from jemtrack.evaluation.attacks import correct_under_attack
from jemtrack.evaluation.models.model_outputs import load_outputs
from jemtrack.jem.networks.inference import predict
from jemtrack.jem.networks.model_file import load_model
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.stages.draw_samples import DrawSamples, SampleArgs
from jemtrack.stages.evaluate_x import EvalArgs, EvaluateX
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.measure_robustness import MeasureRobustness, RobustnessArgs
from jemtrack.stages.prepare_outliers import OutlierArgs, PrepareOutliers
from jemtrack.stages.report import Report
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented

FEW = {"n_resamples": 100, "threads": 1}
ATTACKED = RobustnessArgs(
    corruptions=["blur"], linf_radii=[0.1], l2_radii=[1.0], n_steps=2, threads=1
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which everything here stands in."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def models(n_epochs: int = 6) -> list[Path]:
    params = TrainArgs(**{**SMALL, "n_epochs": n_epochs, "lr": 5e-3})
    return [
        ran(cls(data=prepared_file(), params=params)) / "model.safetensors"
        for cls in (XEntropyAugmented, MaxEntropyL2)
    ]


def reported(evaluated: EvaluateX, **others: list[Path]) -> str:
    """Write the page of an evaluation that has run."""
    names = ("facts", "tables", "calibration", "energies", "risk_coverage", "roc", "outputs")
    given = {name: getattr(evaluated, name) for name in (*names, "data", "models")}
    node = Report(**given, **others)
    return (ran(node) / "report.html").read_text()


def outliers(**changed) -> Path:
    node = PrepareOutliers(data=prepared_file(), params=OutlierArgs(n_images=30, **changed))
    return ran(node) / "outliers.safetensors"


def test_the_whole_evaluation_writes_what_it_found_once_and_again(project):
    trained, images = models(), outliers()
    robust = ran(MeasureRobustness(data=prepared_file(), models=trained, params=ATTACKED))
    drawn = ran(
        DrawSamples(data=prepared_file(), models=trained, features=trained[0],
                    params=SampleArgs(n_per_class=3, threads=1), sampler=LangevinSampler(n_steps=4))
    )  # fmt: skip

    evaluated = EvaluateX(
        data=prepared_file(), models=trained, outliers=[images], params=EvalArgs(**FEW)
    )

    def evaluate() -> dict[str, bytes]:
        folder = ran(evaluated)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "resources.json"
        }

    def report() -> str:
        return reported(
            evaluated,
            histories=[path.with_name("history.csv") for path in trained],
            outliers=[images],
            robustness=[robust / "curves"],
            robustness_tables=[robust / "tables"],
            samples=[drawn / "grids"],
            sample_metrics=[drawn / "metrics.json"],
        )

    once, again = evaluate(), evaluate()

    assert once == again
    names = ("XEntropyAugmented", "MaxEntropyL2")
    for folder in ("calibration", "energies", "risk_coverage", "roc"):
        assert {f"{folder}/{name}.csv" for name in names} <= once.keys()
    assert "report.html" not in once
    page = report()
    assert page == report()
    for words in ("Most robust to attacks", "Samples of MaxEntropyL2", "git repository",
                  "params.n_resamples", "16 test images of quarters", "30 letters"):  # fmt: skip
        assert words in page
    md5 = hashlib.md5(trained[0].read_bytes(), usedforsecurity=False).hexdigest()
    assert f"<td>{md5}</td>" in page
    # What a reviewer looks for, of the small project that this is.
    for words in (
        "48 train, 12 valid, 16 test",
        "validation NLL",
        "objective.entropy_weight",
        "Outliers: letters",
        "severities 1 to 5: blur",
        "not known to jemtrack",
    ):
        assert words in page
    n_weights = sum(weight.numel() for weight in weights_in(trained[0].parent).values())
    assert f"<td>{n_weights:,}</td>" in page
    # The trainers' order, in which no folder of files is.
    assert page.index("Samples of XEntropyAugmented") < page.index("Samples of MaxEntropyL2")
    metrics = metrics_in(Path("nodes/EvaluateX"))
    assert [*metrics] == [*names]
    for found in metrics.values():
        assert {"accuracy", "nll", "ece", "aurc", "temperature", "ece_at_temperature"} <= {*found}
    outliers_found = pd.read_csv("nodes/EvaluateX/tables/outliers.csv")
    assert {*outliers_found["partner"]} == {"letters", "permuted", "interpolated", "uniform"}
    assert {*outliers_found["score"]} == {
        "log_density", "max_probability", "negative_entropy", "approximate_mass", "mahalanobis",
    }  # fmt: skip
    for name in names:
        shown = json.loads(Path(f"nodes/EvaluateX/metrics/{name}.json").read_text())
        assert [*shown] == ["accuracy", "nll", "ece", "auroc"]
        assert shown == pytest.approx({key: metrics[name][key] for key in shown})
        by_density = outliers_found.query("model == @name and score == 'log_density'")
        assert shown["auroc"] == pytest.approx(by_density["auroc"].mean())


def test_what_is_stored_is_what_the_models_say():
    trained = models()
    folder = ran(EvaluateX(data=prepared_file(), models=trained, params=EvalArgs(**FEW)))

    stored = load_outputs((folder / "outputs.safetensors").read_bytes(), "x")
    data = DataSplits.load(prepared_file())
    for path in trained:
        model, _, notes = load_model(path)
        said = predict(model, data.test, sigma=float(notes["sigma"]), seed=data.seed)
        found = stored.outputs[path.parent.name]
        torch.testing.assert_close(found.logits_NC, said.logits_NC)
        torch.testing.assert_close(found.log_density_N, said.log_density_N)
    assert torch.equal(stored.labels_N, data.test.labels_N)


def test_an_evaluation_without_other_stages_has_what_needs_none():
    node = EvaluateX(data=prepared_file(), models=models()[:1], params=EvalArgs(**FEW))

    folder = ran(node)

    assert "auroc" not in metrics_in(folder)["XEntropyAugmented"]
    assert not [*(folder / "roc").iterdir()]
    page = reported(node)
    assert 'id="ood-detection"' not in page
    assert 'id="samples"' not in page
    assert "outliers <b>none</b>" in page


def test_the_temperature_comes_from_the_validation_images_alone():
    trained = models()
    test, valid = (
        metrics_in(
            ran(
                EvaluateX(data=prepared_file(), models=trained, params=EvalArgs(split=split, **FEW))
            )
        )["MaxEntropyL2"]
        for split in ("test", "valid")
    )

    assert test["nll_at_temperature"] != test["nll"]
    assert "temperature" not in valid


def test_outliers_are_those_that_were_asked_for():
    found = load_outliers(outliers(partners=["uniform", "letters"]))

    assert {name: each.shape for name, each in found.items()} == {
        "letters": (30, 1, 8, 8),
        "uniform": (30, 1, 8, 8),
    }


def test_a_kind_of_outliers_that_is_not_known_is_named_by_its_parameter():
    with pytest.raises(
        SystemExit, match=r"params\.yaml: PrepareOutliers\.params\.partners must be"
    ):
        outliers(partners=["fog"])


def test_corruptions_cost_accuracy_and_attacks_more_so():
    params = RobustnessArgs(
        corruptions=["blur", "gaussian_noise"],
        linf_radii=[0.5, 0.001],
        l2_radii=[8.0],
        n_steps=5,
        threads=1,
    )

    folder = ran(MeasureRobustness(data=prepared_file(), models=models(20), params=params))

    metrics = metrics_in(folder)["MaxEntropyL2"]
    table = pd.read_csv(folder / "curves" / "MaxEntropyL2.csv", keep_default_na=False)
    assert len(table) == 1 + 2 * 5 + 3
    assert metrics["accuracy"] > 0.9
    assert metrics["corrupted"] <= metrics["accuracy"]
    assert metrics["blur"] == pytest.approx(table[table["kind"] == "blur"]["accuracy"].mean())
    assert metrics["pgd_linf_0.001"] == pytest.approx(metrics["accuracy"], abs=0.1)
    assert metrics["pgd_linf_0.5"] < 0.2
    assert metrics["pgd_l2_8"] < 0.2
    assert (table["low"] <= table["accuracy"]).all()
    figures = pd.read_csv(folder / "tables" / "figures.csv").set_index(["measure", "model"])
    means = figures["value"].xs("MaxEntropyL2", level="model")
    assert means["blur"] == pytest.approx(metrics["blur"])
    assert means["corruption"] == pytest.approx(metrics["corrupted"])
    assert means["attack"] == pytest.approx(table[table["group"] == "attack"]["accuracy"].mean())
    assert [*means.index] == [
        "corruption", "attack", "blur", "gaussian_noise", "pgd_linf", "pgd_l2",
    ]  # fmt: skip
    assert (figures["low"] <= figures["value"]).all()
    tests = pd.read_csv(folder / "tables" / "tests.csv")
    assert len(tests) == len(means)


def test_without_the_toolbox_attacks_are_refused_before_anything_is_measured(monkeypatch):
    def measure(**chosen):
        params = RobustnessArgs(corruptions=["blur"], threads=1, **chosen)
        stage = MeasureRobustness(data=prepared_file(), models=models(1)[:1], params=params)
        return metrics_in(ran(stage))["XEntropyAugmented"]

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(SystemExit, match=r"pip install 'jemtrack\[attacks\]'"):
        measure()
    assert {*measure(linf_radii=[], l2_radii=[])} == {"accuracy", "corrupted", "blur"}


class Linear(torch.nn.Module):
    """Two classes on either side of a plane, of images in [-1, 1]."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, images):
        score = images.flatten(1) @ self.weights
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_an_attack_on_a_plane_succeeds_where_the_plane_is_within_the_radius(norm, dual):
    """It is |w.x| over the dual norm of w away, and in pixels from 0 to 1 half as far."""
    weights = torch.randn(9, generator=torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(1)
    # Far from 0 and 255, so that the range of pixels is no wall.
    images = torch.randint(110, 146, (80, 1, 3, 3), dtype=torch.uint8, generator=stream)
    score = (images.flatten(1).float() / 127.5 - 1) @ weights
    labels = (score > 0).long()
    distance = score.abs() / weights.norm(p=dual) / 2
    radius = float(distance.median())

    for before in (np.ones(80, bool), np.arange(80) % 3 == 0, np.zeros(80, bool)):
        right = correct_under_attack(
            *(Linear(weights), images, labels, before),
            **{"n_classes": 2, "norm": norm, "radius": radius, "n_steps": 40, "seed": 0},
        )

        clear = ((distance - radius).abs() > 0.02 * radius).numpy()
        expected = (distance > radius).numpy() & before
        np.testing.assert_array_equal(right[clear], expected[clear])
        assert clear.sum() > 70


def test_samples_have_a_row_a_class_and_their_energies(project):
    trained = models()
    node = DrawSamples(
        data=prepared_file(),
        models=trained,
        features=trained[0],
        params=SampleArgs(n_per_class=3, threads=1),
        sampler=LangevinSampler(n_steps=30, pixel_clamp=True),
    )

    folder = ran(node)

    metrics = metrics_in(folder)
    grid = Image.open(folder / "grids" / "MaxEntropyL2.png")
    assert grid.size == (4 * (3 * 9 + 1), 4 * (N_CLASSES * 9 + 1))
    energies = pd.read_csv(folder / "energies" / "MaxEntropyL2.csv", float_precision="round_trip")
    assert energies["step"].iloc[-1] == 30
    assert metrics["MaxEntropyL2"]["energy"] == energies["energy"].iloc[-1]
    assert energies["energy"].iloc[-1] < energies["energy"].iloc[0]
    # A classifier's own chains end where it is sure of their class.
    assert metrics["XEntropyAugmented"]["recognised"] == 1
    assert all(np.isfinite(each["feature_distance"]) for each in metrics.values())


def test_chains_may_start_where_the_class_is():
    trained = models(1)
    still = LangevinSampler(n_steps=0)
    distances = {}
    for start in ("uniform", "class_gaussians"):
        node = DrawSamples(
            data=prepared_file(),
            models=trained[:1],
            features=trained[0],
            params=SampleArgs(n_per_class=8, start=start, threads=1),
            sampler=still,
        )
        distances[start] = metrics_in(ran(node))["XEntropyAugmented"]["feature_distance"]

    assert distances["class_gaussians"] < distances["uniform"] / 2


def test_the_results_of_an_evaluation_reach_the_trackers():
    made = models(n_epochs=1)
    Path("jemtrack.yaml").write_text("trackers: [{type: sql}, {type: jsonl}, {type: lines}]")

    evaluated = EvaluateX(data=prepared_file(), models=made, params=EvalArgs(**FEW))
    metrics = metrics_in(ran(evaluated))

    connection = sqlite3.connect("runs.db")
    ((name, status),) = connection.execute("SELECT name, status FROM run").fetchall()
    assert (name, status) == ("EvaluateX", "success")
    found = dict(connection.execute("SELECT name, value FROM metric WHERE level = 'run'"))
    for model, measures in metrics.items():
        assert found[f"{model}/accuracy"] == measures["accuracy"]
    paths = {path for (path,) in connection.execute("SELECT path FROM artifact")}
    assert paths == {str(evaluated.facts)}
    connection.close()
