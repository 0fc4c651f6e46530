"""Files that are never seen half written."""

import hashlib
from collections.abc import Callable
from pathlib import Path


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it to `path`; make missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_stem(f"{path.stem}.unfinished")
    write(unfinished)
    unfinished.replace(path)


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
