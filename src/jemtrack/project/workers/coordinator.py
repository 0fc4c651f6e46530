"""Hand stages to an executor in the graph's order, and keep track of what becomes of them."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jemtrack.errors import InputError, Interrupted
from jemtrack.project.provenance import SCRATCH
from jemtrack.project.workers.plan import Plan
from jemtrack.project.workers.snapshot import take_snapshot
from jemtrack.project.workers.worker import Experiment, Outcome, Work, run_stage
from jemtrack.shared.interruption import Interruption

_LOOK_SECONDS = 0.5
_MOST_KILLS = 10  # of one stage, each of which resumes; more is no accident


class State(Enum):
    """What has become of a stage, in the words of the table."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    PRUNED = "pruned"
    STOPPED = "stopped"
    NOT_RUN = "not run"


@dataclass
class StageRun:
    """A stage of the plan, or a trial of a sweep, as it stands.

    Attributes:
        stage: its name.
        log: the file with its output.
        state: what has become of it.
        worker: the name of the clone that it runs in.
        since: when it started there, as `time.time()`.
        seconds: how long it took.
        kills: how often it was killed and tried again.
        status: the exit status of its command.
        problem: why it did not run or failed, if its log does not say so.
        detail: what sets a trial apart from others.
    """

    stage: str
    log: Path
    state: State = State.WAITING
    worker: str = ""
    since: float = 0.0
    seconds: float = 0.0
    kills: int = 0
    status: int = 0
    problem: str = ""
    detail: str = ""


Watch = Callable[[list[StageRun]], None]


def workers_folder(plan: Plan) -> Path:
    """Return the folder of the project's clones and of their logs."""
    return plan.dvc_root / SCRATCH / "workers"


@contextlib.contextmanager
def only_run(plan: Plan) -> Iterator[None]:
    """Keep a second `jemtrack run` out of the project while the block runs.

    Raises:
        InputError: if another one runs.
    """
    folder = workers_folder(plan)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "coordinator").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InputError(
                f"process {lock.read() or '?'} runs the stages of {plan.dvc_root} already"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def prepare(plan: Plan, threads: int, *, named: bool = False) -> Work:
    """Take the snapshot, and lay out the folder that workers use.

    Raises:
        InputError: if git does not know a file that a stage needs.
    """
    work = Work(
        root=plan.git_root,
        project=plan.dvc_root.relative_to(plan.git_root),
        folder=plan.folder.relative_to(plan.git_root),
        snapshot=take_snapshot(plan),
        sources=plan.sources,
        stale=tuple(plan.stages),
        config=plan.config,
        workers=workers_folder(plan),
        threads=threads,
        named=named,
    )
    work.logs.mkdir(parents=True, exist_ok=True)
    return work


class Coordinator:
    """Runs the stages of a plan: each once those that it waits for are done.

    What fails stops only what waits for it. A stage that was killed is run again, on whichever
    worker is free.
    """

    def __init__(self, plan: Plan, work: Work, executor_of: Callable[[str], Executor]) -> None:
        self._plan, self._work, self._executor_of = plan, work, executor_of
        self._futures: dict[Future[Outcome], StageRun] = {}
        self.runs = {stage: self._new_run(stage) for stage in plan.stages}

    def _new_run(self, name: str) -> StageRun:
        log = self._work.log(name)
        log.write_bytes(b"")
        return StageRun(name, log)

    def run(self, watch: Watch) -> None:
        """Run all, and show `watch` how it gets on; return when nothing is left to run.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, when the stages that ran have ended.
        """
        # An exception amid `wait` would leave the futures locked.
        with Interruption() as interruption:
            try:
                self._run(watch, interruption)
                if interruption.number:
                    self._stop()
                    watch([*self.runs.values()])
                    raise Interrupted(interruption.number)
            finally:
                self._work.running.unlink(missing_ok=True)

    def _run(self, watch: Watch, interruption: Interruption) -> None:
        self._submit_ready()
        while self._futures and not interruption.number:
            self._work.running.touch()
            done, _ = wait(self._futures, _LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                self._note(self._futures.pop(future), future)
            self._submit_ready()
            self._look()
            watch([*self.runs.values()])

    def _submit_ready(self) -> None:
        for stage, awaited in self._plan.stages.items():
            run = self.runs[stage]
            if run.state is State.WAITING and all(
                self.runs[each].state is State.DONE for each in awaited
            ):
                self._submit(run)

    def _submit(self, run: StageRun) -> None:
        self._work.running.touch()
        self._work.worker(run.stage).unlink(missing_ok=True)
        run.state, run.worker = State.QUEUED, ""
        executor = self._executor_of(run.stage)
        future = executor.submit(run_stage, self._work, run.stage, self._experiment(run))
        self._futures[future] = run

    def _experiment(self, run: StageRun) -> Experiment | None:
        """Return what the run is an experiment of; a stage is none."""

    def _note(self, run: StageRun, future: Future[Outcome]) -> None:
        """Note how a stage has ended."""
        self._look_at(run)
        try:
            outcome = future.result()
        except Exception as error:  # no clone, or what an executor says of lost workers
            run.problem = f"{type(error).__name__}: {error}"
            outcome = Outcome(1, 0.0)
        with run.log.open("ab") as log:
            log.write(outcome.log)
        run.seconds += outcome.seconds
        run.status = outcome.status
        is_wanted = run.state is not State.PRUNED
        if outcome.killed and is_wanted and run.kills < _MOST_KILLS:
            run.kills += 1
            self._submit(run)
        else:
            self._end(run, outcome)

    def _end(self, run: StageRun, outcome: Outcome) -> None:
        run.state = State.FAILED if outcome.status else State.DONE
        if outcome.status:
            for stage in self._plan.following(run.stage):
                self.runs[stage].state = State.NOT_RUN

    def _look(self) -> None:
        for run in self._futures.values():
            self._look_at(run)

    def _look_at(self, run: StageRun) -> None:
        """See whether a worker has taken the stage."""
        if run.state in {State.QUEUED, State.RUNNING}:  # Dask moves a stage whose worker has died
            named = self._work.worker(run.stage)
            with contextlib.suppress(FileNotFoundError):
                run.worker, run.since = named.read_text(), named.stat().st_mtime
                run.state = State.RUNNING

    def _stop(self) -> None:
        """Ask the stages that run to end, and wait until they have."""
        self._look()
        self._work.running.unlink(missing_ok=True)
        for future, run in self._futures.items():
            # Dask would cancel one that runs, too, and not wait: as is right where nothing but that
            # tells a machine that it is no longer wanted.
            if run.state is State.QUEUED or self._work.git:
                future.cancel()
        wait(self._futures)
        for run in self._futures.values():
            run.state = State.STOPPED if run.state is State.RUNNING else State.NOT_RUN
