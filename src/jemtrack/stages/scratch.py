"""Where a stage's unfinished training is found again, though DVC deletes the stage's outs."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from jemtrack.engine.checkpoint import Checkpoints
from jemtrack.engine.scratch import held, remove_leftovers, remove_unless_held
from jemtrack.stages.runtime_file import checkpoint_seconds, project_root
from jemtrack.stages.training_key import determinants, last_written, trainings

log = logging.getLogger("jemtrack")

_KEPT_DAYS = 14
_KEY_SHOWN = 8  # digits of a training's key in the name of a folder for people


@contextlib.contextmanager
def kept_checkpoints(stage: str, chosen: Mapping[str, Any]) -> Iterator[Checkpoints | None]:
    """Give the checkpoints to go on from and to write, for this process alone.

    They are removed when the block ends without an exception, unless DVC is gone by then: it will
    run the stage again, which has nothing left to train. Those of the stage's other trainings
    are removed after two weeks in which nobody went on with them.
    """
    found = determinants(stage, chosen)
    if found is None:
        yield None
        return
    starter = _starter()
    with held(found.folder) as hold:
        found.write()
        remove_old(stage, found.folder.parent)
        yield Checkpoints(found.folder, every_seconds=checkpoint_seconds())
        hold.stay = starter is not None and not starter.is_running()


def remove_old(stage: str, parent: Path) -> None:
    """Remove the stage's trainings that nobody holds and nobody went on with for two weeks."""
    remove_leftovers(parent)
    for folder in trainings(parent, stage):
        idle_days = (time.time() - last_written(folder)) / (24 * 60 * 60)
        if idle_days > _KEPT_DAYS and remove_unless_held(folder):
            log.info(f"removed {folder.name}: nobody went on with it for {idle_days:.0f} days")


def _starter() -> psutil.Process | None:
    """Find the process of DVC that runs this stage; None where it is run without DVC."""
    if "DVC_STAGE" not in os.environ:
        return None
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            # DVC may have a shell start the stage: that shell has the variable, too.
            if "DVC_STAGE" not in process.environ():
                return process
    return None


@contextlib.contextmanager
def kept_out(out: Path, checkpoints: Checkpoints | None) -> Iterator[Path]:
    """Give the folder to write the out `out` into, so that a kill loses nothing of it.

    DVC deletes an out before the stage goes on, but nothing that lies beside the checkpoints.
    From there it is copied to `out` when the block ends, also by an exception.
    """
    if checkpoints is None:
        yield out
        return
    folder = checkpoints.folder / out.name
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(folder, out)


def tracked_folder(run_folder: Path, checkpoints: Checkpoints | None) -> Path:
    """Give the folder of the run's trackers in the project, from that of its logs.

    Where DVC runs a copy of the project, several trainings of the stage may run at once: the
    beginning of the training's key tells theirs apart.
    """
    if checkpoints is None or project_root().resolve() == Path.cwd().resolve():
        return run_folder
    key = checkpoints.folder.name.rpartition("-")[2]
    return run_folder.with_name(f"{run_folder.name}-{key[:_KEY_SHOWN]}")
