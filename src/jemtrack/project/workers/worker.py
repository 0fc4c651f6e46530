"""What an executor calls for a stage, on this machine or on another: run it in a free clone."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.files import SOURCE
from jemtrack.project.params import read_mapping
from jemtrack.project.provenance import ROOT_VARIABLE
from jemtrack.project.workers.snapshot import push_experiment, put_clone
from jemtrack.project.workers.stage_process import ENDED, KILLED, end_group
from jemtrack.trackers.base import GROUP

_LOOK_SECONDS = 0.2
# The coordinator touches its heartbeat file twice a second; a shared disk shows that late.
_SILENT_SECONDS = 180.0


@dataclass(frozen=True)
class Work:
    """What is equal for all stages of a run; every machine sees the same folders.

    Attributes:
        root: the project's git repository.
        project: the DVC project, relative to `root`.
        folder: the graph's folder, relative to `root`.
        snapshot: the commit that clones are at.
        sources: what `dvc checkout` gets into a clone first.
        stale: the stages that have to run, whatever dvc.lock says of them.
        config: DVC's settings for a clone.
        workers: the folder of the clones and logs.
        threads: threads for libraries that no parameter of a stage sets.
        named: name clones after the machine, too, because there are several.
        git: where to fetch the snapshot, if the machines share no disk; results then go over
            DVC's remote.
        own_folder: what each machine has then in place of the project and of `workers`.
    """

    root: Path
    project: Path
    folder: Path
    snapshot: str
    sources: tuple[str, ...]
    stale: tuple[str, ...]
    config: Mapping[str, Any]
    workers: Path
    threads: int
    named: bool
    git: str = ""
    own_folder: str = ""

    def on_this_machine(self) -> "Work":
        """Return the work with this machine's folders, if it has folders of its own."""
        if not self.git:
            return self
        folder = Path(self.own_folder).expanduser()
        cache = {**self.config.get("cache", {}), "dir": str(folder / "cache")}
        config = {**self.config, "cache": cache}
        here = replace(self, root=folder / "project", workers=folder, config=config)
        for path in (here.root / self.project, here.logs):
            path.mkdir(parents=True, exist_ok=True)
        return here

    @property
    def source(self) -> str:
        """What the clones are clones of."""
        return self.git or str(self.root)

    @property
    def running(self) -> Path:
        """The coordinator's heartbeat, a file that it touches; once it is removed, stages end."""
        return self.workers / "running"

    @property
    def logs(self) -> Path:
        """The folder of the files that follow."""
        return self.workers / "logs"

    def log(self, stage: str) -> Path:
        """Return the file for the output of a stage."""
        return self.logs / f"{stage.replace('/', '_')}.log"

    def worker(self, stage: str) -> Path:
        """Return the file that names the worker of a stage, written when the stage starts.

        Once it is removed, the stage ends.
        """
        return self.log(stage).with_suffix(".worker")


@dataclass(frozen=True)
class Experiment:
    """What `dvc exp run` makes of the snapshot.

    Attributes:
        baseline: the commit that it is an experiment of.
        targets: stages, by their names; all without.
        overrides: parameters, as `--set-param` takes them.
        measure: `FILE:KEY`, the measure that the outcome is to have; none if empty.
    """

    baseline: str
    targets: tuple[str, ...]
    overrides: tuple[str, ...]
    measure: str


@dataclass(frozen=True)
class Outcome:
    """How a stage ended on a worker: the exit status of its command, and its seconds.

    That of an experiment has its `value`: the measure that was asked for. From a machine that
    shares no disk, it has what the stage printed.
    """

    status: int
    seconds: float
    value: float = 0.0
    log: bytes = b""

    @property
    def killed(self) -> bool:
        """Whether it was ended from elsewhere, as by a job's time limit: it may be tried again."""
        return self.status in {ENDED, KILLED}


def run_stage(work: Work, stage: str, experiment: Experiment | None = None) -> Outcome:
    """Run a stage in a free clone, or restore it there; return how it ended.

    The stages before it come out of DVC's run cache. Unfinished trainings are in the project's own
    `.jemtrack`, so that any worker resumes them. An `experiment`, which then has the name `stage`,
    is one of the project when it is done.

    Raises:
        InputError, OSError: if no clone can be made, or the measure is not there.
    """
    started, value, work = time.monotonic(), 0.0, work.on_this_machine()
    request = {
        "stage": stage,
        "sources": work.sources,
        "stale": work.stale,
        "config": work.config,
        "experiment": experiment and asdict(experiment),
        "log": str(work.log(stage)),
        "over_remote": bool(work.git),
    }
    if work.git:
        work.log(stage).write_bytes(b"")  # the coordinator has what came before
    with _stage_process(work) as process:
        work.worker(stage).write_text(process.clone.name)
        put_clone(
            work.source, work.snapshot, process.clone, experiment.baseline if experiment else None
        )
        status = process.run(request, _wish(work, stage))
        if experiment and not status:
            push_experiment(process.clone, work.source, experiment.baseline, stage)
            value = read_measure(process.clone / work.folder, experiment.measure)
    log = work.log(stage).read_bytes() if work.git else b""
    return Outcome(status, time.monotonic() - started, value, log)


def _wish(work: Work, stage: str) -> Callable[[], bool]:
    """Return what tells whether the coordinator still wants the stage."""
    from jemtrack.project.workers.clusters import wish_of_dask

    dask_wants = wish_of_dask()
    if work.git:  # there is no file that both see
        return dask_wants
    heartbeat = _Heartbeat(work.running)
    return lambda: dask_wants() and heartbeat.is_alive() and work.worker(stage).exists()


def read_measure(folder: Path, measure: str) -> float:
    """Read `FILE:KEY` in a JSON or YAML file of metrics, keys joined by dots.

    Raises:
        InputError: if there is no such file or number.
    """
    if not measure:
        return 0.0
    file, _, key = measure.rpartition(":")
    found: Any = read_mapping(folder / file)
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{file} has no number {key!r}")
    return float(found)


class _StageProcess:
    """A process that runs stages in `clone`, one after the other: importing DVC takes a while."""

    def __init__(self, work: Work, clone: Path, lock: int) -> None:
        self.clone = clone
        self._work, self._lock = work, lock
        self._process: subprocess.Popen[bytes] | None = None

    def serves(self, work: Work) -> bool:
        """Tell whether it waits for another stage of this run."""
        return self._work == work and self._process is not None and self._process.poll() is None

    def run(self, request: Mapping[str, Any], is_wanted: Callable[[], bool]) -> int:
        """Run a stage while it is wanted; return the exit status."""
        process = self._process = self._process or self._start()
        assert process.stdin
        try:
            # Not among the arguments, which all users of the machine can see: it may have
            # passwords. A process that was killed before, `poll` tells.
            with contextlib.suppress(BrokenPipeError):
                place = {"folder": str(self.clone / self._work.folder)}
                process.stdin.write(json.dumps({**request, **place}).encode() + b"\n")
            while process.poll() is None:
                if select.select([self._answers], [], [], _LOOK_SECONDS)[0]:
                    if answer := os.read(self._answers, 8):
                        return int(answer)
                    process.wait()
                elif not is_wanted():
                    process.stdin.close()
        except BaseException:
            self.end()
            raise
        self.end()
        if not is_wanted():
            return ENDED
        if process.returncode < 0:
            return 128 - process.returncode
        return process.returncode or KILLED  # it ended of itself before it had the request

    def _start(self) -> "subprocess.Popen[bytes]":
        # A DVC that was killed may have left half a file of locks, which no DVC could read.
        shutil.rmtree(self.clone / self._work.project / ".dvc" / "tmp", ignore_errors=True)
        self._answers, answers = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "jemtrack.project.workers.stage_process", str(answers)],
            cwd=self.clone / self._work.folder,
            env=_environment(self._work, self.clone),
            stdin=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            # While it runs, nobody else takes the clone.
            pass_fds=[answers, self._lock],
        )
        os.close(answers)
        return process

    def end(self) -> None:
        """End the process, and what it has started: if itself was killed, that runs on."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            end_group(self._process.pid)
            self._process.wait()
            os.close(self._answers)
        self._process = None


# Processes of this worker that wait for a stage; they end with it, or after a while.
_IDLE: list[_StageProcess] = []


@contextlib.contextmanager
def _stage_process(work: Work) -> Iterator[_StageProcess]:
    """Yield a process that waits for a stage, or will be started in the first free clone."""
    with contextlib.ExitStack() as stack:
        if not (process := _idle_process(work)):
            process = _StageProcess(work, *stack.enter_context(_free_clone(work)))
        try:
            yield process
        finally:
            if process.serves(work):
                _IDLE.append(process)


def _idle_process(work: Work) -> _StageProcess | None:
    with contextlib.suppress(IndexError):  # when there is none, or another thread was faster
        while True:
            process = _IDLE.pop()
            if process.serves(work):
                return process
            process.end()
    return None


def _environment(work: Work, clone: Path) -> dict[str, str]:
    """Return the variables for the stage: its code is the clone's, its scratch the project's."""
    source = str(clone / work.project / SOURCE)
    programs = str(Path(sys.executable).parent)
    root = str(work.root / work.project)
    return {
        "OMP_NUM_THREADS": str(work.threads),
        GROUP: f"jemtrack run {work.snapshot[:8]}",
        **os.environ,
        ROOT_VARIABLE: root,
        "DVC_ROOT": root,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.contextmanager
def _free_clone(work: Work) -> Iterator[tuple[Path, int]]:
    """Lock the first clone that nobody uses; yield its folder and the locked file."""
    machine = f"{socket.gethostname()}-" if work.named else ""
    number = 1
    while True:
        clone = work.workers / f"{machine}{number}"
        with clone.with_suffix(".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                number += 1
                continue
            yield clone, lock.fileno()
            return


class _Heartbeat:
    """Tells whether the coordinator runs, by the changes of its file as they are seen from here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: float | None = None
        self._seen = time.monotonic()

    def is_alive(self) -> bool:
        try:
            touched = self._path.stat().st_mtime
        except OSError:
            return False
        if touched != self._last:
            self._last, self._seen = touched, time.monotonic()
        return time.monotonic() - self._seen < _SILENT_SECONDS
