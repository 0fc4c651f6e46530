"""Keep unfinished trainings in `.jemtrack/`, in a folder each, keyed by all that determines it.

DVC deletes the outs of a stage before it runs the stage, so checkpoints cannot be outs.
"""

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
from jemtrack.train.checkpoint import FORMAT, Checkpoints
from jemtrack.train.plain import plain

log = logging.getLogger("jemtrack")

_LOCK, _WAITING, _REMOVED = "lock", "waiting", ".removed"


def scratch_key(determining: Any) -> str:
    """Compute the key of a training: a digest of all that determines it, serialised as JSON."""
    text = json.dumps(determining, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class FolderLock:
    """A folder that this process has locked; set `keep` to keep it when the block ends."""

    keep: bool = False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Lock `folder` for this process; wait while another process has locked it.

    When the block ends without an exception, the folder is removed, unless it is to be kept or
    another process waits for it: that process will find the finished training in it. The kernel
    releases the lock of a process that is killed.
    """
    lock = FolderLock()
    with _open_lock(folder) as lock_file:
        yield lock
        with (folder / _WAITING).open("a") as waiting:
            # Waiting processes hold shared locks on this file: an exclusive one proves there are
            # none.
            if not lock.keep and _try_lock(waiting, fcntl.LOCK_EX):
                _remove(folder)
        lock_file.close()


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


_FOLDER = ".jemtrack"
_RECORD = "determined_by.json"


@dataclasses.dataclass(frozen=True)
class Determinants:
    """All that a training of `stage` depends on.

    Attributes:
        stage: name of the stage.
        parameters: the parameters as the trainer reads them.
        values: the stage's section of params.yaml, to name differences to a person.
        contents: digests of the stage's dependencies, by path.
        format: version of the checkpoints' format.
    """

    stage: str
    parameters: Mapping[str, Any]
    values: Mapping[str, Any]
    contents: Mapping[str, str]
    format: int = FORMAT

    @property
    def folder(self) -> Path:
        """The folder of such a training, and of no other."""
        key = scratch_key([self.format, self.stage, self.parameters, self.contents])
        return scratch_folder() / f"{self.stage}-{key}"

    def write(self) -> None:
        """Write this to the folder, so that `jemtrack scratch` can name what has changed."""
        text = json.dumps(dataclasses.asdict(self), indent=1, default=str)
        atomic_write(self.folder / _RECORD, lambda unfinished: unfinished.write_text(text))


def determinants(stage: str, chosen: Mapping[str, Any]) -> Determinants | None:
    """Collect what determines a training with the `chosen` parameters; None without such a stage.

    Raises:
        InputError: if dvc.yaml or params.yaml is missing or broken.
    """
    if stage not in read_stages():
        return None
    values = read_parameters().get(stage) or {}
    return Determinants(stage, plain(chosen), values, dep_digests(stage))


def read_determinants(folder: Path) -> Determinants | None:
    """Read the determinants in a training's folder; return None if there are none to read."""
    try:
        return Determinants(**json.loads((folder / _RECORD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def dep_digests(stage: str) -> dict[str, str]:
    """Compute the digest of each dependency of the stage in dvc.yaml, code included.

    The digest of a folder covers the names and contents of its files except `__pycache__`.
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
    """Return the folder of all unfinished trainings of the project."""
    return project_root() / _FOLDER


def trainings(parent: Path, stage: str | None = None) -> list[Path]:
    """List the folders of unfinished trainings, of one stage or of all."""
    found = sorted(path for path in parent.glob("*-*") if path.is_dir())
    return [path for path in found if stage_of(path) == stage or not stage]


def stage_of(folder: Path) -> str:
    """Return the name of the stage that a training's folder belongs to."""
    return folder.name.rpartition("-")[0]


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


@contextlib.contextmanager
def resumable(stage: str, chosen: Mapping[str, Any]) -> Iterator[Checkpoints | None]:
    """Lock the folder of this training and yield its checkpoints; None outside of a DVC project.

    When the block ends without an exception, the checkpoints are removed, unless DVC was killed
    meanwhile: DVC then does not know that the stage ended, runs it again, and the stage finds
    its training done. Checkpoints of the stage's other trainings are removed two weeks after
    their last use.
    """
    found = determinants(stage, chosen)
    if found is None:
        yield None
        return
    dvc = _dvc_process()
    with locked(found.folder) as lock:
        found.write()
        remove_old(stage, found.folder.parent)
        yield Checkpoints(found.folder, every_seconds=checkpoint_seconds())
        lock.keep = dvc is not None and not dvc.is_running()


def remove_old(stage: str, parent: Path) -> None:
    """Remove the stage's trainings that are not locked and were not resumed for two weeks."""
    remove_leftovers(parent)
    for folder in trainings(parent, stage):
        idle_days = (time.time() - last_written(folder)) / (24 * 60 * 60)
        if idle_days > _KEPT_DAYS and remove_unless_locked(folder):
            log.info(f"removed {folder.name}: it was not resumed for {idle_days:.0f} days")


def _dvc_process() -> psutil.Process | None:
    """Find the DVC process that runs this stage; None if the stage was started without DVC."""
    if "DVC_STAGE" not in os.environ:
        return None
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            # DVC sets the variable for the stage, and for a shell that may be between the two.
            if "DVC_STAGE" not in process.environ():
                return process
    return None


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
    finally:
        if folder.exists():
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(folder, out)


def tracked_folder(run_folder: Path, checkpoints: Checkpoints | None) -> Path:
    """Return the folder for the run's trackers, from the run's own folder.

    If DVC runs a copy of the project, several trainings of one stage may run at once: the start
    of the training's key keeps their folders apart.
    """
    if checkpoints is None or project_root().resolve() == Path.cwd().resolve():
        return run_folder
    key = checkpoints.folder.name.rpartition("-")[2]
    return run_folder.with_name(f"{run_folder.name}-{key[:_SHORT_KEY]}")
