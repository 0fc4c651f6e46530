"""Files of one JSON object a line that hold whole lines after a kill, too."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ENCODER = json.JSONEncoder(allow_nan=False, default=float)


class LineFile:
    """Appends objects to the file at `path`; what a kill may have torn off is cut away first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            cut_to(path, path.read_bytes().rfind(b"\n") + 1)
        # Unbuffered: a line is one write, which the system either has or has not.
        self._file = path.open("ab", buffering=0)

    def write(self, entry: dict[str, Any]) -> None:
        """Append `entry`; a number that is not finite becomes null, for every reader's sake.

        Raises:
            OSError: when the disk is full; the file then ends where it did before.
        """
        line = encode(entry)
        if (written := self._file.write(line)) != len(line):
            self._file.truncate(self._file.tell() - (written or 0))
            raise OSError(f"{self._file.name}: the disk is full")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def encode(entry: dict[str, Any]) -> bytes:
    """Write `entry` as a line of JSON, with null for numbers that are not finite."""
    try:
        text = _ENCODER.encode(entry)
    except ValueError:
        text = _ENCODER.encode(_with_nulls(entry))
    return text.encode() + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the whole lines of a file that may be missing, or be written at this moment."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def cut_after(path: Path, key: str, last: int) -> None:
    """Cut the file after its last line whose `key` is at most `last`; remove it if none is."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        if json.loads(content[start:end])[key] <= last:
            break
        end = start
    cut_to(path, end)


def cut_to(path: Path, size: int) -> None:
    """Cut the file to at most `size` bytes; remove it where nothing is left."""
    if size == 0:
        path.unlink()
    elif size < path.stat().st_size:
        with path.open("rb+") as file:
            file.truncate(size)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
