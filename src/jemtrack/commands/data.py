"""Get a data set and pin it: `jemtrack data`."""

import importlib
import subprocess
import sys
from pathlib import Path

from jemtrack.errors import InputError


def get_data(name: str, root: Path, given: Path | None = None) -> list[Path]:
    """Put a data set into `root`, and its digest into `data.dvc`, which git tracks.

    Return the paths of its files. `given` is a file or folder that has it already.

    Raises:
        InputError: if there is no such data set, its files are not as they must be, or DVC fails.
    """
    importlib.import_module("dvc")  # if it is missing, say so before a download
    from jemtrack.data.sources.fetch import fetch

    paths = [*fetch(name, root, given)]
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(root)]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"`dvc add {root}` failed: see its messages above")
    return paths
