"""Files that are never seen half written, and digests of files."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

UNFINISHED = "*.unfinished*"  # what a kill in `atomic_write` leaves


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, then rename it to `path`.

    Missing folders are made.

    Raises:
        OSError: naming `path`, if the disk is full; what was at `path` is then untouched.
    """
    atomic_write_all({path: write})


def atomic_write_texts(texts: Mapping[Path, str]) -> None:
    """Write the texts to files, all of them or none."""
    writers = {path: _writer(text) for path, text in texts.items()}
    atomic_write_all(writers)


def atomic_write_all(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files as `atomic_write` does; all are on the disk before one is renamed."""
    unfinished: dict[Path, Path] = {}
    for link, write in writers.items():
        path = link.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished[path] = path.with_stem(f"{path.stem}.unfinished")
        try:
            write(unfinished[path])
            _flush(unfinished[path])
        except OSError as error:
            for each in unfinished.values():
                each.unlink(missing_ok=True)
            error.filename = str(link)  # the error of a full disk names no file
            raise
    for path, written in unfinished.items():
        written.replace(path)
        _flush(path.parent)  # a power cut could undo the rename


def _writer(text: str) -> Callable[[Path], object]:
    return lambda unfinished: unfinished.write_text(text, encoding="utf-8")


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
