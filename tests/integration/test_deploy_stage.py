"""The stage Deploy: what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from stage_runs import SMALL, prepared_file, ran

from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.predict import Model, self_test
from jemtrack.stages.deploy import Deploy
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.train_args import TrainArgs


@pytest.fixture
def trainer(tmp_path, monkeypatch) -> MaxEntropyL2:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return MaxEntropyL2(data=prepared_file(), params=TrainArgs(**SMALL))


def test_it_writes_a_bundle_that_answers_and_its_figures(trainer):
    params = DeployArgs(alpha=0.1, accuracy_within=1, nll_within=1, n_samples=3)
    folder = ran(trainer, Deploy(data=trainer.data, model=trainer.model, params=params))

    assert all(line.endswith("to the bit") for line in self_test(folder / "bundle"))
    description = Model(folder / "bundle").description
    assert description["name"] == "MaxEntropyL2"
    assert [*description["models"]] == ["model.onnx", "model.int8.onnx"]
    for file, about in description["models"].items():
        found = json.loads((folder / "metrics" / f"{file}.json").read_text())
        assert found.pop("largest_difference") == about["differences"]["probabilities"]
        assert found == about["figures"]
        assert "auroc" not in found  # there are no outliers


def test_too_few_validation_images_end_it_in_one_line(trainer):
    """There are 12."""
    with pytest.raises(SystemExit, match=r"^Deploy: alpha must be >= 1 / .* N = 12 .* got 0.05:"):
        ran(trainer, Deploy(data=trainer.data, model=trainer.model))


def test_a_model_that_was_not_evaluated_has_no_card(trainer):
    tables = Path("tables")
    tables.mkdir()
    (tables / "figures.csv").write_text("model,measure,value,low,high\nOther,nll,1,0,2\n")
    params = DeployArgs(alpha=0.1, int8=False)
    node = Deploy(data=trainer.data, model=trainer.model, tables=[tables], params=params)

    with pytest.raises(SystemExit, match=r"tables/figures.csv has no model 'MaxEntropyL2'"):
        ran(trainer, node)
    assert not (node.nwd / "bundle").exists()
