"""Pin the files of the data sets in `data.dvc`."""

import subprocess
import sys
from pathlib import Path

from jemtrack.errors import InputError


def pin(folder: Path) -> None:
    """Run `dvc add`: record the content of `folder` in `<folder>.dvc`, which git tracks.

    Raises:
        InputError: if it fails, for example because `dvc init` was not run.
    """
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(folder)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise InputError(f"`dvc add {folder}` failed: see its messages above")
