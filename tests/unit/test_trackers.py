"""What holds for all trackers: their names, their extras, and what a real run leaves in them."""

import csv
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from tracked_run import (
    FLAT,
    PARAMETERS,
    Training,
    assert_same_record,
    diverged_run,
    end,
    expected,
    start,
    steps,
    tell_to_end,
    whole_run,
)

from jemtrack.events.events import BatchEnd
from jemtrack.events.handlers import Callback
from jemtrack.record.history import HistoryCsv
from jemtrack.record.jsonl import JsonLines, Record, read_record
from jemtrack.shared.plain import flat, plain
from jemtrack.trackers.base import CurveTracker
from jemtrack.trackers.sql import SqlDatabase
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.optimizers import SGD
from jemtrack.train.phase import Phase
from jemtrack.train.recipe import Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

EXTRAS = {
    "aim": ("aim", {}),
    "dvclive": ("dvclive", {}),
    "mlflow": ("mlflow", {}),
    "sql": ("sqlalchemy", {}),
    "tensorboard": ("tensorboard", {"folder": "logs"}),
    "wandb": ("wandb", {}),
}
NAMES = sorted([*EXTRAS, "history", "jsonl", "lines", "performance", "progress"])

WITHOUT = """
import sys
from importlib import import_module
from pkgutil import iter_modules

for package in {packages!r}:
    sys.modules[package] = None

import jemtrack.trackers
from jemtrack.shared.components import build, registered
from jemtrack.errors import InputError

for module in iter_modules(jemtrack.trackers.__path__):
    import_module(f"jemtrack.trackers.{{module.name}}")
print(*registered())
for name, options in {options!r}.items():
    try:
        build(name, options)
    except InputError as error:
        print(error)
"""


def test_trackers_are_listed_without_their_packages_and_say_which_extra_has_them():
    packages = [package for package, _ in EXTRAS.values()]
    options = {name: options for name, (_, options) in EXTRAS.items()}
    code = WITHOUT.format(packages=packages, options=options)

    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.splitlines()

    assert told[0].split() == NAMES
    assert len(told) == 1 + len(EXTRAS)
    for name, message in zip(EXTRAS, told[1:], strict=True):
        assert message.startswith(f"the tracker {name!r} needs a package that is missing")
        assert message.endswith(f"pip install 'jemtrack[{name}]'")


def test_the_tracker_of_the_document_writes_every_value(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text()
    names: dict = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    path = tmp_path / "new" / "points.txt"

    tell_to_end(names["Points"](path=str(path)), whole_run())

    found = Record()
    for level, step, name, value in map(str.split, path.read_text().splitlines()):
        levels = {0: found.run} if level == "run" else getattr(found, level)
        levels.setdefault(int(step), {})[name] = float(value)
    assert_same_record(found, expected(whole_run()))


def told(events) -> list[str]:
    """Name the calls that a tracker over `CurveTracker` receives."""
    calls = []

    class Calls(CurveTracker):
        every = 2

        def begin(self, start):
            calls.append(f"begin {start.step}")

        def points(self, level, step, metrics):
            calls.append(f"{level} {step}")

        def void(self, step, epoch):
            calls.append(f"void {step} {epoch}")

        def flush(self):
            calls.append("flush")

        def end(self, status):
            calls.append(f"end {status}")

    tell_to_end(Calls(), events)
    return calls


def test_a_service_is_told_of_its_points_and_flushed_after_each_epoch():
    assert told([start(), *steps(1, 3), end()]) == [
        "begin 0", "measured 0", "batch 2", "epoch 1", "flush", "measured 3",
        "run 0", "flush", "end success",
    ]  # fmt: skip


def test_a_service_is_told_of_an_end_that_nobody_announced():
    assert told([start(), *steps(1, 2)])[-2:] == ["flush", "end failed"]
    assert told([]) == []


def test_a_service_is_told_what_is_void():
    assert "void 5 1" in told(diverged_run())


def test_parameters_are_flat_under_dotted_paths():
    assert flat(PARAMETERS) == FLAT
    assert flat({}) == {}
    assert flat({"empty": {}, "list": []}) == {"empty": "{}", "list": "[]"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(value=JSON)
def test_what_is_json_already_stays_as_it_is(value):
    assert plain(value) == value


def test_other_values_become_json():
    found = plain({"training": Training(), "pair": (1, float("nan")), 3: {torch.float32}})

    assert found == {
        "training": {
            "_cls": "tracked_run.Training", "lr": 0.1, "norm": "batch", "load_path": None,
            "folder": "runs",
        },
        "pair": [1, "nan"],
        "3": ["torch.float32"],
    }  # fmt: skip


@dataclass(frozen=True)
class Numbers:
    def __len__(self) -> int:
        return 4

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Tensor]:
        for batch in range(start, 4):
            yield torch.tensor([[1.0 + batch]])


class PowerCut(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event, state) -> None:
        if isinstance(event, BatchEnd) and event.step == self.step:
            raise MemoryError


def small_run(folder, callbacks=()) -> Run:
    def squares(models, batch):
        return {"loss": (models["line"](batch) - 2 * batch).square().mean()}

    torch.manual_seed(0)
    optimizers = {"line": SGD(lr=0.01)}
    steps = [Step(name=name, n_epochs=2, optimizers=optimizers) for name in ("a", "b")]
    phases = [Phase(step, squares, Numbers()) for step in steps]
    return Run(
        "small",
        PARAMETERS,
        TrainState({"line": nn.Linear(1, 1)}),
        phases,
        [
            JsonLines(folder=str(folder / "record")),
            HistoryCsv(path=str(folder / "history.csv")),
            SqlDatabase(url=f"sqlite:///{folder}/runs.db"),
        ],
        callbacks,
        Checkpoints(folder / "checkpoints", every_seconds=1e9, every_steps=3),
        run_id="run-1",
    )


def left_in_database(folder) -> list[tuple]:
    connection = sqlite3.connect(folder / "runs.db")
    rows = connection.execute("SELECT level, step, name, value FROM metric").fetchall()
    connection.close()
    return sorted(rows)


@pytest.mark.parametrize("step", [1, 4, 7, 8, 11, 14])
def test_a_run_that_was_killed_and_resumed_leaves_what_one_that_was_not_leaves(tmp_path, step):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    small_run(whole).train()

    with pytest.raises(MemoryError):
        small_run(broken, [PowerCut(step)]).train()
    small_run(broken, [PowerCut(0)]).train()

    assert_same_record(read_record(broken / "record"), read_record(whole / "record"))
    assert (broken / "history.csv").read_text() == (whole / "history.csv").read_text()
    assert left_in_database(broken) == left_in_database(whole)


def test_trackers_agree_on_a_run(tmp_path):
    last = small_run(tmp_path).train()

    record = read_record(tmp_path / "record")
    assert record.run == last
    levels = {
        "batch": record.batch, "epoch": record.epoch, "measured": record.measured,
        "run": {0: record.run},
    }  # fmt: skip
    assert left_in_database(tmp_path) == sorted(
        (level, at, name, value)
        for level, steps in levels.items()
        for at, metrics in steps.items()
        for name, value in metrics.items()
    )
    with (tmp_path / "history.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["train_loss"]) for row in rows] == [
        metrics["train_loss"] for metrics in record.epoch.values()
    ]
    assert len(record.batch) == 16


AS_DVC = """
import os, subprocess, sys
group = "from jemtrack.trackers.base import run_group; print(run_group(), flush=True)"
for stage in ("A", "B"):  # as DVC starts stages: by a shell, with this variable
    command = f"true && {sys.executable} -c '{group}'"
    subprocess.run(command, shell=True, env={**os.environ, "DVC_STAGE": stage}, check=True)
subprocess.run([sys.executable, "-c", group], check=True)
"""


def test_the_stages_of_one_repro_are_a_group_and_those_of_the_next_another():
    def groups(**variables: str) -> list[str]:
        unset = {"DVC_STAGE", "DVC_EXP_NAME", "JEMTRACK_GROUP"}
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        command = [sys.executable, "-c", AS_DVC]
        done = subprocess.run(
            command, env={**kept, **variables}, capture_output=True, text=True, check=True
        )
        return done.stdout.split("\n")[:3]

    first, second = groups(), groups()

    assert first[0] == first[1] != second[0] == second[1]
    assert first[0].startswith("repro 2")
    assert first[2] == ""
    assert groups(DVC_EXP_NAME="group-toms") == ["group-toms"] * 3
    assert groups(DVC_EXP_NAME="group-toms", JEMTRACK_GROUP="mine") == ["mine"] * 3
