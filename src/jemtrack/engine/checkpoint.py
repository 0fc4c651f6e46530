"""Checkpoints: the whole state of a training in one file, written whole or not at all."""

import hashlib
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

from jemtrack.engine.tree import from_bytes, to_bytes

log = logging.getLogger("jemtrack")

# Part of what a training's scratch folder goes by: a change here means that older ones never serve.
FORMAT = 2

_KEPT = 2  # the last one, and the one before in case the last is damaged later
_DIGEST = 32  # hexadecimal digits of the SHA-256 in the name
_NAME = re.compile(rf"(\d+)-step(\d+)-([0-9a-f]{{{_DIGEST}}})\.checkpoint")
_UNFINISHED = ".unfinished"


class Checkpoints:
    """The checkpoints of one training in `folder`; the newest whole one serves.

    A file's name holds its number, the optimization steps done and the SHA-256 of its content.
    One is due every `every_seconds`, and every `every_steps` optimization steps if given.
    """

    def __init__(
        self, folder: Path, every_seconds: float = 60.0, every_steps: int | None = None
    ) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Say whether it is time for the next one, `step` optimization steps being done."""
        if self.every_steps and step % self.every_steps == 0:
            return True
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, tree: Any, step: int) -> Path:
        """Write `tree`, flushed to the disk before it takes its name; drop what it replaces.

        Raises:
            OSError: when the disk does not take it; the ones before are then untouched.
        """
        content = to_bytes(tree)
        self.folder.mkdir(parents=True, exist_ok=True)
        number = max((_number(path) for path in self._newest_first()), default=0) + 1
        path = self.folder / f"{number:06d}-step{step}-{_digest(content)}.checkpoint"
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _flush_folder(self.folder)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        self._last = time.monotonic()
        self._drop_all_but(self._newest_first()[:_KEPT])
        return path

    def load(self) -> Any | None:
        """Read the newest whole one, or give None; one that is damaged is named and removed."""
        for path in self._newest_first():
            content = path.read_bytes()
            if path.stem.endswith(_digest(content)):
                return from_bytes(content)
            log.warning("%s is damaged: its content is not what was written", path)
            path.unlink()
        return None

    def clear(self) -> None:
        """Remove all of them."""
        self._drop_all_but([])

    def _newest_first(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=_number, reverse=True)

    def _drop_all_but(self, kept: list[Path]) -> None:
        for path in self.folder.glob(f"*{_UNFINISHED}"):
            path.unlink()
        for path in self._newest_first():
            if path not in kept:
                path.unlink()


class InMemory:
    """One checkpoint in memory, for a run that has nowhere to keep them; due every minute."""

    def __init__(self, every_seconds: float = 60.0) -> None:
        self.every_seconds = every_seconds
        self._content = b""
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Say whether it is time for the next one."""
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, tree: Any, step: int) -> None:
        """Keep `tree` in the place of the one before."""
        self._content = to_bytes(tree)
        self._last = time.monotonic()

    def load(self) -> Any | None:
        """Give the one that is kept, or None."""
        return from_bytes(self._content) if self._content else None


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST]


def _flush_folder(folder: Path) -> None:
    """Make a rename last: without it a power cut can undo it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
