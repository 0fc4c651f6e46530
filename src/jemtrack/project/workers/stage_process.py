"""Run stages in a worker's clone, in a process that ends when its worker does.

It leads a session of its own. The worker, which asks for each stage in a line of JSON, holds the
other end of its standard input. When that closes, because the worker has died or wants the stage
to end, all of the session are asked to end: a training saves a checkpoint after its batch.
"""

import contextlib
import json
import os
import queue
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

KILLED = 128 + signal.SIGKILL  # exit status, as in shells
ENDED = 128 + signal.SIGTERM
_IDLE_SECONDS = 60.0  # without a stage, after which it ends
_END_SECONDS = 30.0  # for a batch and its checkpoint; what has not ended by then is killed


def main(answers: int) -> int:
    """Reproduce the stages that the worker asks for, and write the exit status of each."""
    # A handler, because processes inherit that a signal is ignored.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=[_take_stdin(), requests], daemon=True).start()
    # Imported here: it takes half a second, in which the worker may die.
    import dvc.repo  # noqa: F401

    with contextlib.suppress(queue.Empty):
        while True:
            work = json.loads(requests.get(timeout=_IDLE_SECONDS))
            with Path(work["log"]).open("ab") as log:
                os.dup2(log.fileno(), sys.stdout.fileno())
                os.dup2(log.fileno(), sys.stderr.fileno())
            os.chdir(work["folder"])  # of a clone that may have been made anew
            status = _reproduce(work)
            end_group(os.getpgrp())
            sys.stdout.flush()
            os.write(answers, str(status).encode())
    return 0


def _reproduce(work: dict[str, Any]) -> int:
    """Get the data, then reproduce the stage; return the exit status of its command."""
    from dvc.config import Config
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo
    from dvc.repo.reproduce import collect_stages

    from jemtrack.errors import InputError
    from jemtrack.project.workers.restore import push_results, restore

    try:
        with Config(Path(Repo.find_root(), Repo.DVC_DIR)).edit("local") as settings:
            settings.update(work["config"])
        with Repo() as repo:
            repo.scm_context.quiet = True  # no hints to `git add` in a clone
            over_remote = work["over_remote"]
            if work["sources"]:
                get = repo.pull if over_remote else repo.checkout
                get(work["sources"], force=True)
            if experiment := work["experiment"]:
                for stage in collect_stages(repo, work["stale"]):
                    # It may be of a result that the cache never had: the run cache has its own.
                    stage.dvcfile._lockfile.remove_stage(stage)
                repo.experiments.run(
                    targets=experiment["targets"] or None,
                    params=experiment["overrides"],
                    name=work["stage"],
                )
                return 0
            with lock_repo(repo):
                restore(repo, [work["stage"]], pull=over_remote)
            stages = repo.reproduce(work["stage"])
            if over_remote:
                push_results(repo, stages)
    except (DvcException, ImportError, InputError) as error:
        print(f"{error}: {error.__cause__}" if error.__cause__ else error, flush=True)
        return _status(error.__cause__ or error)
    return 0


def _read(worker: int, requests: "queue.Queue[bytes]") -> None:
    """Put each line of the worker into the queue; end all when there is no more to come."""
    line = b""
    while more := os.read(worker, 2**16):  # nothing when the worker closes it, or the system does
        line += more
        if line.endswith(b"\n"):
            requests.put(line)
            line = b""
    end_group(os.getpgrp())
    os._exit(ENDED)


def _take_stdin() -> int:
    """Return the worker's end for this process alone; the stage reads nothing from it."""
    worker = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return worker


def _status(error: BaseException) -> int:
    """Return the exit status that tells how the stage's command ended."""
    # DVC has the number in its message alone.
    found = re.search(r"exited with (-?\d+)$", str(error))
    number = int(found[1]) if found else 1
    return 128 - number if number < 0 else number


def end_group(group: int) -> None:
    """Ask the processes of a group, but this one, to end; kill those that do not in time."""
    for number, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + seconds
        for process in _members(group):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        while _members(group) and time.monotonic() < deadline:
            time.sleep(0.05)


def _members(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # A dead one whose parent has not yet asked for its status is a member, too.
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            is_other = process.pid != os.getpid() and os.getpgid(process.pid) == group
            if is_other and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
