"""Checkpoints: the whole state of a training in one file, written whole or not at all.

What is kept of a training is listed without torch, which is imported to write or read a file.
"""

import hashlib
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jemtrack.files import UNFINISHED, atomic_write

log = logging.getLogger("jemtrack")

# A part of the key of a training's folder: with another format, older checkpoints are not read.
FORMAT = 5

DIGEST = 32  # hexadecimal digits of the SHA-256 in the name
_NAME = re.compile(rf"(\d+)-step(\d+)-([0-9a-f]{{{DIGEST}}})\.checkpoint")


class CheckpointFile(NamedTuple):
    """A checkpoint: its number in the training, the optimization steps done, its digest."""

    path: Path
    number: int
    step: int
    digest: str


def newest_first(folder: Path) -> list[CheckpointFile]:
    """List the checkpoints in `folder`, which need not exist, the newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [
        CheckpointFile(folder / name, int(match[1]), int(match[2]), match[3])
        for name in names
        if (match := _NAME.fullmatch(name))
    ]
    return sorted(found, key=lambda file: file.number, reverse=True)


_TRAINING = "training"  # says whose a checkpoint is: the name of the training's folder
_KEPT = 2  # the last one, and the one before in case the last is damaged later


class Checkpoints:
    """The checkpoints of one training in `folder`; the newest whole one is loaded.

    A checkpoint is due every `every_seconds`, and every `every_steps` optimization steps
    if given.
    """

    def __init__(
        self, folder: Path, every_seconds: float = 60.0, every_steps: int | None = None
    ) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Tell whether the next checkpoint is due after `step` optimization steps."""
        if self.every_steps and step % self.every_steps == 0:
            return True
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, tree: Mapping[str, Any], step: int) -> Path:
        """Write `tree` and flush it to the disk before the rename; remove older checkpoints.

        Raises:
            OSError: if the disk is full; the checkpoints before are then untouched.
        """
        from jemtrack.shared.serialization import to_bytes

        content = to_bytes({_TRAINING: self.folder.name, **tree})
        number = max((file.number for file in newest_first(self.folder)), default=0) + 1
        path = self.folder / f"{number:06d}-step{step}-{_digest(content)}.checkpoint"
        atomic_write(path, lambda unfinished: unfinished.write_bytes(content))
        self._last = time.monotonic()
        for left in self.folder.glob(UNFINISHED):
            left.unlink()
        for file in newest_first(self.folder)[_KEPT:]:
            file.path.unlink()
        return path

    def load(self) -> Any | None:
        """Load the newest whole checkpoint, or return None; remove damaged ones with a warning.

        One of another training, which somebody put here, is left where it is.
        """
        from jemtrack.shared.serialization import from_bytes

        for file in newest_first(self.folder):
            content = file.path.read_bytes()
            if file.digest != _digest(content):
                log.warning("%s is damaged: its content is not what was written", file.path)
                file.path.unlink()
                continue
            tree = from_bytes(content)
            if (training := tree.pop(_TRAINING, None)) == self.folder.name:
                return tree
            log.warning("%s is not used: it is of the training %s", file.path, training)
        return None


class MemoryCheckpoint(Checkpoints):
    """One checkpoint in memory, for a run without a folder; due every minute."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._content: Any = None

    def save(self, tree: Any, step: int) -> Path:
        """Replace the checkpoint by a copy of `tree`."""
        from jemtrack.shared.serialization import to_bytes

        self._content, self._last = to_bytes(tree), time.monotonic()
        return self.folder

    def load(self) -> Any | None:
        """Load the checkpoint, or return None."""
        from jemtrack.shared.serialization import from_bytes

        return from_bytes(self._content) if self._content else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST]
