"""`jemtrack train`: the example and others like it, trained in this process."""

import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from project import ROOT
from ruamel.yaml import YAML

from jemtrack.commands.main import main
from jemtrack.data.sources.fetch import fetch
from jemtrack.events.events import BatchEnd
from jemtrack.events.handlers import Callback
from jemtrack.jem.networks.model_file import load_model
from jemtrack.record.jsonl import read_record
from jemtrack.shared.components import Option

EXAMPLE = ROOT / "recipes" / "two_phase.yaml"
CONFIG = Path("mine.yaml")
yaml = YAML(typ="safe", pure=True)  # to PyYAML `on` is a boolean
FILES = ["model.safetensors", "metrics.json", "history.csv"]


class Interrupting(Callback):
    """Sends this process the signal of Ctrl-C after a step, in the first run alone."""

    step: int = Option(int, "the step", minimum=1)
    done = False

    def __call__(self, event: Any, state: Any) -> None:
        if isinstance(event, BatchEnd) and event.step == self.step and not type(self).done:
            type(self).done = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fetch("digits", Path("data"))
    return tmp_path


def write_config(**training: Any) -> dict[str, Any]:
    """Write the example with little to do: 2 epochs of 2 batches a step."""
    content = yaml.load(EXAMPLE)
    content["data"]["n_valid"] = 20
    content["model"]["width"] = 1
    content["training"] |= {"batch_size": 8, "threads": 1, **training}
    pipeline = content["training"]["pipeline"]
    pipeline["defaults"]["max_steps"] = 2
    for step in pipeline["steps"]:
        step["n_epochs"] = 2
    save(content)
    return content


def save(content: dict[str, Any]) -> None:
    with CONFIG.open("w") as file:
        yaml.dump(content, file)


def train(*options: str, status: int = 0) -> None:
    assert main(["train", "--config", str(CONFIG), *options]) == status


def outs(out: str) -> list[bytes]:
    return [Path(out, name).read_bytes() for name in FILES]


def test_the_example_is_sound(capsys):
    assert main(["validate", str(EXAMPLE)]) == 0

    said = capsys.readouterr().out
    assert "Step 1: warm_up (5 epochs)\n  Training: cross_entropy\n  Frozen: network.trunk" in said
    assert "Schedulers: network: CosineAnnealingLR" in said


def test_a_file_is_trained_into_a_folder(capsys):
    write_config()
    train()

    out = Path("runs/mine")
    assert f"results: {out}" in capsys.readouterr().out
    _, shape, notes = load_model(out / "model.safetensors")
    assert (shape.width, notes) == (1, {"trainer": "mine", "dataset": "digits", "sigma": "0.03"})
    metrics = json.loads((out / "metrics.json").read_text())
    record = read_record(out / "record")
    assert [*record.epoch] == [1, 2, 3, 4]
    assert len(record.batch) == 8
    assert "train_entropy_penalty" not in record.epoch[2]
    assert record.epoch[4] == {name: metrics[name] for name in record.epoch[4]}
    assert len((out / "history.csv").read_text().splitlines()) == 1 + 4
    assert (out / "record" / "warm_up.jsonl").exists()
    assert not [*Path(".jemtrack").rglob("*.checkpoint")]


def test_a_training_that_was_interrupted_goes_on_as_if_it_was_not(capsys):
    name = f"{Interrupting.__module__}.{Interrupting.__qualname__}"
    write_config(callbacks=[{"type": name, "step": 5}], sigma=0.1)
    Interrupting.done = False

    train("--out", "cut", status=130)
    said = capsys.readouterr().err
    assert "`jemtrack train --config mine.yaml --out cut` resumes there" in said
    assert not Path("cut/metrics.json").exists()
    train("--out", "cut")
    assert "resumes at phase joint (2/2), epoch 1, batch 2" in capsys.readouterr().err
    train("--out", "whole")

    assert outs("cut") == outs("whole")
    assert read_record(Path("cut/record")) == read_record(Path("whole/record"))


def test_another_file_or_folder_is_another_training(capsys):
    name = f"{Interrupting.__module__}.{Interrupting.__qualname__}"
    content = write_config(callbacks=[{"type": name, "step": 3}])
    Interrupting.done = False
    train("--out", "cut", status=130)

    content["training"]["sigma"] = 0.2
    save(content)
    train("--out", "cut")

    assert "resumes at" not in capsys.readouterr().err
    assert len([*Path(".jemtrack/recipes").iterdir()]) == 1


EDITING = """
from pathlib import Path

from jemtrack.events.events import BatchEnd
from jemtrack.events.handlers import Callback


class Editing(Callback):
    def __call__(self, event, state):
        if isinstance(event, BatchEnd) and event.step == 5 and not Path("edited").exists():
            Path("edited").touch()
            for path in PATHS:
                Path(path).write_text(Path(path).read_text() + "# edited")
"""


@pytest.mark.parametrize("edited", ["mine.yaml", "editing_{}.py"])
def test_an_edit_during_the_training_is_noticed(edited, folder, monkeypatch, capsys):
    """Be it of the file itself or of one's own code that it names."""
    module = f"editing_{len(edited)}"
    edited = edited.format(len(edited))
    code = Path(f"{module}.py")
    code.write_text(EDITING.replace("PATHS", repr([edited])))
    monkeypatch.syspath_prepend(folder)
    write_config(callbacks=[{"type": f"{module}.Editing"}])
    before = Path(edited).read_text()

    train("--out", "out", status=1)
    assert f"{edited} changed during the training, which is kept" in capsys.readouterr().err
    main(["scratch"])
    listed = capsys.readouterr().out
    what = folder / edited if edited == code.name else edited
    assert listed.splitlines()[1].startswith("recipes/mine ")
    assert listed.rstrip().endswith(f"not resumable: {what}")

    Path(edited).write_text(before)
    train("--out", "out")
    assert "epoch 3, batch 1; done before" in capsys.readouterr().err
    train("--out", "whole")
    assert outs("out") == outs("whole")


def test_the_seed_of_the_training_is_not_that_of_the_split():
    content = write_config()
    train("--out", "first")
    content["training"]["seed"] = 5
    save(content)
    train("--out", "second")

    assert outs("first")[0] != outs("second")[0]
    content["data"]["seed"] = 5
    save(content)
    train("--out", "third")
    assert outs("second")[0] != outs("third")[0]


def test_the_trackers_of_the_file_take_the_place_of_those_that_every_training_has():
    content = write_config()
    content["trackers"] = [{"type": "jsonl", "folder": "elsewhere"}, {"type": "lines"}]
    save(content)
    train()

    assert (Path("runs/mine/elsewhere/run.jsonl")).exists()
    assert not Path("runs/mine/record").exists()


def test_the_record_is_sent_to_the_trackers_of_the_file_afterwards():
    content = write_config()
    content["trackers"] = [{"type": "jsonl"}, {"type": "sql", "url": "sqlite:///lost.db"}]
    save(content)
    train()
    Path("lost.db").unlink()

    assert main(["replay", "--config", str(CONFIG), "runs/mine/record"]) == 0

    record = read_record(Path("runs/mine/record"))
    connection = sqlite3.connect("lost.db")
    where = "level = 'epoch' AND name = 'train_loss'"
    values = connection.execute(f"SELECT step, value FROM metric WHERE {where}")
    assert dict(values) == {epoch: found["train_loss"] for epoch, found in record.epoch.items()}
    connection.close()


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    train(*options, status=1)
    assert not [*Path().rglob("model.safetensors")] or "--out" in options
    return capsys.readouterr().err.removeprefix("jemtrack: ").strip()


def test_what_cannot_be_trained_is_refused_before_anything_is_trained(capsys):
    content = write_config()
    content["training"]["pipeline"]["steps"][0]["n_epochs"] = 0
    save(content)
    assert refused(capsys).endswith("training.pipeline.steps[0].n_epochs: must be >= 1, got 0")

    write_config(labels_per_class=500)
    assert refused(capsys).startswith("mine.yaml: training.labels_per_class must be <= ")

    content = write_config()
    content["data"] |= {"n_classes": 3}
    save(content)
    assert refused(capsys) == "mine.yaml: data.n_classes must be 10 for digits, got 3"

    content = write_config(callbacks=[{"type": "early_stopping", "metric": "valid_nll"}])
    content["data"] |= {"n_valid": 0}
    save(content)
    said = refused(capsys)
    assert "training.callbacks[0].metric: must be a metric of an epoch, got 'valid_nll'" in said
    assert said.endswith("; data.n_valid is 0")

    steps = {"steps": [{"name": "a", "n_epochs": 1}]}
    save({"model": {"family": "invae"}, "training": {"pipeline": steps}})
    assert refused(capsys).startswith("mine.yaml: invae cannot be trained: its data are cells")
    assert not Path("runs").exists()


def test_results_are_not_written_over(capsys):
    write_config()
    train("--out", "kept")
    before = outs("kept")
    capsys.readouterr()

    assert refused(capsys, "--out", "kept").startswith("kept holds the results of a training")
    assert outs("kept") == before
    assert refused(capsys, "--out", str(CONFIG)) == (
        "mine.yaml cannot be made a folder: File exists"
    )


def test_a_training_that_diverges_is_told_by_its_file(capsys):
    content = write_config(divergence={"action": "fail", "max_loss": 1e-9})
    save(content)

    assert "mine.yaml: the loss is too large at epoch 1, batch 1" in refused(capsys)
    assert all([*path.iterdir()] for path in Path("runs").rglob("*") if path.is_dir())


def test_only_to_validate_trains_nothing(capsys):
    write_config()
    train("--validate-pipeline")

    assert "mine.yaml: no problems" in capsys.readouterr().out
    assert not Path("runs").exists()
