"""What determines a stage's training, and the folder that is found by it."""

import contextlib
import dataclasses
import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jemtrack.engine.checkpoint_files import FORMAT
from jemtrack.engine.scratch import file_digest, scratch_key
from jemtrack.engine.whole_file import write_whole
from jemtrack.stages.parameter_file import read_parameters, read_stages
from jemtrack.stages.runtime_file import project_root
from jemtrack.trackers.plain import plain

_FOLDER = ".jemtrack"
_RECORD = "determined_by.json"


@dataclasses.dataclass(frozen=True)
class Determinants:
    """All that a training of `stage` depends on.

    `parameters` are what was chosen, `values` what params.yaml said as it did, and `contents` the
    digests of the stage's deps.
    """

    stage: str
    parameters: Mapping[str, Any]
    values: Mapping[str, Any]
    contents: Mapping[str, str]
    format: int = FORMAT

    @property
    def folder(self) -> Path:
        """The folder that such a training has, and no other one."""
        key = scratch_key([self.format, self.stage, self.parameters, self.contents])
        return scratch_folder() / f"{self.stage}-{key}"

    def write(self) -> None:
        """Keep it in the folder, to tell a person later what the training was begun with."""
        text = json.dumps(dataclasses.asdict(self), indent=1, default=str)
        write_whole(self.folder / _RECORD, lambda unfinished: unfinished.write_text(text))


def determinants(stage: str, chosen: Mapping[str, Any]) -> Determinants | None:
    """Gather what determines the training of `chosen` parameters; None without such a stage."""
    if stage not in read_stages():
        return None
    values = read_parameters().get(stage) or {}
    return Determinants(stage, plain(chosen), values, dep_digests(stage))


def kept_determinants(folder: Path) -> Determinants | None:
    """Read what was kept in a training's folder, if it was."""
    try:
        return Determinants(**json.loads((folder / _RECORD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def dep_digests(stage: str) -> dict[str, str]:
    """Give the digest of each file that the stage depends on by dvc.yaml, code included."""
    files = [path for path in map(Path, read_stages()[stage]["deps"]) if path.is_file()]
    return {path.as_posix(): file_digest(path) for path in files}


def scratch_folder() -> Path:
    """Give the folder of all unfinished trainings of the project."""
    return project_root() / _FOLDER


def trainings(parent: Path, stage: str | None = None) -> list[Path]:
    """List the folders of unfinished trainings, of one stage or of all."""
    found = sorted(path for path in parent.glob("*-*") if path.is_dir())
    return [path for path in found if stage_of(path) == stage or not stage]


def stage_of(folder: Path) -> str:
    """Name the stage whose training the folder is of."""
    return folder.name.rpartition("-")[0]


def files_in(folder: Path) -> list[os.stat_result]:
    """Describe the files of a training, which another process may be removing."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat())
    return [file for file in found if stat.S_ISREG(file.st_mode)]


def last_written(folder: Path) -> float:
    """Give the time of the last write into `folder`; now, where nothing is in it."""
    return max((file.st_mtime for file in files_in(folder)), default=time.time())
