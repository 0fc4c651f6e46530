"""What a sweep tries, in which order, and which trials it ends: on results that are made up."""

import statistics
import subprocess
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from jemtrack.commands.parser import build_parser
from jemtrack.errors import InputError
from jemtrack.project.workers import coordinator
from jemtrack.project.workers.coordinator import State
from jemtrack.project.workers.plan import Plan
from jemtrack.project.workers.stage_process import ENDED
from jemtrack.project.workers.sweep import Search, Sweep, read_space, seed_setting
from jemtrack.project.workers.worker import Experiment, Outcome, Work

KNOWN = {"Prepare": {"params": {"seed": 1}}, "Train": {"params": {"lr": 0.1, "norm": None}}}


def test_values_are_read_in_the_grammar_of_hydra():
    space = read_space(
        [
            "Train.params.lr=tag(log,interval(1e-4,1e-2))",
            "Train.params.norm=batch,null",
            seed_setting(3, KNOWN),
        ],
        KNOWN,
    )

    assert space == {
        "Train.params.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "Train.params.norm": CategoricalDistribution(["batch", None]),
        "Prepare.params.seed": CategoricalDistribution([1, 2, 3]),
    }
    whole = read_space(["Train.params.lr=int(interval(1,5))"], KNOWN)
    assert whole == {"Train.params.lr": IntDistribution(1, 5)}
    assert (
        len(
            Search(
                "s", read_space(["Train.params.lr=1,2", "Train.params.norm=a,b"], KNOWN)
            ).combinations()
        )
        == 4
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "nothing to try"),
        (
            ["Train.params.rl=1,2"],
            r"params.yaml has no 'Train.params.rl'; did you mean Train.params.lr",
        ),
        (["Train.params.lr"], "is no KEY=VALUES"),
        (["Train.params.lr=interval(2,1)"], "interval"),
        (["Train.params.lr=[1],[2]"], "must be numbers, texts"),
    ],
)
def test_what_cannot_be_tried_is_named(settings, said):
    with pytest.raises(InputError, match=said):
        read_space(settings, KNOWN)


def test_an_interval_needs_a_number_of_trials_and_a_measure(monkeypatch, tmp_path):
    space = read_space(["Train.params.lr=interval(0,1)"], KNOWN)
    with pytest.raises(InputError, match=r"^Train.params.lr has an interval: --trials"):
        Search("s", space).combinations()
    with pytest.raises(InputError, match=r"--metric FILE:KEY"):
        made(tmp_path, Search("s", space, trials=3))


@pytest.mark.parametrize(
    ("option", "said"),
    [("--metric=accuracy", "must be FILE:KEY, got 'accuracy'"), ("--name=a b", "must be letters")],
)
def test_what_is_no_measure_or_name_is_refused(option, said, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["sweep", "--seeds", "2", option])
    assert said in capsys.readouterr().err


class Curves(Executor):
    """Ends each trial with a curve that stays where its parameter is; the worker looks once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tried: list[float] = []
        self.fails: float | None = None
        self.ends = False
        self._running: list[tuple[Future[Outcome], Path, float]] = []

    def submit(self, run: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        work, name, experiment = arguments
        assert isinstance(work, Work)
        assert isinstance(experiment, Experiment)
        value = float(experiment.overrides[0].partition("=")[2])
        self.tried.append(value)
        work.worker(name).write_text("1")
        curve = work.workers / "1" / "history.csv"
        curve.parent.mkdir(exist_ok=True)
        curve.write_text(f"epoch,nll\n1,{value}\n2,{value}\n3,{value}")  # the last is not whole
        future: Future[Any] = Future()
        self._running.append((future, work.worker(name), value))
        if self.ends:
            future.set_result(Outcome(ENDED, 1.0))
        return future

    def look(self, _: Any) -> None:
        for future, worker, value in self._running:
            if not future.done():
                status = ENDED if not worker.exists() else int(value == self.fails)
                future.set_result(Outcome(status, 1.0, value))


def made(folder: Path, search: Search) -> tuple[Sweep, Curves]:
    (folder / "workers" / "logs").mkdir(parents=True, exist_ok=True)
    work = Work(
        root=folder, project=Path(), folder=Path(), snapshot="", sources=(), stale=(), config={},
        workers=folder / "workers", threads=1, named=False,
    )  # fmt: skip
    curves = Curves(folder)
    plan = Plan({}, (), 0, (), (), folder, folder, folder, {})
    return Sweep(plan, work, lambda _: curves, search), curves


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coordinator, "_LOOK_SECONDS", 0.01)
    by = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", *by, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)


def test_each_combination_is_tried_once_and_what_failed_again(tmp_path):
    search = Search(
        "grid", read_space(["Train.params.lr=1,2,3"], KNOWN), measure="metrics.json:nll"
    )
    sweep, curves = made(tmp_path, search)
    curves.fails = 2
    sweep.run(curves.look)

    assert curves.tried == [1, 2, 3]
    assert {name: run.state for name, run in sweep.runs.items()} == {
        "grid-0": State.DONE, "grid-1": State.FAILED, "grid-2": State.DONE,
    }  # fmt: skip
    again, curves = made(tmp_path, search)
    again.run(curves.look)
    assert curves.tried == [2]
    assert again.summary().startswith(
        "grid: 3 trials done, 0 pruned; the best is grid-0 with nll 1"
    )
    other = replace(search, space=read_space(["Train.params.lr=1,9"], KNOWN))
    with pytest.raises(InputError, match=r"^the sweep 'grid' tried other values"):
        made(tmp_path, other)


def test_a_trial_worse_than_the_median_of_those_before_it_is_pruned(tmp_path, monkeypatch):
    # By chance, each of the trials may be better than the median.
    sampler = partial(optuna.samplers.TPESampler, seed=1)
    monkeypatch.setattr(optuna.samplers, "TPESampler", sampler)
    space = read_space(["Train.params.lr=interval(0.0,1.0)"], KNOWN)
    search = Search("lr", space, measure="metrics.json:nll", trials=15)
    sweep, curves = made(tmp_path, search)
    sweep.run(curves.look)

    done: list[float] = []
    for value, run in zip(curves.tried, sweep.runs.values(), strict=True):
        is_worse = len(done) >= 5 and value > statistics.median(done)
        assert run.state is (State.PRUNED if is_worse else State.DONE)
        done += [] if is_worse else [value]
    assert len(done) < 15
    more, _ = made(tmp_path, replace(search, trials=17))
    assert more.n_left == 2


def test_a_trial_that_was_left_is_run_first_with_the_same_values(tmp_path):
    search = Search("grid", read_space(["Train.params.lr=1,2"], KNOWN), width=2)
    sweep, curves = made(tmp_path, search)

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    curves.ends = True
    with pytest.raises(KeyboardInterrupt):
        sweep.run(interrupt)
    again, curves = made(tmp_path, replace(search, width=1))
    assert again.n_left == 2
    again.run(curves.look)
    assert curves.tried == [1, 2]
    assert [*again.runs] == ["grid-0", "grid-1"]
