"""Get a data set and pin it: `jemtrack data`."""

import subprocess
import sys
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo

from jemtrack.data.cells.sources import are_cells, fetch_cells
from jemtrack.data.sources.fetch import contents, fetch
from jemtrack.errors import InputError


def get_data(name: str, root: Path, given: Path | None = None, side: int = 32) -> list[str]:
    """Put a data set into `root`, and its digest into `data.dvc`, which git tracks.

    Return the paths of its files, and a line on the images that they contain. `given` is a file or
    folder that has it already; images of a folder with captions are scaled to `side` pixels.

    Raises:
        InputError: if there is no such data set, its files are not as they must be, the working
            directory is not in a DVC project, or DVC fails.
    """
    try:
        Repo.find_root()
    except NotDvcRepoError:
        make = "`git init && dvc init` makes it one"
        raise InputError(f"{Path.cwd()} is not in a DVC project: {make}") from None
    if are_cells(name, root, given):
        found = [*map(str, fetch_cells(name, root, given))]
    else:
        found = [*map(str, fetch(name, root, given, side)), contents(name, root)]
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(root)]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"`dvc add {root}` failed: see its messages above")
    return found
