"""Where unfinished trainings keep what they need to go on: a folder each, found by its key."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

log = logging.getLogger("jemtrack")

_LOCK, _WAITING, _REMOVED = "lock", "waiting", ".removed"


def scratch_key(determining: Any) -> str:
    """Give the key of a training: a digest of all that determines it, as JSON has it."""
    text = json.dumps(determining, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Hold:
    """A folder that this process holds alone; it is to `stay` when what is made in it is done."""

    stay: bool = False


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Hold]:
    """Keep `folder` for this process alone; wait for another one that holds it.

    When the block ends without an exception the folder is removed, unless it is to stay or a
    process waits for it: that one finds what is there, and has nothing left to do. The kernel
    lets go of a folder whose process was killed.
    """
    hold = Hold()
    with _hold(folder) as lock:
        yield hold
        with (folder / _WAITING).open("a") as waiting:
            if not hold.stay and _take(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _remove(folder)
        lock.close()


def holder(folder: Path) -> int | None:
    """Give the id of the process that holds `folder`; None where nobody does."""
    try:
        with (folder / _LOCK).open("r") as lock:
            if _take(lock, fcntl.LOCK_SH | fcntl.LOCK_NB):
                return None
            return int(lock.read() or 0)
    except FileNotFoundError:
        return None


def remove_unless_held(folder: Path) -> bool:
    """Remove `folder` and say so, unless a process holds it."""
    try:
        with (folder / _LOCK).open("a") as lock:
            if not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return False
            if _is_still(lock, folder / _LOCK):
                _remove(folder)
            return True
    except FileNotFoundError:
        return False


def remove_leftovers(parent: Path, name: str = "") -> None:
    """Finish what processes that were killed have begun to remove in `parent`, or of one name."""
    for path in parent.glob(f"{name}*{_REMOVED}"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take the folder's name away at once: a process that comes now makes a new folder."""
    folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{_REMOVED}"))
    remove_leftovers(folder.parent, folder.name)


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[IO[str]]:
    with contextlib.ExitStack() as files:
        while not (lock := _wait_for(folder, files)):
            files.close()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _wait_for(folder: Path, files: contextlib.ExitStack) -> IO[str] | None:
    """Lock `folder`; give None where it was removed meanwhile, and the lock with it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = files.enter_context((folder / _WAITING).open("a"))
        lock = files.enter_context((folder / _LOCK).open("a+"))
    except FileNotFoundError:
        return None
    except FileExistsError:  # mkdir has looked again, and it was gone
        if folder.is_file():
            raise
        return None
    fcntl.flock(waiting, fcntl.LOCK_SH)
    if not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
        lock.seek(0)
        log.warning(f"process {lock.read() or '?'} trains this already: waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    if not _is_still(lock, folder / _LOCK):
        return None
    fcntl.flock(waiting, fcntl.LOCK_UN)
    return lock


def _take(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def _is_still(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
