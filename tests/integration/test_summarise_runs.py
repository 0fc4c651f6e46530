"""The summary over seeds and folds, run in this process; the graphs that lead to it."""

import json
import statistics
from pathlib import Path

import pandas as pd
import pytest
from stage_runs import ran

from jemtrack.data.images import DataSplits
from jemtrack.data.sources.fetch import fetch
from jemtrack.errors import InputError
from jemtrack.evaluation.models.results import measures_table, write_tables
from jemtrack.stages.prepare_data import DataArgs, PrepareData
from jemtrack.stages.summarise_runs import SummariseRuns, SummaryArgs
from jemtrack.workflows.repeated_runs import nodes, write_graph


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which everything here stands in."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluations(*runs: dict) -> list[Path]:
    paths = []
    for number, metrics in enumerate(runs, 1):
        paths.append(Path(f"nodes/EvaluateX-seed{number}/tables"))
        marked = {f"{name}-seed{number}": figures for name, figures in metrics.items()}
        tables = {"measures": measures_table(marked), **outliers(number, marked)}
        write_tables(tables, paths[-1])
    return paths


def outliers(number: int, metrics: dict) -> dict[str, pd.DataFrame]:
    """Tabulate one AUROC of each model that has one."""
    of = {"partner": "letters", "score": "log_density"}
    rows = [{"model": m, **of, "auroc": v["auroc"]} for m, v in metrics.items() if "auroc" in v]
    return {"outliers": pd.DataFrame(rows)} if rows else {}


RUNS = [
    {"MaxEntropyL1": {"nll": 0.5, "aurc": 0.1, "auroc": 0.9}},
    {"MaxEntropyL1": {"nll": 0.7, "aurc": 0.1, "auroc": 0.8}},
    {"MaxEntropyL1": {"nll": 0.3, "aurc": 0.1, "auroc": 1.0}},
]


def test_each_figure_has_its_mean_spread_and_interval():
    folder = ran(SummariseRuns(evaluations=evaluations(*RUNS)))

    shown = json.loads((folder / "metrics" / "MaxEntropyL1.json").read_text())
    assert shown == {"nll": pytest.approx(0.5), "auroc": pytest.approx(0.9)}
    table = pd.read_csv(folder / "runs.csv")
    assert [*table["measure"]] == ["nll", "aurc", "auroc", "auroc.letters.log_density"]
    nll = table.iloc[0]
    assert (nll["model"], nll["measure"], nll["n_seeds"]) == ("MaxEntropyL1", "nll", 3)
    assert nll["std"] == pytest.approx(statistics.stdev([0.5, 0.7, 0.3]))
    assert nll["low"] < 0.3 < 0.7 < nll["high"]


def test_folds_overlap_and_so_have_wider_intervals():
    seeds = pd.read_csv(ran(SummariseRuns(evaluations=(paths := evaluations(*RUNS)))) / "runs.csv")
    by_folds = SummariseRuns(evaluations=paths, params=SummaryArgs(runs="folds"))
    folds = pd.read_csv(ran(by_folds) / "runs.csv")

    spread = seeds["std"] > 1e-12
    seeds, folds = seeds[spread], folds[spread]
    wider = (folds["high"] - folds["low"]) / (seeds["high"] - seeds["low"])
    # Of k = 3 folds: 1/k + 1/(k - 1) in place of 1/k.
    assert wider.tolist() == pytest.approx([((1 / 3 + 1 / 2) / (1 / 3)) ** 0.5] * 3)
    assert (folds["std"] == seeds["std"]).all()


def test_a_figure_that_a_run_lacks_is_named():
    lacking = [*RUNS[:2], {"MaxEntropyL1": {"nll": 0.3, "aurc": 0.1}}]

    with pytest.raises(SystemExit, match=r"MaxEntropyL1\.auroc is not in all of"):
        ran(SummariseRuns(evaluations=evaluations(*lacking)))


@pytest.mark.parametrize("workflow", ["seeds", "cross-validation"])
def test_the_graph_has_a_run_a_seed_or_fold_and_one_summary(workflow, project):
    (project / "src" / "jemtrack").symlink_to(Path(__file__).parents[2] / "src" / "jemtrack")

    write_graph(workflow, 3)

    stages = [node.name for node in nodes(workflow, 3)]
    assert len(stages) == 3 * 6 + 1
    assert stages[-1] == "SummariseRuns"
    assert (project / "workflows" / workflow / "dvc.yaml").exists()
    with pytest.raises(InputError, match="--runs must be 2 or more"):
        nodes(workflow, 1)


def test_every_image_is_tested_on_in_one_fold():
    fetch("digits", Path("data"))

    seen = []
    for fold in range(3):
        folder = ran(PrepareData(params=DataArgs(n_folds=3, fold=fold)))
        data = DataSplits.load(folder / "images.safetensors")
        assert len(data.train) + len(data.valid) + len(data.test) == 1797
        assert len(data.valid) == 180
        seen += [image.numpy().tobytes() for image in data.test.images_NCHW]

    assert len(seen) == 1797
    whole = DataSplits.load(ran(PrepareData()) / "images.safetensors")
    every = [
        image.numpy().tobytes()
        for part in (whole.train, whole.valid, whole.test)
        for image in part.images_NCHW
    ]
    assert sorted(seen) == sorted(every)


def test_a_fold_that_there_is_not_is_named():
    fetch("digits", Path("data"))

    with pytest.raises(SystemExit, match=r"PrepareData\.params\.fold must be 0 to 2, got 3"):
        ran(PrepareData(params=DataArgs(n_folds=3, fold=3)))
