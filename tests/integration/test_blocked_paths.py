"""Where nothing can be written: one line that names the path, and no traceback."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stage_runs import SMALL, prepared_file

from jemtrack.project import graph as files
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.train_args import TrainArgs

STAGE = "MaxEntropyL1"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "changed", "message"),
    [
        (".jemtrack", {}, r"\.jemtrack/MaxEntropyL1-\w+: Not a directory"),
        ("nodes", {}, r"nodes/MaxEntropyL1: Not a directory"),
        (
            "experiment",
            {"save_dir": "experiment"},
            r"params\.yaml: MaxEntropyL1\.params\.save_dir must be a folder, but experiment .*",
        ),
        # A folder in which nobody may write, not even root.
        (
            None,
            {"save_dir": "/proc/nope", "print_to_log": True},
            r"/proc/nope: No such file or directory",
        ),
        (
            None,
            {"save_dir": "/proc/nope", "ckpt_every": 1},
            r"/proc/nope/energy_model/MaxEntropyL1/epoch_001\.safetensors: No such file .*",
        ),
    ],
)
def test_a_stage_names_the_path_that_it_cannot_write(
    file: str | None, changed: dict[str, Any], message: str
):
    params = TrainArgs(**{**SMALL, **changed})
    node = MaxEntropyL1(data=prepared_file(), params=params)
    files.write_graph([node])
    if file:
        Path(file).touch()

    with pytest.raises(SystemExit, match=rf"\A{STAGE}: {message}\Z"):
        node.run()


def test_a_screen_that_takes_no_more_is_one_line():
    program = Path(sys.executable).parent / "jemtrack"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program, "components"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 1
    assert done.stderr == "jemtrack: [Errno 28] No space left on device\n"
