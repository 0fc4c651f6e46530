"""Let the processes of a test's project import jemtrack from that project, as if installed."""

import sys
from pathlib import Path


def find_own_source() -> None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        # In a copy that DVC makes under `.dvc`, finding the copy's source is jemtrack's own task.
        if (folder / "src" / "jemtrack").is_dir() and ".dvc" not in folder.parts:
            sys.path.insert(0, str(folder / "src"))
            return


find_own_source()
