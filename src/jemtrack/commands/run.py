"""Run what is stale on several workers, and show how they get on: `jemtrack run`."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.live import Live
from rich.table import Table

from jemtrack.commands.scratch import progress_text
from jemtrack.commands.tables import table_console
from jemtrack.errors import InputError
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
from jemtrack.project.workers.plan import Plan, push_inputs, restore_and_plan
from jemtrack.project.workers.snapshot import edited_since, push_snapshot
from jemtrack.project.workers.worker import Work
from jemtrack.record.jsonl import EPOCHS, RUN, read_lines
from jemtrack.shared.hardware import available_cpus
from jemtrack.train.checkpoint import newest_first

_BUSY = ("threads", "processes", "nodes")  # parameters that say how many CPUs a stage keeps busy
_TAIL = 20  # lines of the log of a stage that failed
_LOG_END = 8192  # bytes, in which they are looked for


def run(targets: Sequence[str] = (), workers: int | None = None, cluster: str | None = None) -> int:
    """Run the stages, `workers` at a time or on a `cluster` of jemtrack.yaml.

    Return the exit status: 1 unless all are done.

    Raises:
        InputError: if the stages cannot run; then none has.
        Interrupted: after Ctrl-C or SIGTERM, when the stages have ended.
    """
    plan = restore_and_plan(targets, _remote(cluster))
    if plan.n_restored:
        print(f"restored {_n_stages(plan.n_restored)} from DVC's cache")
    if not plan.stages:
        print("nothing to run")
        return 0
    with only_run(plan):
        with pool(plan, workers, cluster, len(plan.stages)) as (work, found):
            print(f"{_n_stages(len(plan.stages))} to run on {found.name}", flush=True)
            runs = coordinate(Coordinator(plan, work, found.executor_of))
        return _finish(plan, work, runs, targets)


@dataclass(frozen=True)
class Pool:
    """Where stages run: what executes each, how many run at a time, and what to call it."""

    executor_of: Callable[[str], Executor]
    width: int
    name: str


@contextlib.contextmanager
def pool(
    plan: Plan, workers: int | None, cluster: str | None, count: int, sweep: str = ""
) -> Iterator[tuple[Work, Pool]]:
    """Take the snapshot, and open the workers or the cluster for `count` stages, or for a sweep."""
    if cluster is None:
        width = min(workers or _default_workers(plan), count)
        work = prepare(plan, threads=max(available_cpus() // width, 1))
        with ThreadPoolExecutor(width) as executor:
            yield work, Pool(lambda stage: executor, width, f"{width} worker" + "s" * (width > 1))
        return
    # Imported here: it takes a while, and most runs are on this machine.
    from jemtrack.project.runtime import runtime_cluster
    from jemtrack.project.workers.clusters import executors, job_logs

    chosen = runtime_cluster(cluster)
    work = prepare(plan, threads=1, named=True)
    if sweep and chosen.remote:
        raise InputError(f"clusters.{cluster}: a sweep needs a shared disk, and not a `remote`")
    if plan.remote:
        push_inputs(plan)
        git = push_snapshot(plan.git_root, work.snapshot, chosen.git)
        work = replace(work, git=git, own_folder=f"{chosen.folder}/{plan.git_root.name}")
    with executors(chosen, work.workers) as executor_of:
        jobs = f"; its jobs log to {_relative(job_logs(work.workers))}" * chosen.has_jobs
        yield work, Pool(executor_of, chosen.jobs_of(sweep), f"{cluster}{jobs}")


def _remote(cluster: str | None) -> str:
    """Return the DVC remote of a cluster without a shared disk."""
    if cluster is None:
        return ""
    from jemtrack.project.runtime import runtime_cluster

    return runtime_cluster(cluster).remote


def _default_workers(plan: Plan) -> int:
    """Return for how many stages there are CPUs, by the threads that their parameters ask for."""
    values = read_parameters() if PARAMS.exists() else {}
    most = 1
    for stage in plan.stages or values:
        section = values.get(stage)
        asked = section.get("params") if isinstance(section, dict) else None
        if isinstance(asked, dict):
            threads, processes, nodes = (asked.get(name, 1) for name in _BUSY)
            if all(isinstance(each, int) and each > 0 for each in (threads, processes, nodes)):
                most = max(most, threads * processes // nodes)
    return max(available_cpus() // most, 1)


def coordinate(coordinator: Coordinator) -> list[StageRun]:
    """Show what a coordinator does while it runs; return all that has run."""
    try:
        with _watching() as watch:
            coordinator.run(watch)
    except KeyboardInterrupt:
        runs = coordinator.runs.values()
        stopped = [run.stage for run in runs if run.state is State.STOPPED]
        say(f"stopped {', '.join(stopped) or 'while no stage ran'}: the same command resumes")
        raise
    return [*coordinator.runs.values()]


def _finish(plan: Plan, work: Work, runs: Sequence[StageRun], targets: Sequence[str]) -> int:
    """Restore what is done, as `dvc repro` does; say what is missing; return the exit status."""
    for failed in (run for run in runs if run.state is State.FAILED):
        say(failure(failed))
    if not_run := [run.stage for run in runs if run.state is State.NOT_RUN]:
        say(f"not run, because of what failed: {', '.join(not_run)}")
    after = restore_and_plan(targets, plan.remote)
    remove_recorded()
    print(f"restored {_n_stages(after.n_restored)}, ran none in the project itself")
    done = [run.stage for run in runs if run.state is State.DONE]
    if stale := [stage for stage in done if stage in after.stages]:
        edited = ", ".join(edited_since(plan, work.snapshot)) or "an input"
        say(
            f"{', '.join(stale)}: {edited} changed while the workers ran. Their results are of the "
            "state before, and DVC's cache has them: undo the change, and `jemtrack run` restores "
            "them; otherwise it runs them anew"
        )
    return 0 if len(done) == len(runs) and not stale else 1


def failure(run: StageRun) -> str:
    """Say how a run failed, with the end of its log."""
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
            what = f", {run.detail}" * bool(run.detail)
            return f"running on worker {run.worker}, log {_relative(run.log)}{what}"
        case State.DONE | State.FAILED | State.PRUNED:
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
            f"{run.stage} {run.detail}".strip(),
            run.state.value + killed,
            run.worker,
            _elapsed(run),
            _progress(run),
            log,
        )
    return table


def _elapsed(run: StageRun) -> str:
    running = time.time() - run.since if run.state is State.RUNNING else 0.0
    return _clock(run.seconds + running)


def _clock(seconds: float) -> str:
    """Write a duration as hours, minutes and seconds; "" for less than a second."""
    whole = round(seconds)
    if whole < 1:
        return ""
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _progress(run: StageRun) -> str:
    """Say how far a stage is: by the checkpoint of its training, or by its log's last line."""
    if run.state is not State.RUNNING:
        return ""
    folders = trainings(scratch_folder(), run.stage)
    newest = newest_first(folder := max(folders, key=last_written)) if folders else []
    if newest:
        left = _clock(seconds_left(folder / "record", datetime.now(UTC)))
        return progress_text(newest[0]) + f", {left} left" * bool(left)
    return (_last_lines(run.log) or [""])[-1]


def seconds_left(record: Path, now: datetime) -> float:
    """Estimate the rest of a training's phase by its epochs since it started or resumed, or 0."""
    starts = [line for line in read_lines(record / RUN) if line["event"] == "phase_start"]
    if not starts:
        return 0.0
    began, n_epochs = starts[-1]["timestamp"], starts[-1]["n_epochs"]
    # Equal forms of one time zone: earlier texts are of earlier times.
    ends = [line["timestamp"] for line in read_lines(record / EPOCHS) if line["timestamp"] > began]
    if not ends:
        return 0.0
    first, last = map(datetime.fromisoformat, (began, ends[-1]))
    n_left = n_epochs - starts[-1]["position"]["epoch"] - len(ends)
    left: timedelta = (last - first) / len(ends) * n_left - (now - last)
    return left.total_seconds()


def _last_lines(path: Path) -> list[str]:
    """Read the end of a log."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(path.stat().st_size - _LOG_END, 0))
        text = log.read().decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]
    return []


def _relative(path: Path) -> Path:
    return Path(os.path.relpath(path))


def _n_stages(count: int) -> str:
    return f"{count} stage" + "s" * (count != 1)


def say(line: str) -> None:
    """Print a line beside the table and the results."""
    print(f"jemtrack: {line}", file=sys.stderr, flush=True)
