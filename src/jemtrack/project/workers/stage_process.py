"""Run one stage in a worker's clone, in a process that ends when its worker does.

It leads a session of its own. The worker, which asks for the stage in a line of JSON, holds the
other end of its standard input. When that closes, because the worker has died or wants the stage
to end, all of the session are asked to end: a training saves a checkpoint after its batch.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

KILLED = 128 + signal.SIGKILL  # exit status, as in shells
ENDED = 128 + signal.SIGTERM
_END_SECONDS = 30.0  # for a batch and its checkpoint; what has not ended by then is killed


def main() -> int:
    """Get the data, then reproduce the stage that the worker asks for; return the exit status."""
    # A handler, because processes inherit that a signal is ignored.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    worker = _take_stdin()
    request = b""
    while not request.endswith(b"\n"):
        if not (more := os.read(worker, 2**16)):
            return ENDED
        request += more
    threading.Thread(target=_end_with_worker, args=[worker], daemon=True).start()
    # Imported here: it takes half a second, in which the worker may die.
    from dvc.config import Config
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    work = json.loads(request)
    try:
        with Config(Path(Repo.find_root(), Repo.DVC_DIR)).edit("local") as settings:
            settings.update(work["config"])
        with Repo() as repo:
            repo.scm_context.quiet = True  # no hints to `git add` in a clone
            if work["sources"]:
                repo.checkout(work["sources"], force=True)
            repo.reproduce(work["stage"])
    except DvcException as error:
        print(f"{error}: {error.__cause__}" if error.__cause__ else error, flush=True)
        return _status(error.__cause__ or error)
    return 0


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


def _end_with_worker(worker: int) -> None:
    os.read(worker, 1)  # returns when the worker closes it, or the system does
    end_group(os.getpgrp())
    os._exit(ENDED)


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
    sys.exit(main())
