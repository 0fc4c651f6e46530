"""Pipelines, their callbacks and their trackers, built from a YAML file."""

import sys
from pathlib import Path

import pytest

from jemtrack.errors import InputError
from jemtrack.events.events import EpochEnd, Status
from jemtrack.events.handlers import Callback, Tracker
from jemtrack.loops.pipeline import Pipeline
from jemtrack.loops.pipeline_file import load_pipeline, pipeline_problems
from jemtrack.record.history import HistoryCsv
from jemtrack.record.jsonl import JsonLines, read_record
from jemtrack.shared.components import Option, component


@component("countdown")
class Countdown(Pipeline):
    n_epochs: int = Option(int, "epochs at most", minimum=1)
    scale: float = Option(float, "what the loss is multiplied with", default=1.0)

    def run_epoch(self, epoch):
        self.epoch_metrics["train_loss"] = self.scale / (epoch + 1)


@component("below")
class Below(Callback):
    limit: float = Option(float, "the training loss to stop at")

    def __call__(self, event, state) -> None:
        if isinstance(event, EpochEnd) and event.metrics["train_loss"] <= self.limit:
            state.stop = "low enough"


class Told(Tracker):
    def __call__(self, event) -> None:
        pass


WHOLE = """\
pipeline:
  type: {type}
  n_epochs: 9
  scale: 2
callbacks:
  - type: below
    limit: 0.5
  - {{type: test_pipelines.Below, limit: 0.1}}
  - {{type: best_weights, metric: train_loss}}
folder: {folder}
trackers:
  - {{type: jsonl, folder: record}}
  - {{type: history, path: history.csv}}
  - {{type: test_pipelines.Told}}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("kind", ["countdown", "test_pipelines.Countdown"])
def test_a_pipeline_is_built_from_names_and_runs(kind, written, tmp_path):
    pipeline = load_pipeline(written(WHOLE.format(type=kind, folder=tmp_path)))

    assert (type(pipeline).__name__, pipeline.n_epochs, pipeline.scale) == ("Countdown", 9, 2.0)
    assert [type(each) for each in pipeline.trackers] == [JsonLines, HistoryCsv, Told]
    assert [each.limit for each in pipeline.callbacks[:2]] == [0.5, 0.1]
    pipeline.run()

    assert pipeline.status == Status.STOPPED
    record = read_record(tmp_path / "record")
    assert record.epoch == {epoch: {"train_loss": 2 / epoch} for epoch in (1, 2, 3, 4)}
    assert (tmp_path / "history.csv").read_text().splitlines()[-1] == "4,0.5"
    assert (tmp_path / "best.safetensors").exists()


def test_callbacks_and_trackers_may_be_left_out(written):
    pipeline = load_pipeline(written("pipeline: {type: countdown, n_epochs: 2}\ncallbacks:\n"))

    assert (pipeline.callbacks, pipeline.trackers) == ([], [])


FAULTY = """\
epochs: 3
folder: 7
pipeline:
  type: countdown
  n_epochs: 0
  scal: 2
callbacks:
  - type: bellow
  - limit: 1
  - below
trackers:
  - {type: jsonl, foldr: x}
  - type: history
    path: 3
"""


def test_every_problem_of_a_file_has_its_line(written):
    path = written(FAULTY)

    assert [str(problem) for problem in pipeline_problems(path)] == [
        "1: epochs: is not known here; it has callbacks, folder, pipeline, trackers",
        "2: folder: must be the path of a folder, got 7",
        "5: pipeline.n_epochs: must be >= 1, got 0",
        "6: pipeline.scal: is not an option of it; did you mean scale?",
        "8: callbacks[0].type: must be a callback, got 'bellow'; did you mean below?",
        "9: callbacks[1].type: is missing",
        "10: callbacks[2]: must hold `type` and its options, got 'below'",
        "12: trackers[0].foldr: is not an option of it; did you mean folder?",
        "14: trackers[1].path: must be of type str, got 3",
    ]
    with pytest.raises(InputError) as caught:
        load_pipeline(path)
    assert str(caught.value).splitlines()[2] == f"{path}:5: pipeline.n_epochs: must be >= 1, got 0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("callbacks: []", "1: pipeline: is missing: it must hold `type` and its options"),
        ("- pipeline", '1: must hold pipeline, folder, callbacks, trackers, got ["pipeline"]'),
        ("pipeline: countdown", "1: pipeline: must hold `type` and its options, got 'countdown'"),
        ("pipeline: {n_epochs: 1}", "1: pipeline.type: is missing"),
        ("pipeline: {type: 3}", "1: pipeline.type: must be a pipeline, got 3; there are"),
        ("pipeline: {type: cuntdown}", "got 'cuntdown'; did you mean countdown?"),
        ("pipeline: {type: countdown}", "1: pipeline.n_epochs: is missing: epochs at most"),
        ("pipeline: {type: jsonl, folder: x}", "must be a pipeline, got 'jsonl'"),
        ("pipeline: {type: test_pipelines.Below}", "must be the dotted path of a Pipeline"),
        ("pipeline: {type: test_pipelines.Mine}", "must be the dotted path of a Pipeline"),
        ("pipeline: {type: no.such.Loop}", "'no.such.Loop' cannot be imported: ModuleNotFound"),
        ("pipeline: {type: .Loop}", "'.Loop' cannot be imported: ValueError"),
        ("pipeline: {type: countdown, n_epochs: 1", "is not valid YAML"),
        (
            "pipeline: {type: countdown, n_epochs: 1}\ncallbacks: [{type: test_pipelines.Told}]",
            "must be a subclass of Callback, got 'test_pipelines.Told'",
        ),
    ],
)
def test_a_problem_is_told_in_words(text, problem, written):
    found = [str(each) for each in pipeline_problems(written(text))]

    assert len(found) == 1
    assert problem in found[0]


def test_a_module_that_fails_is_named_with_what_it_raised(written, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_loops.py").write_text("1 / 0")
    monkeypatch.delitem(sys.modules, "broken_loops", raising=False)

    (problem,) = pipeline_problems(written("pipeline: {type: broken_loops.Loop}"))

    assert "'broken_loops.Loop' cannot be imported: ZeroDivisionError" in str(problem)


def test_problems_of_own_components_have_their_lines(written):
    text = """\
pipeline: {type: countdown, n_epochs: 1}
callbacks:
  - {type: test_pipelines.Below}
trackers:
  - {type: test_pipelines.Told, colour: red}
"""
    path = written(text)
    with pytest.raises(InputError) as caught:
        load_pipeline(path)

    assert str(caught.value).splitlines() == [
        f"{path}:3: callbacks[0].limit: is missing: the training loss to stop at",
        f"{path}:5: trackers[0].colour: is not an option of it; it has none",
    ]
