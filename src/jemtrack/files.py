"""Files that are never seen half written, and digests of files."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

UNFINISHED = "*.unfinished*"  # what a kill in `atomic_write` leaves


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, then rename it to `path`.

    Missing folders are made.

    Raises:
        OSError: naming `path`, if the disk is full; what was at `path` is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_stem(f"{path.stem}.unfinished")
    try:
        write(unfinished)
        _flush(unfinished)
        unfinished.replace(path)
        _flush(path.parent)  # a power cut could undo the rename
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        error.filename = str(path)  # the error of a full disk names no file
        raise


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Compute the digest of a file's content, by the name that hashlib has for the algorithm."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
