"""Files that nobody sees half written."""

from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, which then takes its name; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_stem(f"{path.stem}.unfinished")
    write(unfinished)
    unfinished.replace(path)
