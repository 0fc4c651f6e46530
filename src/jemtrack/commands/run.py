"""Run what is stale on several workers, and show how they get on: `jemtrack run`."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from rich.live import Live
from rich.table import Table

from jemtrack.commands.scratch import progress_text
from jemtrack.commands.tables import table_console
from jemtrack.project.params import PARAMS, read_parameters
from jemtrack.project.provenance import scratch_folder
from jemtrack.project.scratch import last_written, remove_recorded, trainings
from jemtrack.project.workers.coordinator import (
    Coordinator,
    StageRun,
    State,
    Watch,
    only_run,
    prepare,
)
from jemtrack.project.workers.plan import Plan, restore_and_plan
from jemtrack.project.workers.snapshot import edited_since
from jemtrack.project.workers.worker import Work
from jemtrack.shared.hardware import available_cpus
from jemtrack.train.checkpoint import newest_first

_TAIL = 20  # lines of the log of a stage that failed
_LOG_END = 8192  # bytes, in which they are looked for


def run(targets: Sequence[str] = (), workers: int | None = None, cluster: str | None = None) -> int:
    """Run the stages, `workers` at a time or on a `cluster` of jemtrack.yaml.

    Return the exit status: 1 unless all are done.

    Raises:
        InputError: if the stages cannot run; then none has.
        Interrupted: after Ctrl-C or SIGTERM, when the stages have ended.
    """
    plan = restore_and_plan(targets)
    if plan.n_restored:
        print(f"restored {_stages(plan.n_restored)} from DVC's cache")
    if not plan.stages:
        print("nothing to run")
        return 0
    with only_run(plan):
        runs, work = _run_here(plan, workers) if cluster is None else _run_on(plan, cluster)
        return _finish(plan, work, runs, targets)


def _run_here(plan: Plan, workers: int | None) -> tuple[list[StageRun], Work]:
    workers = min(workers or _default_workers(plan), len(plan.stages))
    work = prepare(plan, threads=max(available_cpus() // workers, 1))
    on = f"{workers} worker" + "s" * (workers > 1)
    print(f"{_stages(len(plan.stages))} to run on {on}", flush=True)
    with ThreadPoolExecutor(workers) as executor:
        return _coordinate(plan, work, lambda stage: executor), work


def _run_on(plan: Plan, name: str) -> tuple[list[StageRun], Work]:
    # Imported here: it takes a while, and most runs are on this machine.
    from jemtrack.project.runtime import runtime_cluster
    from jemtrack.project.workers.clusters import executors, job_logs

    cluster = runtime_cluster(name)
    work = prepare(plan, threads=1, named=True)
    with executors(cluster, work.workers) as executor_of:
        jobs = f"; its jobs log to {_relative(job_logs(work.workers))}" * cluster.has_jobs
        print(f"{_stages(len(plan.stages))} to run on {name}{jobs}", flush=True)
        return _coordinate(plan, work, executor_of), work


def _default_workers(plan: Plan) -> int:
    """Return for how many stages there are CPUs, by the threads that their parameters ask for."""
    values = read_parameters() if PARAMS.exists() else {}
    most = 1
    for stage in plan.stages:
        section = values.get(stage)
        asked = section.get("params") if isinstance(section, dict) else None
        if isinstance(asked, dict):
            threads, processes = asked.get("threads", 1), asked.get("processes", 1)
            if isinstance(threads, int) and isinstance(processes, int):
                most = max(most, threads * processes)
    return max(available_cpus() // most, 1)


def _coordinate(plan: Plan, work: Work, executor_of: Callable[[str], Executor]) -> list[StageRun]:
    with _watching() as watch:
        coordinator = Coordinator(plan, work, executor_of, watch)
        runs = [*coordinator.runs.values()]
        try:
            coordinator.run()
        except KeyboardInterrupt:
            stopped = [run.stage for run in runs if run.state is State.STOPPED]
            _say(f"stopped {', '.join(stopped) or 'before a stage ran'}: the same command resumes")
            raise
    return runs


def _finish(plan: Plan, work: Work, runs: Sequence[StageRun], targets: Sequence[str]) -> int:
    """Restore what is done, as `dvc repro` does; say what is missing; return the exit status."""
    for failed in (run for run in runs if run.state is State.FAILED):
        _say(_failure(failed))
    if not_run := [run.stage for run in runs if run.state is State.NOT_RUN]:
        _say(f"not run, because of what failed: {', '.join(not_run)}")
    after = restore_and_plan(targets)
    remove_recorded()
    print(f"restored {_stages(after.n_restored)}, ran none in the project itself")
    done = [run.stage for run in runs if run.state is State.DONE]
    if stale := [stage for stage in done if stage in after.stages]:
        edited = ", ".join(edited_since(plan, work.snapshot)) or "an input"
        _say(
            f"{', '.join(stale)}: {edited} changed while the workers ran. Their results are of the "
            "state before, and DVC's cache has them: undo the change, and `jemtrack run` restores "
            "them; otherwise it runs them anew"
        )
    return 0 if len(done) == len(runs) and not stale else 1


def _failure(run: StageRun) -> str:
    ended = f"failed with status {run.status}"
    if run.kills:
        ended += f", and was killed {run.kills} times before"
    tail = "\n".join(f"  {line}" for line in _last_lines(run.log)[-_TAIL:])
    return f"{run.stage} {ended}: {run.problem or run.log}" + f"\n{tail}" * bool(tail)


@contextlib.contextmanager
def _watching() -> Iterator[Watch]:
    """Yield what shows the stages: a table on a terminal, elsewhere a line for each change."""
    if not sys.stdout.isatty():
        yield _Lines()
        return
    with Live(console=table_console(), auto_refresh=False, transient=False) as live:
        yield lambda runs: live.update(_table(runs), refresh=True)


class _Lines:
    """Prints a line whenever a stage starts or ends."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[State, int]] = {}

    def __call__(self, runs: Sequence[StageRun]) -> None:
        for run in runs:
            now = run.state, run.kills
            before, self._before[run.stage] = self._before.get(run.stage), now
            if before and before[1] != run.kills:
                print(f"{run.stage}: was killed, runs again", flush=True)
            if before != now and (line := _line(run)):
                print(f"{run.stage}: {line}", flush=True)


def _line(run: StageRun) -> str:
    match run.state:
        case State.RUNNING:
            return f"running on worker {run.worker}, log {_relative(run.log)}"
        case State.DONE | State.FAILED:
            return f"{run.state.value} in {run.seconds:.0f} s"
        case State.STOPPED | State.NOT_RUN:
            return str(run.state.value)
    return ""


def _table(runs: Sequence[StageRun]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("STAGE", "STATE", "WORKER", "TIME"):
        table.add_column(name, no_wrap=True)
    table.add_column("PROGRESS", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("LOG", overflow="fold")
    for run in runs:
        started = run.state not in {State.WAITING, State.QUEUED, State.NOT_RUN}
        log = str(_relative(run.log)) if started else ""
        killed = f", killed {run.kills}x" if run.kills else ""
        table.add_row(
            run.stage, run.state.value + killed, run.worker, _elapsed(run), _progress(run), log
        )
    return table


def _elapsed(run: StageRun) -> str:
    running = time.time() - run.since if run.state is State.RUNNING else 0.0
    seconds = round(run.seconds + running)
    if not seconds:
        return ""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def _progress(run: StageRun) -> str:
    """Say how far a stage is: by the checkpoint of its training, or by its log's last line."""
    if run.state is not State.RUNNING:
        return ""
    folders = trainings(scratch_folder(), run.stage)
    newest = newest_first(max(folders, key=last_written)) if folders else []
    if newest:
        return progress_text(newest[0])
    return (_last_lines(run.log) or [""])[-1]


def _last_lines(path: Path) -> list[str]:
    """Read the end of a log."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(path.stat().st_size - _LOG_END, 0))
        text = log.read().decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]
    return []


def _relative(path: Path) -> Path:
    return Path(os.path.relpath(path))


def _stages(count: int) -> str:
    return f"{count} stage" + "s" * (count != 1)


def _say(line: str) -> None:
    print(f"jemtrack: {line}", file=sys.stderr, flush=True)
