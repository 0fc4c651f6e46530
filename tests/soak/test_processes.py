"""A stage that trains in several processes, killed and gone on with under DVC."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import killed, start, steps_saved, wait_for_steps
from project import ROOT, Project
from ruamel.yaml import YAML

from jemtrack.data.sources.fetch import fetch
from jemtrack.record.jsonl import read_lines

STAGE = "XEntropyAugmented"


def test_two_processes_train_a_stage_and_go_on_after_a_kill(whole_project: Project):
    project = whole_project
    for name, value in {"n_epochs": 2, "batch_size": 32, "processes": 2}.items():
        project.set(f"{STAGE}.params.{name}", value)
    project.commit("two processes")
    project.repro("PrepareData")

    with killed(start(project, "dvc", "repro", STAGE)) as process:
        wait_for_steps(project, 10, process)
    reached = steps_saved(project)
    said = project.run("dvc", "repro", STAGE)

    assert "resumes at phase train (1/1)" in said
    record = project.path / "nodes" / STAGE / "record"
    runs, steps = (
        [json.loads(line) for line in (record / name).read_text().splitlines()]
        for name in ("run.jsonl", "train.jsonl")
    )
    starts = [line["global_step"] for line in runs if line["event"] == "run_start"]
    assert starts == [0, reached]
    assert [line["global_step"] for line in steps] == [*range(1, 81)]
    assert len(project.read(f"nodes/{STAGE}/metrics.json")) > 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_two_processes_with_its_status_and_no_traceback(tmp_path, number, status):
    """Ctrl-C reaches all processes of the terminal, SIGTERM the one that was started."""
    fetch("digits", tmp_path / "data")
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(ROOT / "recipes" / "two_phase.yaml")
    content["model"]["width"] = 1
    content["training"]["processes"] = 2
    with (tmp_path / "mine.yaml").open("w") as file:
        yaml.dump(content, file)
    command = [Path(sys.executable).parent / "jemtrack", "train", "--config", "mine.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip

    with killed(process):
        record = tmp_path / "runs" / "mine" / "record" / "warm_up.jsonl"
        wait_for(lambda: len([*read_lines(record)]) > 2)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said = process.communicate(timeout=120)[1]

    assert process.returncode == status, said
    assert "Traceback" not in said
    saved, ended = said.splitlines()[-2:]
    command = "`jemtrack train --config mine.yaml --out runs/mine`"
    assert re.fullmatch(rf"step \d+ is saved: {command} resumes there", saved)
    assert ended == f"jemtrack: ended by {number.name}"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
