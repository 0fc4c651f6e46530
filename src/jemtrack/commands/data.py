"""`data.dvc`, which pins the files of the data sets."""

import subprocess
import sys
from pathlib import Path

from jemtrack.errors import InputError


def pin(folder: Path) -> None:
    """Have DVC note the content of `folder` in `<folder>.dvc`, which git tracks.

    Raises:
        InputError: when DVC cannot, for one because `dvc init` was not run here.
    """
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(folder)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise InputError(f"`dvc add {folder}` failed: its messages stand above")
