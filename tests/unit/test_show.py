"""What `jemtrack show` prints of the files under nodes/: at 80 columns, marked where it is sure."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from jemtrack.commands.show import show
from jemtrack.errors import InputError

MODELS = ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2")


def tables(stage: str, values: dict[str, tuple[float, ...]], p_value: float) -> None:
    """Write figures by measure, for each model, and tests that all have the same p-value."""
    folder = Path("nodes") / stage / "tables"
    folder.mkdir(parents=True)
    pd.DataFrame(
        [
            {"model": model, "measure": measure, "value": value, "low": 0, "high": 1}
            for measure, each in values.items()
            for model, value in zip(MODELS, each, strict=True)
        ]
    ).to_csv(folder / "figures.csv", index=False)
    pd.DataFrame(
        [
            {"measure": measure, "first": one, "second": two, "difference": 0.1,
             "p_value": p_value, "p_corrected": p_value}
            for measure in values
            for one, two in [(MODELS[0], MODELS[1]), (MODELS[0], MODELS[2]), MODELS[1:]]
        ]
    ).to_csv(folder / "tests.csv", index=False)  # fmt: skip


@pytest.fixture(autouse=True)
def nodes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = {"accuracy": (0.9, 0.98, 0.97), "nll": (12.34, 0.1, 0.2)}
    tables("EvaluateX", main, p_value=0.01)
    measures = pd.DataFrame({"model": MODELS, "auroc": (0.5, 0.6, 0.7), "aurc": 0.1234, **main})
    measures.to_csv("nodes/EvaluateX/tables/measures.csv", index=False)
    pairs = [(MODELS[0], MODELS[2]), MODELS[1:]]
    pd.DataFrame(
        [
            {"measure": "auroc", "partner": partner, "first": one, "second": two,
             "difference": 0.1, "p_corrected": p_value}
            for partner, p_value in (("letters", 0.9), ("mean", 0.001))
            for one, two in pairs
        ]
    ).to_csv("nodes/EvaluateX/tables/tests_outliers.csv", index=False)  # fmt: skip
    tables("MeasureRobustness", {"corruption": (0.6, 0.7, 0.8)}, p_value=0.5)
    Path("nodes/MeasureRobustness/metrics.json").write_text(
        json.dumps({model: {"blur": 0.4321} for model in MODELS})
    )
    for stage in ("EvaluateX", "Report"):
        Path("nodes", stage).mkdir(exist_ok=True)
        Path("nodes", stage, "resources.json").write_text('{"seconds": 1.5}')
    Path("nodes/Report/report.html").touch()


def shown(**options) -> list[str]:
    text = io.StringIO()
    show(Console(file=text, width=80), **options)
    return text.getvalue().splitlines()


def row(lines: list[str], model: str) -> list[str]:
    return next(line for line in lines if model in line).strip(" |").split()


def test_the_headline_fits_80_columns_and_marks_the_best_where_they_are_significant():
    lines = shown()

    assert max(map(len, lines)) <= 80
    assert "accuracy ↑" in lines[1]
    assert "NLL ↓" in lines[1]
    # Of the corrupted images' accuracies none is significantly worse.
    assert row(lines, "MaxEntropyL1") == ["MaxEntropyL1", "0.9800*", "0.1000*", "0.6000", "0.7000"]
    assert row(lines, "MaxEntropyL2")[3] == "0.7000*"
    assert row(lines, MODELS[0]) == [MODELS[0], "0.9000", "12.3", "0.5000", "0.6000"]
    assert "Report: nodes/Report/report.html" in lines
    assert not [line for line in lines if "aurc" in line or "seconds" in line]


def test_all_shows_every_measure_and_each_stage_s_costs():
    text = "\n".join(shown(every=True))

    for words in ("aurc", "0.1234", "blur", "0.4321", "seconds", "1.5000"):
        assert words in text


def test_where_there_is_no_evaluate_x_the_measures_of_other_stages_are_the_headline():
    shutil.rmtree("nodes")
    folder = Path("nodes/EvaluateCells")
    folder.mkdir(parents=True)
    names = [f"{n}_measure" for n in range(9)]
    found = {"held_out": {"X_pca": dict.fromkeys(names, 0.1234), "nll": 2371.8}, "accuracy": 0.5}
    (folder / "metrics.json").write_text(json.dumps(found))
    (folder / "resources.json").write_text('{"seconds": 1.5}')

    lines = shown()

    assert row(lines, "8_measure") == ["8_measure", "0.1234"]
    assert row(lines, "nll") == ["nll", "2371.8"]
    assert shown(md=True)[1].startswith("| EvaluateCells | held_out | held_out X_pca |")
    assert not [line for line in lines if "accuracy" in line or "seconds" in line]


def test_json_has_everything_by_stage_and_model(capsys):
    show(as_json=True)

    found = json.loads(capsys.readouterr().out)
    assert found["evaluations"]["EvaluateX"]["MaxEntropyL2"]["auroc"] == 0.7
    assert found["others"]["MeasureRobustness"]["MaxEntropyL1"] == {"blur": 0.4321}
    assert found["costs"]["Report"] == {"seconds": 1.5}


def test_markdown_is_a_table_and_nothing_else():
    lines = [line for line in shown(md=True) if line.strip()]

    assert len(lines) == 2 + len(MODELS)
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    assert row(lines, "MaxEntropyL1")[2] == "**0.9800**"


def test_without_results_it_says_what_to_type(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    with pytest.raises(InputError, match="run `dvc repro`"):
        show()
