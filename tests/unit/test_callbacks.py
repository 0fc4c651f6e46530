"""What holds for every callback, and for those of a user's own."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from recipe_files import problems_of
from ruamel.yaml import YAML
from small_run import BreakOff, PowerCutError, files, make_run

from jemtrack.callbacks.best_weights import BestWeights
from jemtrack.callbacks.early_stopping import EarlyStopping
from jemtrack.callbacks.ema import Ema
from jemtrack.callbacks.learning_rate import LearningRate
from jemtrack.callbacks.periodic_weights import PeriodicWeights
from jemtrack.errors import InputError
from jemtrack.events.events import (
    ArtifactSaved,
    BatchEnd,
    EpochEnd,
    EpochStart,
    PhaseEnd,
    PhaseStart,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.events.handlers import Callback, build_callback
from jemtrack.shared.components import CALLBACK, load_components
from jemtrack.train.phase import Validation

OPTIONS = {
    "best_weights": {"metric": "valid_loss", "restore": True},
    "early_stopping": {"metric": "valid_loss", "patience": 2},
    "ema": {"decay": 0.5},
    "learning_rate": {},
    "periodic_weights": {"every": 1},
}
CLASSES = {
    "best_weights": BestWeights,
    "early_stopping": EarlyStopping,
    "ema": Ema,
    "learning_rate": LearningRate,
    "periodic_weights": PeriodicWeights,
}


class Failing(Callback):
    """Raises at the second event of a kind."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.seen = 0

    def __call__(self, event, state) -> None:
        self.seen += isinstance(event, self.kind)
        if self.seen == 2:
            raise PowerCutError


def test_the_callbacks_are_these():
    assert load_components(CALLBACK) == CLASSES


def test_a_callback_is_made_from_what_a_recipe_says():
    for name, options in OPTIONS.items():
        assert type(build_callback({"type": name, **options})) is CLASSES[name]


@pytest.mark.parametrize("first", [True, False], ids=["told before", "told after"])
@pytest.mark.parametrize("kind", [EpochStart, BatchEnd, EpochEnd, PhaseStart, ArtifactSaved])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_callback_that_raises_ends_the_run_as_failed(tmp_path, name, kind, first):
    """Each start is ended once, and nothing is left of the epoch's metrics."""
    failing, other = Failing(kind), build_callback({"type": name, **OPTIONS[name]})
    weights = [] if name == "periodic_weights" else [PeriodicWeights(every=1)]
    callbacks = [failing, other, *weights] if first else [other, *weights, failing]
    run = make_run(tmp_path, *callbacks, values=[1.0, 0.5, *[0.25, 0.125] * 3])

    with pytest.raises(PowerCutError):
        run.train()

    (record,) = run.trackers
    assert record.events[-1] == RunEnd(Status.FAILED, run.state.latest)
    for start, end in ((RunStart, RunEnd), (PhaseStart, PhaseEnd), (EpochStart, EpochEnd)):
        assert len(record.of(start)) == len(record.of(end))
    assert [end.metrics for end in record.of(EpochEnd) if end.status != Status.SUCCESS] == (
        [{}] * (kind in (EpochStart, BatchEnd))
    )
    assert run.state.totals == {} or kind is BatchEnd
    assert record.n_closed == 1
    assert not [name for name in files(run) if "unfinished" in name]


OWN = '''
from jemtrack.events.handlers import Callback
from jemtrack.shared.components import Component, Option
from jemtrack.events.events import EpochEnd
from jemtrack.record.paths import RunPath

CHOICES = ("mine", "yours")


def make_option():
    return Option(int, "how many", default=3)


class StopAfter(Callback):
    """Ends the run after some epochs."""

    n_epochs: int = Option(int, "how many", minimum=1)

    def __call__(self, event, state) -> None:
        if isinstance(event, EpochEnd) and event.epoch == self.n_epochs:
            state.stop = "enough"


class Sooner(StopAfter):
    """Has the options of its base, and some that its source does not tell in full."""

    metric: str = Option(str, "which", choices=CHOICES)
    file: str = RunPath(str, "where", default="notes")


class Hidden(Callback):
    options_of_another_kind = make_option()


class NoCallback(Component):
    pass


NOTHING = 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Give the name of a module of the user's own."""
    (tmp_path / "own_callbacks.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import a_library_that_is_not_there\n")
    (tmp_path / "own_failing.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "own_callbacks"
    for name in ("own_callbacks", "own_broken", "own_failing"):
        sys.modules.pop(name, None)


def test_an_own_callback_is_found_by_its_dotted_path(tmp_path, own):
    stop = build_callback({"type": f"{own}.StopAfter", "n_epochs": 3})
    run = make_run(tmp_path, stop)
    run.train()

    (record,) = run.trackers
    assert [end.epoch for end in record.of(EpochEnd)] == [1, 2, 3]
    assert [(end.name, end.status, end.reason) for end in record.of(PhaseEnd)] == [
        ("first", Status.STOPPED, "enough")
    ]
    assert record.events[-1].status == Status.STOPPED


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            {"type": "own_callback.StopAfter"},
            "cannot be imported: ModuleNotFoundError: No module named 'own_callback'",
        ),
        (
            {"type": "own_callbacks.Stop"},
            "'own_callbacks.Stop' does not exist: expected the dotted",
        ),
        ({"type": "own_callbacks.NOTHING"}, "'own_callbacks.NOTHING' is not a component: expected"),
        ({"type": "own_callbacks.NoCallback"}, "own_callbacks.NoCallback is a NoCallback, which"),
        ({"type": "own_broken.Any"}, "No module named 'a_library_that_is_not_there'"),
        ({"type": "own_failing.Any"}, "'own_failing.Any' cannot be imported: ZeroDivisionError"),
        ({"type": ".StopAfter"}, "'.StopAfter' cannot be imported"),
        ({"type": "..StopAfter"}, "'..StopAfter' cannot be imported"),
        ({"type": "own_callbacks.StopAfter"}, "StopAfter.n_epochs is missing: how many"),
        ({"type": "own_callbacks.StopAfter", "n": 1}, "n is not an option of it; it has n_epochs"),
        ({"type": "own_callbacks.StopAfter", "n_epochs": 0}, "n_epochs must be >= 1, got 0"),
        ({"type": "erly"}, "no component is called 'erly'"),
        ({"type": 3}, "a callback must have a `type`, its name or a dotted path, got 3"),
        ({}, "a callback must have a `type`, its name or a dotted path, got None"),
        ({"type": "jsonl", "folder": "x"}, "jsonl is a JsonLines, which is not a callback"),
    ],
)
def test_a_wrong_path_or_option_is_told_in_a_sentence(own, description, message):
    importlib.import_module("jemtrack.record.jsonl")

    with pytest.raises(InputError, match=r"\A[^\n]*\Z") as caught:
        build_callback(description)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("callback", "problem"),
    [
        ("{type: own_callbacks.StopAfter, n_epochs: 3}", None),
        ("{type: own_callbacks.StopAfter, n_epochs: 0}", "[0].n_epochs: must be >= 1, got 0"),
        ("{type: own_callbacks.StopAfter, n_epochs: 3, n: 1}", "[0].n: is not an option of it"),
        ("{type: own_callbacks.Sooner, n_epochs: 3, metric: mine}", None),
        ("{type: own_callbacks.Sooner, metric: mine}", "[0].n_epochs: is missing: how many"),
        ("{type: own_callbacks.Sooner, n_epochs: 3}", "[0].metric: is missing"),
        (
            "{type: own_callbacks.Sooner, n_epochs: 3, metric: mine, file: ../x}",
            "[0].file: must be a path in the folder that each run has",
        ),
        ("{type: own_callbacks.Hidden, anything: 1}", None),
        ("{type: early_stopping, metric: valid_nll, patience: 2, phase: joint}", None),
        ("{type: own_callback.StopAfter}", "[0].type: must be the dotted path of a class"),
        ("{type: own_callbacks.Stop}", "[0].type: must be the dotted path of a class"),
        ("{type: early_stopping}", "[0].metric: is missing: the metric of an epoch to watch"),
        ("{type: best_weights, metric: valid_nl}", "[0].metric: must be a metric of an epoch"),
        ("{type: early_stopping, metric: valid_nll, phase: jont}", "[0].phase: must be the name"),
        ("{type: early_stopping, metric: valid_nll, mode: mix}", "[0].mode: must be one of 'min'"),
        ("{type: ema, decay: 1.5}", "[0].decay: must be <= 1, got 1.5"),
        ("{type: history, path: x}", "[0].type: must be a callback, got 'history'"),
    ],
)
def test_validate_knows_callbacks_and_runs_none_of_a_user_s_own(tmp_path, own, callback, problem):
    text = (
        f"training:\n  callbacks:\n    - {callback}\n  pipeline: {{steps: "
        "[{name: joint, n_epochs: 1, objective: {type: cross_entropy}}]}\n"
    )
    found = problems_of(tmp_path, text)

    assert len(found) == (1 if problem else 0)
    assert not problem or found[0].startswith(f"3: training.callbacks{problem}")
    assert own not in sys.modules


DOCUMENT = Path(__file__).parents[2] / "docs" / "callbacks.md"


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_document_s_callbacks_are_sound_and_all_there(tmp_path):
    lines = [line.strip() for block in blocks("yaml") for line in block.splitlines()]
    entries = [YAML(typ="safe").load(line)[0] for line in lines if line.startswith("- {type")]
    own = entries.pop()

    assert {entry["type"] for entry in entries} == {*CLASSES}
    for entry in entries:
        assert isinstance(build_callback(entry), Callback)
    assert own["type"] == "jemtrack.stages.patient.EnoughAccuracy"
    for cls in CLASSES.values():
        for option in cls.options():
            assert f"`{option.name}`" in DOCUMENT.read_text()


def test_the_document_s_own_callback_does_what_it_says(tmp_path, monkeypatch):
    (code,) = blocks("python")
    (tmp_path / "patient.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "patient", raising=False)
    run = make_run(tmp_path, build_callback({"type": "patient.EnoughAccuracy", "accuracy": 0.98}))
    measured = Validation(lambda models: {"valid_accuracy": 0.5 + run.state.epochs / 4})
    run.phases = [replace(phase, validation=measured) for phase in run.phases]
    run.train()

    (end,) = run.trackers[0].of(PhaseEnd)
    assert (end.position.epoch, end.status, end.reason) == (
        3,
        Status.STOPPED,
        "the accuracy is 1.000",
    )


def test_a_run_that_is_broken_off_leaves_only_whole_files(tmp_path):
    run = make_run(tmp_path, PeriodicWeights(every=1), BreakOff(5))

    with pytest.raises(PowerCutError):
        run.train()

    assert [*files(run)] == ["epoch_001.safetensors", "epoch_002.safetensors"]
