"""Graphs beside the main one: each stands in a folder of its own, with its own files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("workflows")
ROOT = Path("..", "..")  # of the project, from the folder of a graph


@contextlib.contextmanager
def workflow_folder(name: str) -> Iterator[None]:
    """Work in `workflows/<name>/` in the block, from the project's root; it is made if need be."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        yield
