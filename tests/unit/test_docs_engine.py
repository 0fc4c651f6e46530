"""docs/engine.md: its examples run, and what it names is there."""

import importlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jemtrack.events.events import Status
from jemtrack.loops.pipeline_file import load_pipeline
from jemtrack.record.jsonl import read_record
from jemtrack.train.checkpoint import newest_first

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "engine.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def run(block: str) -> dict:
    names = {"__name__": "docs_engine"}
    exec(block, names)
    return names


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_training_learns_the_line_and_leaves_a_record():
    training, *_ = blocks("python")
    names = run(training)

    assert names["metrics"]["valid_loss"] < 0.01
    assert read_record(Path("runs/line/record")).run == names["metrics"]
    assert [*Path("runs/line/checkpoints").iterdir()]


def test_the_gan_is_killed_and_ends_as_one_that_was_not(tmp_path, monkeypatch):
    _, gan, _ = blocks("python")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    whole.mkdir()
    killed.mkdir()
    process = subprocess.Popen([sys.executable, "-c", gan], cwd=killed)
    checkpoints = killed / "runs" / "gan"
    while not newest_first(checkpoints):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (first, *_) = newest_first(checkpoints)

    monkeypatch.chdir(whole)
    expected = run(gan)
    monkeypatch.chdir(killed)
    resumed = run(gan)

    assert 0 < first.step < expected["run"].state.step
    assert expected["run"].state.latest["valid_loss"] < 0.1
    assert resumed["run"].state.latest == expected["run"].state.latest
    for name, model in expected["models"].items():
        weights = resumed["models"][name].state_dict()
        assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_the_loop_of_ones_own_is_stopped_and_recorded():
    *_, loop = blocks("python")
    pipeline = run(loop)["pipeline"]

    assert pipeline.status == Status.STOPPED
    assert Path("runs/halving/history.csv").read_text().splitlines()[-1] == "6,0.125"


def test_the_file_that_is_shown_is_sound(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    (block,) = blocks("yaml")
    Path("shown.yaml").write_text(block)

    pipeline = load_pipeline(Path("shown.yaml"))

    assert (len(pipeline.callbacks), len(pipeline.trackers)) == (1, 1)


def test_every_name_of_the_table_is_in_its_module():
    rows = re.findall(r"^\| (`.*?) \| `(?:jemtrack\.)?(train\.\w+)` \|", TEXT, re.M)

    assert len(rows) > 8
    for names, module in rows:
        found = importlib.import_module(f"jemtrack.{module}")
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(found, name), f"{module} has no {name}"
