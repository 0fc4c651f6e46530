"""What an executor calls for a stage, on this machine or on another: run it in a free clone."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jemtrack.files import SOURCE
from jemtrack.project.workers.snapshot import put_clone
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
        config: DVC's settings for a clone.
        workers: the folder of the clones and logs.
        threads: threads for libraries that no parameter of a stage sets.
        named: name clones after the machine, too, because there are several.
    """

    root: Path
    project: Path
    folder: Path
    snapshot: str
    sources: tuple[str, ...]
    config: Mapping[str, Any]
    workers: Path
    threads: int
    named: bool

    @property
    def running(self) -> Path:
        """The coordinator's heartbeat, a file that it touches; once it is removed, stages end."""
        return self.workers / "running"

    def log(self, stage: str) -> Path:
        """Return the file for the output of a stage."""
        return self.workers / "logs" / f"{stage.replace('/', '_')}.log"

    def worker(self, stage: str) -> Path:
        """Return the file that names the worker of a stage, written when the stage starts."""
        return self.log(stage).with_suffix(".worker")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended on a worker: the exit status of its command, and its seconds."""

    status: int
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it was killed, so that it may be tried again."""
        return self.status == KILLED


def run_stage(work: Work, stage: str) -> Outcome:
    """Run a stage in a free clone, or restore it there; return how it ended.

    The stages before it come out of DVC's run cache. Unfinished trainings are in the project's own
    `.jemtrack`, so that any worker resumes them.

    Raises:
        InputError, OSError: if no clone can be made.
    """
    started = time.monotonic()
    with _free_clone(work) as (clone, lock):
        work.worker(stage).write_text(clone.name)
        put_clone(work.root, work.snapshot, clone)
        # A DVC that was killed may have left half a file of locks, which no DVC could read.
        shutil.rmtree(clone / work.project / ".dvc" / "tmp", ignore_errors=True)
        with work.log(stage).open("ab") as log:
            status = _run_process(work, stage, clone, log, lock)
    return Outcome(status, time.monotonic() - started)


def _run_process(work: Work, stage: str, clone: Path, log: Any, lock: int) -> int:
    process = subprocess.Popen(
        [sys.executable, "-m", "jemtrack.project.workers.stage_process"],
        cwd=clone / work.folder,
        env=_environment(work, clone),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
        pass_fds=[lock],  # nobody else takes the clone before the process has ended
    )
    assert process.stdin
    heartbeat = _Heartbeat(work.running)
    # Not among the arguments, which all users of the machine can see: it may have passwords.
    request = {"stage": stage, "sources": work.sources, "config": work.config}
    try:
        with contextlib.suppress(BrokenPipeError):  # killed already, as `poll` will tell
            process.stdin.write(json.dumps(request).encode() + b"\n")
        while (status := process.poll()) is None:
            if not heartbeat.is_alive():
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
    finally:
        process.stdin.close()
        # If the process itself was killed, what it had started runs on.
        end_group(process.pid)
        process.wait()
    if not heartbeat.is_alive():
        return ENDED
    return 128 - status if status < 0 else status


def _environment(work: Work, clone: Path) -> dict[str, str]:
    """Return the variables for the stage: its code is the clone's, its scratch the project's."""
    source = str(clone / work.project / SOURCE)
    programs = str(Path(sys.executable).parent)
    return {
        "OMP_NUM_THREADS": str(work.threads),
        GROUP: f"jemtrack run {work.snapshot[:8]}",
        **os.environ,
        "DVC_ROOT": str(work.root / work.project),
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
