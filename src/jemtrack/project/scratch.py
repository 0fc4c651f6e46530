"""Keep unfinished trainings in `.jemtrack/`, in a folder each, keyed by all that determines it.

DVC deletes the outs of a stage before it runs the stage, so checkpoints cannot be outs.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jemtrack.files import atomic_write, file_digest
from jemtrack.project.params import LOCK, read_lock, stage_outs
from jemtrack.project.provenance import RECIPES, Determinants, project_root, scratch_folder
from jemtrack.train.checkpoint import Checkpoints, newest_first

log = logging.getLogger("jemtrack")

_LOCK, _WAITING, _REMOVED = "lock", "waiting", ".removed"


@dataclass
class FolderLock:
    """A folder that this process has locked; set `keep` to keep it when the block ends."""

    keep: bool = False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Lock `folder` for this process; wait while another process has locked it.

    When the block ends, the folder is removed, unless it is to be kept or another process waits
    for it: that process will find the finished training in it. After an exception it is kept if
    it has a checkpoint. The kernel releases the lock of a process that is killed.
    """
    lock = FolderLock()
    with _open_lock(folder) as lock_file:
        try:
            yield lock
        except BaseException:
            lock.keep = lock.keep or bool(newest_first(folder))
            raise
        finally:
            if not lock.keep:
                _remove_unless_awaited(folder)
            lock_file.close()


def _remove_unless_awaited(folder: Path) -> None:
    with (folder / _WAITING).open("a") as waiting:
        # Waiting processes hold shared locks on this file: an exclusive one proves there are none.
        if _try_lock(waiting, fcntl.LOCK_EX):
            _remove(folder)


def lock_holder(folder: Path) -> int | None:
    """Return the id of the process that has locked `folder`; None if it is not locked."""
    try:
        with (folder / _LOCK).open("r") as lock:
            if _try_lock(lock, fcntl.LOCK_SH):
                return None
            return int(lock.read() or 0)
    except FileNotFoundError:
        return None


def remove_unless_locked(folder: Path) -> bool:
    """Remove `folder` unless a process has locked it; tell whether it was removed."""
    try:
        with (folder / _LOCK).open("a") as lock:
            if not _try_lock(lock, fcntl.LOCK_EX):
                return False
            if _is_same_file(lock, folder / _LOCK):
                _remove(folder)
            return True
    except FileNotFoundError:
        return False


def remove_leftovers(parent: Path, name: str = "") -> None:
    """Delete folders in `parent` whose removal was cut short by a kill; `name` restricts them."""
    for path in parent.glob(f"{name}*{_REMOVED}"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove the folder; rename it first, so that no process finds it half removed."""
    folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{_REMOVED}"))
    remove_leftovers(folder.parent, folder.name)


@contextlib.contextmanager
def _open_lock(folder: Path) -> Iterator[IO[str]]:
    with contextlib.ExitStack() as files:
        while not (lock := _wait_for_lock(folder, files)):
            files.close()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _wait_for_lock(folder: Path, files: contextlib.ExitStack) -> IO[str] | None:
    """Lock `folder`; return None if another process removed it meanwhile, lock file included."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = files.enter_context((folder / _WAITING).open("a"))
        lock = files.enter_context((folder / _LOCK).open("a+"))
    except FileNotFoundError:
        return None
    except FileExistsError:  # mkdir found the folder, which was gone when it checked what it is
        if folder.is_file():
            raise
        return None
    fcntl.flock(waiting, fcntl.LOCK_SH)
    if not _try_lock(lock, fcntl.LOCK_EX):
        lock.seek(0)
        log.warning(f"process {lock.read() or '?'} is running this training: waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    if not _is_same_file(lock, folder / _LOCK):
        return None
    fcntl.flock(waiting, fcntl.LOCK_UN)
    return lock


def _try_lock(file: IO[str], kind: int) -> bool:
    """Lock `file` without waiting; tell whether that worked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(file: IO[str], path: Path) -> bool:
    """Tell whether `path` is still the open `file`, not a new one of the same name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def trainings(parent: Path, stage: str | None = None) -> list[Path]:
    """List the folders of unfinished trainings, of one stage or of all; not those being removed."""
    found = sorted(path for path in parent.glob("*-*") if path.is_dir())
    return [path for path in found if path.suffix != _REMOVED and stage in {None, stage_of(path)}]


def stage_of(folder: Path) -> str:
    """Return the name of the stage, or of the recipe, that a training's folder belongs to."""
    name = folder.name.rpartition("-")[0]
    return f"{RECIPES}{name}" if folder.parent.name == RECIPES.rstrip("/") else name


def files_in(folder: Path) -> list[os.stat_result]:
    """Stat the files of a training; skip those that another process removes meanwhile."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat())
    return [file for file in found if stat.S_ISREG(file.st_mode)]


def last_written(folder: Path) -> float:
    """Return the time of the last write into `folder`, as `time.time()`; now if it is empty."""
    return max((file.st_mtime for file in files_in(folder)), default=time.time())


_KEPT_DAYS = 14
_SHORT_KEY = 8  # digits of a training's key in the name of a tracker's folder
_FINISHED, _OUTS = "finished.json", "outs"


@contextlib.contextmanager
def resumable(found: Determinants | None, every_seconds: float) -> Iterator[Checkpoints | None]:
    """Lock the folder of this training and yield its checkpoints; None outside of a DVC project.

    Under DVC they are kept until dvc.lock has the stage's outs: if DVC is killed before that, it
    runs the stage again, which finds its training done. Checkpoints of the stage's other
    trainings are removed two weeks after their last use.
    """
    if found is None:
        yield None
        return
    with locked(found.folder) as lock:
        found.write()
        remove_old(found.stage, found.folder.parent)
        yield Checkpoints(found.folder, every_seconds)
        lock.keep = "DVC_STAGE" in os.environ


def mark_finished(found: Determinants) -> None:
    """Note the outs of a finished training, so that its folder is removed once DVC has them."""
    if not found.folder.exists():
        return
    # ZnTrack writes its metadata once more, after the stage.
    outs = (path for path in stage_outs(found.stage) if path.name != "node-meta.json")
    digests = {path.as_posix(): file_digest(path, "md5") for path in outs if path.is_file()}
    atomic_write(
        found.folder / _FINISHED, lambda unfinished: unfinished.write_text(json.dumps(digests))
    )


def remove_recorded() -> None:
    """Remove finished trainings whose outs are in dvc.lock: DVC does not run them again."""
    for mark in scratch_folder().glob(f"*/{_FINISHED}"):
        # Another stage may remove the mark meanwhile, and a kill may have left half a dvc.lock:
        # what cannot be read is kept, and stops no stage.
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
            if _is_recorded(mark):
                remove_unless_locked(mark.parent)


def _is_recorded(mark: Path) -> bool:
    outs = read_lock().get(stage_of(mark.parent), {}).get("outs", [])
    locked_outs = {out["path"]: out.get("md5") for out in outs}
    finished = json.loads(mark.read_text())
    # An older dvc.lock has the same digests if a stage that ran by force gave the same result.
    is_newer = LOCK.exists() and LOCK.stat().st_mtime >= mark.stat().st_mtime
    return is_newer and finished.items() <= locked_outs.items()


def keep_outs(found: Determinants) -> None:
    """Move the stage's outs into the folder of what they were made from, for `restore_outs`."""
    with locked(found.folder) as lock:
        lock.keep = True
        found.write()
        kept, unfinished = found.folder / _OUTS, found.folder / f"{_OUTS}.unfinished"
        for folder in (kept, unfinished):
            shutil.rmtree(folder, ignore_errors=True)
        for out in (path for path in stage_outs(found.stage) if path.exists()):
            (unfinished / out).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(out, unfinished / out)
        unfinished.rename(kept)


def restore_outs(found: Determinants) -> bool:
    """Copy outs that were kept for the stage as it is now; tell whether there are any."""
    kept = found.folder / _OUTS
    if not kept.exists():
        return False
    with locked(found.folder) as lock:
        lock.keep = True
        shutil.copytree(kept, Path(), dirs_exist_ok=True)
    return True


def resume_hint(found: Determinants | None) -> str:
    """Say what is saved of a training that was broken off, and what resumes it."""
    saved = newest_first(found.folder) if found else []
    if not saved:
        return ""
    return f"; step {saved[0].step} is saved: `dvc repro`, or the same `dvc exp run`, resumes there"


def remove_old(stage: str, parent: Path) -> None:
    """Remove the stage's trainings that are not locked and were not resumed for two weeks."""
    remove_leftovers(parent)
    for folder in trainings(parent, stage):
        idle_days = (time.time() - last_written(folder)) / (24 * 60 * 60)
        if idle_days > _KEPT_DAYS and remove_unless_locked(folder):
            log.info(f"removed {folder.name}: it was not resumed for {idle_days:.0f} days")


@contextlib.contextmanager
def persistent_output(out: Path, checkpoints: Checkpoints | None) -> Iterator[Path]:
    """Yield a folder for the contents of the DVC out `out` that survives a kill.

    DVC deletes the out when it runs the stage again, but not the checkpoints. The yielded folder
    is beside them, and is copied to `out` when the block ends, even by an exception.
    """
    if checkpoints is None:
        yield out
        return
    folder = checkpoints.folder / out.name
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # on a full disk, what was raised says so already
            _replace_folder(out, folder)
        raise
    _replace_folder(out, folder)


def _replace_folder(out: Path, source: Path) -> None:
    if source.exists():
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(source, out)


def tracked_folder(run_folder: Path, checkpoints: Checkpoints | None) -> Path:
    """Return the folder for the run's trackers, from the run's own folder.

    If DVC runs a copy of the project, several trainings of one stage may run at once: the start
    of the training's key keeps their folders apart.
    """
    if checkpoints is None or project_root().resolve() == Path.cwd().resolve():
        return run_folder
    key = checkpoints.folder.name.rpartition("-")[2]
    return run_folder.with_name(f"{run_folder.name}-{key[:_SHORT_KEY]}")
