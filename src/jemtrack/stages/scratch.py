"""Where a stage's unfinished training is found again, though DVC deletes the stage's outs."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jemtrack.engine.checkpoint import FORMAT, Checkpoints
from jemtrack.engine.scratch import file_digest, held, scratch_key
from jemtrack.stages.parameter_file import read_stages

_FOLDER = ".jemtrack"
_EVERY = "JEMTRACK_CHECKPOINT_SECONDS"


def training_folder(stage: str, chosen: dict[str, Any]) -> Path | None:
    """Name the folder of the training that `chosen` and the content of the stage's deps determine.

    The deps are those of dvc.yaml, code included: a training of other parameters, data or code
    has another folder; a stage that is not in dvc.yaml has none. The folder lies in the project
    that an experiment belongs to, also where DVC runs a copy of it elsewhere.
    """
    if stage not in read_stages():
        return None
    files = [path for path in map(Path, read_stages()[stage]["deps"]) if path.is_file()]
    parameters = {name: dataclasses.asdict(value) for name, value in chosen.items()}
    contents = {path.as_posix(): file_digest(path) for path in files}
    key = scratch_key([FORMAT, stage, parameters, contents])
    # DVC names the project, not its copy, in this variable.
    root = Path(os.environ.get("DVC_ROOT", "."))
    return root / _FOLDER / f"{stage}-{key}"


@contextlib.contextmanager
def kept_checkpoints(stage: str, chosen: dict[str, Any]) -> Iterator[Checkpoints | None]:
    """Give the checkpoints to go on from and to write, for this process alone.

    One is written a minute, or as often as the variable JEMTRACK_CHECKPOINT_SECONDS says. They
    are removed when the block ends without an exception.
    """
    folder = training_folder(stage, chosen)
    if folder is None:
        yield None
        return
    with held(folder):
        yield Checkpoints(folder, every_seconds=float(os.environ.get(_EVERY, "60")))
