"""The files of checkpoints: what their names say, found without reading them."""

import re
from pathlib import Path
from typing import NamedTuple

# Part of what a training's scratch folder goes by: a change here means that older ones never serve.
FORMAT = 2

DIGEST = 32  # hexadecimal digits of the SHA-256 in the name
_NAME = re.compile(rf"(\d+)-step(\d+)-([0-9a-f]{{{DIGEST}}})\.checkpoint")


class CheckpointFile(NamedTuple):
    """A checkpoint: its number in the training, the optimization steps done, its digest."""

    path: Path
    number: int
    step: int
    digest: str


def checkpoint_path(folder: Path, number: int, step: int, digest: str) -> Path:
    """Give the place of a checkpoint."""
    return folder / f"{number:06d}-step{step}-{digest}.checkpoint"


def newest_first(folder: Path) -> list[CheckpointFile]:
    """Find the checkpoints of `folder`, which may be missing."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [
        CheckpointFile(folder / name, int(match[1]), int(match[2]), match[3])
        for name in names
        if (match := _NAME.fullmatch(name))
    ]
    return sorted(found, key=lambda file: file.number, reverse=True)
