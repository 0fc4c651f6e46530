"""Where unfinished trainings keep what they need to go on: a folder each, found by its key."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

log = logging.getLogger("jemtrack")

_LOCK, _WAITING = "lock", "waiting"


def scratch_key(determining: Any) -> str:
    """Give the key of a training: a digest of all that determines it, as JSON has it."""
    text = json.dumps(determining, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep `folder` for this process alone; wait for another one that holds it.

    When the block ends without an exception the folder is removed, unless a process waits for it:
    that one finds what is there, and has nothing left to do. The kernel lets go of a folder
    whose process was killed.
    """
    with _hold(folder) as lock:
        yield
        with (folder / _WAITING).open("a") as waiting:
            if _take(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder)
        lock.close()


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[IO[str]]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _WAITING).open("a") as waiting, (folder / _LOCK).open("a+") as lock:
            fcntl.flock(waiting, fcntl.LOCK_SH)
            if not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                lock.seek(0)
                log.warning(f"process {lock.read() or '?'} trains this already: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            # The holder before may have removed the folder, and the lock with it.
            if not _is_still(lock, folder / _LOCK):
                continue
            fcntl.flock(waiting, fcntl.LOCK_UN)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield lock
            return


def _take(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def _is_still(file: IO[str], path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
