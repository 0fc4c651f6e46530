"""What a stage does not depend on changes nothing of what it makes."""

from pathlib import Path

import pytest
from stage_runs import SMALL, prepared_file, ran

from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.train_args import TrainArgs

TRACKERS = """
checkpoint_seconds: 0
trackers:
  - {type: tensorboard}
  - {type: mlflow, every: 1}
  - {type: wandb, every: 1}
  - {type: dvclive}
  - {type: sql}
  - {type: performance, interval: 0.01}
  - {type: lines, print_every: 1}
  - {type: progress}
"""
OUTS = ("model.safetensors", "metrics.json", "history.csv")


def outs(folder: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> dict[str, bytes]:
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("src").mkdir()
    if runtime:
        Path("jemtrack.yaml").write_text(runtime)
    params = {**SMALL, "n_epochs": 2, "dropout_rate": 0.2, "norm": "batch"}
    made = ran(MaxEntropyL2(data=prepared_file(), params=TrainArgs(**params)))
    return {name: (made / name).read_bytes() for name in OUTS}


def test_a_training_with_every_tracker_and_with_none_leaves_equal_bytes(tmp_path, monkeypatch):
    """`[tool.jemtrack.code]` leaves trackers out of a stage's deps because this holds."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    alone = outs(tmp_path / "alone", monkeypatch, "")

    watched = outs(tmp_path / "watched", monkeypatch, TRACKERS)

    assert watched == alone
    assert Path("mlflow.db").exists()
    assert Path("runs.db").exists()
