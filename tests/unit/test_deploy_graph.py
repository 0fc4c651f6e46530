"""The stage Deploy is in the graph on request."""

from pathlib import Path

import yaml

from jemtrack.commands.main import main


def test_the_graph_has_it_on_request_and_no_other_stage_changes(root, capsys):
    assert main(["graph"]) == 0
    before = yaml.safe_load(Path("dvc.yaml").read_text())
    assert main(["graph", "--deploy", "MaxEntropyL1"]) == 0

    after = yaml.safe_load(Path("dvc.yaml").read_text())
    stage = after["stages"].pop("Deploy")
    assert "nodes/MaxEntropyL1/model.safetensors" in stage["deps"]
    assert not any("server" in path or "torch" in path for path in stage["deps"])
    assert after["artifacts"].pop("deploy") == {"path": "nodes/Deploy/bundle", "type": "model"}
    assert after == before
    assert main(["graph"]) == 0
    assert "nothing to change" in capsys.readouterr().out


def test_a_trainer_that_the_graph_lacks_is_refused_with_those_it_has(root, capsys):
    assert main(["graph", "--deploy", "EvaluateX"]) == 1
    assert (
        "--deploy must be one of XEntropyAugmented, MaxEntropyL1, MaxE" in capsys.readouterr().err
    )
    assert not Path("dvc.yaml").exists()
