"""List and remove the unfinished trainings of the project: `jemtrack scratch`."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import filesize
from rich.console import Console
from rich.table import Table

from jemtrack.errors import InputError
from jemtrack.project.provenance import RECIPES, read_determinants, scratch_folder
from jemtrack.project.scratch import (
    files_in,
    last_written,
    lock_holder,
    remove_leftovers,
    remove_recorded,
    remove_unless_locked,
    stage_of,
    trainings,
)
from jemtrack.train.checkpoint import FORMAT, CheckpointFile, newest_first

_ONE_LINE = 1000  # columns
_MOST_NAMES = 3  # of what has changed, in a line


@dataclass(frozen=True)
class UnfinishedTraining:
    """A training that was started and has not ended.

    Attributes:
        folder: its folder in `.jemtrack/`.
        stage: name of its stage.
        idle_seconds: time since its last write.
        n_bytes: size of its files.
        progress: how far it has come.
        holder: id of the process that has locked it, if any.
        changed: what differs now from its start, by name; if nothing does, the stage resumes it.
    """

    folder: Path
    stage: str
    idle_seconds: float
    n_bytes: int
    progress: str
    holder: int | None
    changed: tuple[str, ...]

    @property
    def key(self) -> str:
        """The digest of all that determines the training."""
        return self.folder.name.rpartition("-")[2]

    @property
    def status(self) -> str:
        """Whether a process trains it, and whether it can be resumed; if not, what changed."""
        locked = f"locked by process {self.holder}, " if self.holder is not None else ""
        more = ", ..." if len(self.changed) > _MOST_NAMES else ""
        changed = f"not resumable: {', '.join(self.changed[:_MOST_NAMES])}{more}"
        return locked + (changed if self.changed else "resumable")


def unfinished_trainings() -> list[UnfinishedTraining]:
    """List the project's unfinished trainings, sorted by stage, the most recent first.

    Those of recipe files, trained outside of DVC, are `recipes/<name>`.

    Raises:
        InputError: if dvc.yaml or params.yaml is missing or broken.
    """
    remove_recorded()
    now = time.time()
    found = []
    for folder in trainings(scratch_folder()) + trainings(scratch_folder() / RECIPES):
        newest = newest_first(folder)
        found.append(
            UnfinishedTraining(
                folder=folder,
                stage=stage_of(folder),
                idle_seconds=now - last_written(folder),
                n_bytes=sum(file.st_size for file in files_in(folder)),
                progress=progress_text(newest[0]) if newest else "no checkpoint yet",
                holder=lock_holder(folder),
                changed=_changed(folder),
            )
        )
    return sorted(found, key=lambda training: (training.stage, training.idle_seconds))


def list_trainings(*, keys: bool = False) -> None:
    """Print a row for each unfinished training, with its key if asked for.

    With keys, or where there is no terminal, each is in one line, however long.
    """
    found = unfinished_trainings()
    if not found:
        print("no unfinished trainings")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("STAGE", overflow="fold")
    for name in ("PROGRESS", "AGE", "SIZE"):
        table.add_column(name, no_wrap=True)
    table.add_column("STATUS", overflow="fold", min_width=len("not resumable:"))
    if keys:
        table.add_column("KEY", no_wrap=True)
    for training in found:
        age, size = _age(training.idle_seconds), filesize.decimal(training.n_bytes)
        key = [training.key] if keys else []
        table.add_row(training.stage, training.progress, age, size, training.status, *key)
    width = None if sys.stdout.isatty() and not keys else _ONE_LINE
    Console(width=width, highlight=False, markup=False).print(table)


def prune(stages: Sequence[str] = (), every: bool = False) -> Iterator[str]:
    """Remove trainings that are not resumable, or all of `stages`, or `every` one; yield a log.

    A training that a process has locked is never removed.

    Raises:
        InputError: if a stage has no unfinished training.
    """
    found = unfinished_trainings()
    if unknown := sorted({*stages} - {training.stage for training in found}):
        known = ", ".join(sorted({training.stage for training in found})) or "nothing"
        raise InputError(
            f"no unfinished training of {', '.join(unknown)}; there are some of {known}"
        )
    n_bytes = 0
    for training in found:
        chosen = training.stage in stages if stages else every or training.changed
        # A process may have locked it since it was listed, so the lock is tried again.
        if chosen and training.holder is None and remove_unless_locked(training.folder):
            n_bytes += training.n_bytes
            yield f"removed {training.folder.name} ({filesize.decimal(training.n_bytes)})"
        elif chosen:
            yield f"left {training.folder.name}: locked by process {training.holder}"
    for parent in (scratch_folder(), scratch_folder() / RECIPES):
        remove_leftovers(parent)
    yield f"{filesize.decimal(n_bytes)} freed"


def _changed(folder: Path) -> tuple[str, ...]:
    """Name the parameters and files that differ from those at the training's start."""
    before = read_determinants(folder)
    if before is None:
        return ("no record of its parameters",)
    if before.format != FORMAT:
        return ("another version of jemtrack wrote it",)
    return tuple(before.changes())


# What a header that is none of a checkpoint makes its reader raise.
_BROKEN = (OSError, ValueError, KeyError, TypeError, RecursionError)


def progress_text(checkpoint: CheckpointFile) -> str:
    """Describe how far the training has come: its steps, and the epoch that it resumes in."""
    done = f"{checkpoint.step} steps"
    # Read the safetensors header alone, which is JSON: the tensors may take gigabytes.
    with contextlib.suppress(*_BROKEN), checkpoint.path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, checkpoint.path.stat().st_size)))
        state = json.loads(header["__metadata__"]["jemtrack"])["state"]
        phase, epoch, _ = (number + 1 for number in state["position"]["$tuple"])
        in_phase = f"phase {phase}, " if phase > 1 else ""
        return f"{done}, {in_phase}epoch {epoch}"
    return done


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
