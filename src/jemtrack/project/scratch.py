"""Unfinished trainings: a folder each in `.jemtrack/`, found by what determines the training."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]

from jemtrack.files import atomic_write, file_digest
from jemtrack.project.params import read_parameters, read_stages
from jemtrack.project.runtime import checkpoint_seconds, project_root
from jemtrack.record.plain import plain
from jemtrack.train.checkpoint import FORMAT, Checkpoints

log = logging.getLogger("jemtrack")

_LOCK, _WAITING, _REMOVED = "lock", "waiting", ".removed"


def scratch_key(determining: Any) -> str:
    """Give the key of a training: a digest of all that determines it, as JSON has it."""
    text = json.dumps(determining, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class FolderLock:
    """A folder that this process has locked; `keep` it when the block that locked it has ended."""

    keep: bool = False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Lock `folder` for this process; wait while another process has locked it.

    The folder is removed when the block ends without an exception, unless it is to be kept or
    another process waits for it: that one finds the finished training and has nothing left to
    do. The kernel unlocks the folder of a process that was killed.
    """
    lock = FolderLock()
    with _open_lock(folder) as lock_file:
        yield lock
        with (folder / _WAITING).open("a") as waiting:
            if not lock.keep and _take(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _remove(folder)
        lock_file.close()


def lock_holder(folder: Path) -> int | None:
    """Give the id of the process that holds `folder`; None where nobody does."""
    try:
        with (folder / _LOCK).open("r") as lock:
            if _take(lock, fcntl.LOCK_SH | fcntl.LOCK_NB):
                return None
            return int(lock.read() or 0)
    except FileNotFoundError:
        return None


def remove_unless_locked(folder: Path) -> bool:
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
def _open_lock(folder: Path) -> Iterator[IO[str]]:
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


_FOLDER = ".jemtrack"
_RECORD = "determined_by.json"


@dataclasses.dataclass(frozen=True)
class Determinants:
    """All that a training of `stage` depends on.

    `parameters` are what was chosen, `values` what params.yaml said as it did, and `contents` the
    digests of the stage's deps.
    """

    stage: str
    parameters: Mapping[str, Any]
    values: Mapping[str, Any]
    contents: Mapping[str, str]
    format: int = FORMAT

    @property
    def folder(self) -> Path:
        """The folder that such a training has, and no other one."""
        key = scratch_key([self.format, self.stage, self.parameters, self.contents])
        return scratch_folder() / f"{self.stage}-{key}"

    def write(self) -> None:
        """Keep it in the folder, to tell a person later what the training was begun with."""
        text = json.dumps(dataclasses.asdict(self), indent=1, default=str)
        atomic_write(self.folder / _RECORD, lambda unfinished: unfinished.write_text(text))


def determinants(stage: str, chosen: Mapping[str, Any]) -> Determinants | None:
    """Gather what determines the training of `chosen` parameters; None without such a stage."""
    if stage not in read_stages():
        return None
    values = read_parameters().get(stage) or {}
    return Determinants(stage, plain(chosen), values, dep_digests(stage))


def kept_determinants(folder: Path) -> Determinants | None:
    """Read what was kept in a training's folder, if it was."""
    try:
        return Determinants(**json.loads((folder / _RECORD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def dep_digests(stage: str) -> dict[str, str]:
    """Compute the digest of each dep of the stage in dvc.yaml, code included.

    That of a folder covers the names and the contents of its files, caches of Python left out.
    """
    deps = [Path(dep) for dep in read_stages()[stage]["deps"]]
    return {path.as_posix(): _digest(path) for path in deps if path.exists()}


def _digest(path: Path) -> str:
    if path.is_file():
        return file_digest(path)
    files = [each for each in sorted(path.rglob("*")) if each.is_file()]
    return scratch_key(
        [
            (each.relative_to(path).as_posix(), file_digest(each))
            for each in files
            if "__pycache__" not in each.parts
        ]
    )


def scratch_folder() -> Path:
    """Give the folder of all unfinished trainings of the project."""
    return project_root() / _FOLDER


def trainings(parent: Path, stage: str | None = None) -> list[Path]:
    """List the folders of unfinished trainings, of one stage or of all."""
    found = sorted(path for path in parent.glob("*-*") if path.is_dir())
    return [path for path in found if stage_of(path) == stage or not stage]


def stage_of(folder: Path) -> str:
    """Name the stage whose training the folder is of."""
    return folder.name.rpartition("-")[0]


def files_in(folder: Path) -> list[os.stat_result]:
    """Describe the files of a training, which another process may be removing."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat())
    return [file for file in found if stat.S_ISREG(file.st_mode)]


def last_written(folder: Path) -> float:
    """Give the time of the last write into `folder`; now, where nothing is in it."""
    return max((file.st_mtime for file in files_in(folder)), default=time.time())


_KEPT_DAYS = 14
_KEY_SHOWN = 8  # digits of a training's key in the name of a folder for people


@contextlib.contextmanager
def resumable(stage: str, chosen: Mapping[str, Any]) -> Iterator[Checkpoints | None]:
    """Give the checkpoints to go on from and to write, for this process alone.

    They are removed when the block ends without an exception, unless DVC is gone by then: it will
    run the stage again, which has nothing left to train. Those of the stage's other trainings
    are removed after two weeks in which nobody went on with them.
    """
    found = determinants(stage, chosen)
    if found is None:
        yield None
        return
    starter = _starter()
    with locked(found.folder) as lock:
        found.write()
        remove_old(stage, found.folder.parent)
        yield Checkpoints(found.folder, every_seconds=checkpoint_seconds())
        lock.keep = starter is not None and not starter.is_running()


def remove_old(stage: str, parent: Path) -> None:
    """Remove the stage's trainings that nobody holds and nobody went on with for two weeks."""
    remove_leftovers(parent)
    for folder in trainings(parent, stage):
        idle_days = (time.time() - last_written(folder)) / (24 * 60 * 60)
        if idle_days > _KEPT_DAYS and remove_unless_locked(folder):
            log.info(f"removed {folder.name}: nobody went on with it for {idle_days:.0f} days")


def _starter() -> psutil.Process | None:
    """Find the process of DVC that runs this stage; None where it is run without DVC."""
    if "DVC_STAGE" not in os.environ:
        return None
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            # DVC may have a shell start the stage: that shell has the variable, too.
            if "DVC_STAGE" not in process.environ():
                return process
    return None


@contextlib.contextmanager
def persistent_output(out: Path, checkpoints: Checkpoints | None) -> Iterator[Path]:
    """Give the folder to write the out `out` into, so that a kill loses nothing of it.

    DVC deletes an out before the stage goes on, but nothing that lies beside the checkpoints.
    From there it is copied to `out` when the block ends, also by an exception.
    """
    if checkpoints is None:
        yield out
        return
    folder = checkpoints.folder / out.name
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(folder, out)


def tracked_folder(run_folder: Path, checkpoints: Checkpoints | None) -> Path:
    """Give the folder of the run's trackers in the project, from that of its logs.

    Where DVC runs a copy of the project, several trainings of the stage may run at once: the
    beginning of the training's key tells theirs apart.
    """
    if checkpoints is None or project_root().resolve() == Path.cwd().resolve():
        return run_folder
    key = checkpoints.folder.name.rpartition("-")[2]
    return run_folder.with_name(f"{run_folder.name}-{key[:_KEY_SHOWN]}")
