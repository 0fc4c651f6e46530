"""Sweeps: trials of a graph's parameters that Optuna chooses, each an experiment of DVC."""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from jemtrack.errors import InputError
from jemtrack.parameters import suggestion
from jemtrack.project.params import PARAMS
from jemtrack.project.provenance import scratch_folder
from jemtrack.project.workers.coordinator import Coordinator, StageRun, State
from jemtrack.project.workers.plan import Plan
from jemtrack.project.workers.snapshot import head
from jemtrack.project.workers.worker import Experiment, Outcome, Work

Space = dict[str, BaseDistribution]
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_CURVE = "history.csv"  # beside a trainer's metrics, with a row for each validation


def read_space(settings: Sequence[str], known: Mapping[str, Any]) -> Space:
    """Read `KEY=VALUES` in Hydra's grammar: `a,b`, `range(1,4)`, `tag(log,interval(1e-4,1e-2))`.

    Raises:
        InputError: if one cannot be read, or the parameters `known` do not have its key.
    """
    space: Space = {}
    parser = OverridesParser.create()
    if not settings:
        raise InputError("nothing to try: --set STAGE.params.NAME=VALUES, or --seeds N")
    for text in settings:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise InputError(f"{text!r} is no KEY=VALUES: {error}") from error
        key = override.key_or_group
        if key not in (keys := [*_keys(known)]):
            raise InputError(f"{PARAMS} has no {key!r}; {suggestion(key, keys)}")
        space[key] = _distribution(override, text)
    return space


def _keys(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _distribution(override: Override, text: str) -> BaseDistribution:
    values: Any = override.value()
    try:
        if isinstance(values, IntervalSweep):
            bounds: Any = values.start, values.end
            is_whole = all(isinstance(bound, int) for bound in bounds)
            kind: Any = IntDistribution if is_whole else FloatDistribution
            return kind(*bounds, log="log" in values.tags)  # type: ignore[no-any-return]
        chosen: Any = [*override.sweep_iterator()] if override.is_sweep_override() else [values]
        if not all(isinstance(each, bool | int | float | str | None) for each in chosen):
            raise ValueError("values must be numbers, texts, true, false or null")
        return CategoricalDistribution(chosen)
    except (ValueError, TypeError, HydraException) as error:
        raise InputError(f"{text!r}: {error}") from error


def seed_setting(count: int, known: Mapping[str, Any]) -> str:
    """Return the setting of so many seeds of the graph.

    Raises:
        InputError: unless the parameters `known` have one seed.
    """
    found = [key for key in _keys(known) if key.endswith(".params.seed")]
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise InputError(f"--seeds needs one seed in {PARAMS}, which has {names}: name it by --set")
    return f"{found[0]}=range(1,{count + 1})"


@dataclass(frozen=True)
class Search:
    """What a sweep tries, and what it compares.

    Attributes:
        name: of the sweep; its experiments are NAME-0, NAME-1, ...
        space: the values of each parameter.
        targets: the stages, with those before them; all without.
        measure: `FILE:KEY`, what is compared; nothing if empty.
        maximize: whether more of it is better.
        trials: how many are tried; without, each combination of the values.
        width: how many are tried at a time.
    """

    name: str
    space: Space = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    measure: str = ""
    maximize: bool = False
    trials: int | None = None
    width: int = 1

    def combinations(self) -> list[dict[str, Any]]:
        """List all combinations of the values.

        Raises:
            InputError: if there are intervals, which have no end of them.
        """
        choices = []
        for key, each in self.space.items():
            if not isinstance(each, CategoricalDistribution):
                raise InputError(f"{key} has an interval: --trials says how many values to try")
            choices.append([(key, value) for value in each.choices])
        return [dict(values) for values in itertools.product(*choices)]

    @property
    def key(self) -> str:
        """The name of the measure in its file, and in the trainer's file of all validations."""
        return self.measure.rpartition(":")[2]

    @property
    def curve(self) -> str:
        """The trainer's file of all validations, if the measure is a trainer's."""
        return str(Path(self.measure.rpartition(":")[0]).with_name(_CURVE))


def open_study(search: Search, storage: Path) -> optuna.Study:
    """Open the study in SQLite's file `storage`, or create it.

    Raises:
        InputError: if a sweep of this name has tried something else, or an interval has no measure.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if search.trials and not search.measure:
        raise InputError("--trials chooses by what came before: --metric FILE:KEY says by what")
    grid = [] if search.trials else search.combinations()
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}",
        study_name=search.name,
        load_if_exists=True,
        direction="maximize" if search.maximize else "minimize",
        sampler=optuna.samplers.TPESampler(constant_liar=True),  # trials run side by side
        pruner=optuna.pruners.NopPruner() if grid else optuna.pruners.MedianPruner(),
    )
    described = repr(replace(search, trials=None, width=1))
    if study.user_attrs.get("search", described) != described:
        raise InputError(f"the sweep {search.name!r} tried other values: choose another --name")
    study.set_user_attr("search", described)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.params.keys() != search.space.keys():  # a kill has left half of them
            study.tell(trial.number, state=TrialState.FAIL)
    states = (*_DONE, TrialState.RUNNING, TrialState.WAITING)  # what has failed is tried again
    there = [
        each.system_attrs.get("fixed_params", each.params)
        for each in study.get_trials(states=states)
    ]
    for values in grid:
        if values not in there:
            study.enqueue_trial(values)
    return study


class Sweep(Coordinator):
    """Runs the trials of a search, as many at a time as its `width`.

    A trial that a kill or Ctrl-C has left is run first, and its training resumes.
    """

    def __init__(
        self,
        plan: Plan,
        work: Work,
        executor_of: Callable[[str], Executor],
        search: Search,
    ) -> None:
        # All trials run in jobs of one kind: that of the sweep's own name.
        super().__init__(replace(plan, stages={}), work, lambda _: executor_of(search.name))
        self._search, self._baseline = search, head(plan.git_root)
        self.study = open_study(search, scratch_folder() / "sweeps.db")
        self._trials: dict[str, Trial] = {}
        self._n_reported: dict[str, int] = {}
        self._started = self.study.get_trials(states=(TrialState.RUNNING,))
        done = self.study.get_trials(states=_DONE)
        waiting = self.study.get_trials(states=(TrialState.WAITING,))
        wanted = search.trials and search.trials - len(done) - len(self._started)
        self._n_asked = len(waiting) if wanted is None else max(wanted, 0)

    @property
    def n_left(self) -> int:
        """The number of trials that have not been started in this process."""
        return len(self._started) + self._n_asked

    def summary(self) -> str:
        """Say how many trials are done, and which is the best if they are compared."""
        done = self.study.get_trials(states=(TrialState.COMPLETE,))
        pruned = self.study.get_trials(states=(TrialState.PRUNED,))
        text = f"{self._search.name}: {len(done)} trials done, {len(pruned)} pruned"
        if not done or not self._search.measure:
            return text
        best = self.study.best_trial
        name = f"{self._search.name}-{best.number}"
        return (
            f"{text}; the best is {name} with {self._search.key} {best.value:.6g}: "
            f"{', '.join(_overrides(best))}\n`dvc exp apply {name}` takes it over"
        )

    def _submit_ready(self) -> None:
        while len(self._futures) < self._search.width and self.n_left:
            n_reported = 0
            if self._started:
                before = self._started.pop(0)
                n_reported = len(before.intermediate_values)
                trial = Trial(self.study, before._trial_id)
            else:
                self._n_asked -= 1
                trial = self.study.ask(self._search.space)
            name = f"{self._search.name}-{trial.number}"
            self._trials[name], self._n_reported[name] = trial, n_reported
            self.runs[name] = self._new_run(name)
            self.runs[name].detail = ", ".join(_overrides(trial))
            self._submit(self.runs[name])

    def _experiment(self, run: StageRun) -> Experiment:
        overrides = tuple(_overrides(self._trials[run.stage]))
        return Experiment(self._baseline, self._search.targets, overrides, self._search.measure)

    def _end(self, run: StageRun, outcome: Outcome) -> None:
        trial = self._trials[run.stage]
        if run.state is State.PRUNED and outcome.status:  # it may have been done just then
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        super()._end(run, outcome)
        if outcome.status:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, outcome.value)

    def _look_at(self, run: StageRun) -> None:
        super()._look_at(run)
        if run.state is State.RUNNING and self._search.measure and self._is_hopeless(run):
            run.state = State.PRUNED
            self._work.worker(run.stage).unlink(missing_ok=True)

    def _is_hopeless(self, run: StageRun) -> bool:
        """Report new validations of the trial; tell whether Optuna prunes it for them."""
        file = self._work.workers / run.worker / self._work.folder / self._search.curve
        values = _column(file, self._search.key, run.since)
        trial, before = self._trials[run.stage], self._n_reported[run.stage]
        for number, value in enumerate(values[before:], before):
            trial.report(value, number)
        self._n_reported[run.stage] = max(len(values), before)
        return len(values) > before and trial.should_prune()


def _overrides(trial: Trial | FrozenTrial) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in trial.params.items()]


def _column(file: Path, name: str, since: float) -> list[float]:
    """Read a column of numbers, unless the file is older: another trial may have left one.

    The last line may be half a line yet, and is left out then.
    """
    try:
        if file.stat().st_mtime < since:
            return []
        whole, _, _ = file.read_text().rpartition("\n")
    except OSError:  # there is none, or DVC has just removed it
        return []
    rows = csv.DictReader(whole.splitlines())
    return [float(value) for row in rows if (value := row.get(name))]
