"""The examples run as a user would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from jemtrack.record.jsonl import read_record

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(folder: Path, script: str, *arguments: Path | str) -> subprocess.CompletedProcess:
    command = [sys.executable, EXAMPLES / script, *arguments]
    # An installed jemtrack may be another checkout's.
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_the_dummy_pipeline_is_built_from_its_file_and_stopped_by_its_callback(tmp_path):
    ended = run(tmp_path, "dummy_pipeline.py", EXAMPLES / "dummy.yaml")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("stopped: {'test_loss': 0.2000")
    record = read_record(tmp_path / "runs/dummy/record")
    assert [*record.epoch] == [1, 2, 3, 4, 5, 6, 7]
    assert record.epoch[7]["valid_loss"] == 0.4
    assert len(record.batch) == 7 * 5
    assert [*record.run] == ["test_loss"]
    assert "| ended: valid_loss was n" in ended.stderr


def test_the_dummy_pipelines_file_is_checked(tmp_path):
    text = (EXAMPLES / "dummy.yaml").read_text().replace("n_epochs: 20", "n_epochs: none")
    (tmp_path / "mine.yaml").write_text(text)

    ended = run(tmp_path, "dummy_pipeline.py", "mine.yaml")

    assert ended.returncode == 1
    assert ended.stderr == ("mine.yaml:5: pipeline.n_epochs: must be of type int, got 'none'\n")


def test_the_simple_classifier_learns_and_keeps_its_best_weights(tmp_path):
    ended = run(tmp_path, "simple_classifier.py", "mine")

    assert ended.returncode == 0, ended.stderr
    accuracy = float(re.fullmatch(r"accuracy (\S+); weights in .*\n", ended.stdout)[1])
    assert accuracy > 0.85
    epochs = read_record(tmp_path / "mine" / "record").epoch
    best = min(epochs.values(), key=lambda metrics: metrics["valid_loss"])
    assert accuracy == round(best["valid_accuracy"], 3)
    assert len(epochs) < 60  # early stopping
    assert load_file(tmp_path / "mine" / "best.safetensors")["0.weight"].shape == (128, 64)


def test_the_performance_demo_shows_its_samples_and_what_they_cost(tmp_path):
    ended = run(tmp_path, "performance_demo.py")

    assert ended.returncode == 0, ended.stderr
    usual, light = ended.stdout.splitlines()
    costs = r"cpu \d+%, memory up to \d+ MiB; a sample takes \S+ ms, \S+% of a second"
    sample = r"\d+ samples of {}: " + costs
    assert re.fullmatch("usual: " + sample.format("cpu_percent, memory_mib.*"), usual)
    assert re.fullmatch("light: " + sample.format("cpu_percent, memory_mib"), light)
