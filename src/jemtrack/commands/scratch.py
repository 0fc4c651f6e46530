"""The unfinished trainings of the project, for a person to see and to remove."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.project.params import read_parameters, read_stages
from jemtrack.project.scratch import (
    dep_digests,
    files_in,
    kept_determinants,
    last_written,
    lock_holder,
    remove_leftovers,
    remove_unless_locked,
    scratch_folder,
    stage_of,
    trainings,
)
from jemtrack.train.checkpoint import FORMAT, CheckpointFile, newest_first

_MIB = 2**20
_SHOWN = 3  # names of what has changed
_ABSENT: Any = object()


@dataclass(frozen=True)
class UnfinishedTraining:
    """A training that was begun: how far it came, and what it may still be good for.

    `changed` names what is different now from what it was begun with: where nothing is, the
    stage goes on from it. `holder` is the process that trains it at this moment.
    """

    folder: Path
    stage: str
    idle_seconds: float
    n_bytes: int
    place: str
    holder: int | None
    changed: tuple[str, ...]

    @property
    def line(self) -> str:
        """Describe it in a line."""
        held = f", held by process {self.holder}" if self.holder is not None else ""
        more = ", ..." if len(self.changed) > _SHOWN else ""
        changed = f"no longer serves: {', '.join(self.changed[:_SHOWN])}{more}"
        return (
            f"{self.folder.name}: {_age(self.idle_seconds)} old, {self.n_bytes / _MIB:.1f} MiB, "
            f"{self.place}{held}, {changed if self.changed else 'serves'}"
        )


def unfinished_trainings() -> list[UnfinishedTraining]:
    """Describe the project's unfinished trainings, by stage, the newest first.

    Raises:
        InputError: when dvc.yaml or params.yaml is missing or broken.
    """
    stages, parameters, now = read_stages(), read_parameters(), time.time()
    digests: dict[str, dict[str, str]] = {}
    found = []
    for folder in trainings(scratch_folder()):
        stage = stage_of(folder)
        if stage in stages and stage not in digests:
            digests[stage] = dep_digests(stage)
        newest = newest_first(folder)
        found.append(
            UnfinishedTraining(
                folder=folder,
                stage=stage,
                idle_seconds=now - last_written(folder),
                n_bytes=sum(file.st_size for file in files_in(folder)),
                place=_place(newest[0]) if newest else "nothing saved yet",
                holder=lock_holder(folder),
                changed=_changed(folder, digests.get(stage), parameters.get(stage)),
            )
        )
    return sorted(found, key=lambda training: (training.stage, training.idle_seconds))


def training_lines() -> Iterator[str]:
    """Describe the unfinished trainings, a line each."""
    found = unfinished_trainings()
    yield from (training.line for training in found)
    if not found:
        yield "no training is unfinished"


def prune(stages: Sequence[str] = (), every: bool = False) -> Iterator[str]:
    """Remove the trainings that no longer serve, or all of `stages`, or `every` one; say which.

    One that a process holds is never removed.

    Raises:
        InputError: when a stage has no training here.
    """
    found = unfinished_trainings()
    if unknown := sorted({*stages} - {training.stage for training in found}):
        known = ", ".join(sorted({training.stage for training in found})) or "nothing"
        raise InputError(f"no training of {', '.join(unknown)} is kept; there is {known}")
    n_bytes = 0
    for training in found:
        chosen = training.stage in stages if stages else every or training.changed
        if chosen and training.holder is None and remove_unless_locked(training.folder):
            n_bytes += training.n_bytes
            yield f"removed {training.folder.name} ({training.n_bytes / _MIB:.1f} MiB)"
        elif chosen:
            yield f"left {training.folder.name}: process {training.holder} holds it"
    remove_leftovers(scratch_folder())
    yield f"{n_bytes / _MIB:.1f} MiB are free again"


def _changed(
    folder: Path, digests: dict[str, str] | None, values: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Name what is different now from what the training was begun with."""
    before = kept_determinants(folder)
    if before is None:
        return ("nothing tells what it was begun with",)
    if digests is None:
        return ("the stage is gone from dvc.yaml",)
    if before.format != FORMAT:
        return ("another version wrote it",)
    paths = sorted({*digests, *before.contents})
    return (
        *_other_values(before.values, values or {}),
        *(path for path in paths if digests.get(path) != before.contents.get(path)),
    )


def _other_values(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Name the parameters that have other values now than before, that came or that went."""
    found = []
    for name in {**now, **before}:
        old, value = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if isinstance(value, dict) and isinstance(old, dict):
            found += _other_values(old, value, f"{where}{name}.")
        elif value != old:
            found.append(f"{where}{name}")
    return found


def _place(checkpoint: CheckpointFile) -> str:
    """Say where the training goes on, by the head of the file, which is JSON."""
    done = f"{checkpoint.step} steps done"
    with contextlib.suppress(OSError, ValueError, KeyError), checkpoint.path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, checkpoint.path.stat().st_size)))
        state = json.loads(header["__metadata__"]["jemtrack"])["state"]
        phase, epoch, batch = (number + 1 for number in state["position"]["$tuple"])
        return f"{done}, goes on at phase {phase}, epoch {epoch}, batch {batch}"
    return done


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
