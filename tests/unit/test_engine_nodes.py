"""Processes on several nodes: what is refused, and what ends if the other nodes do not start."""

import os
from pathlib import Path

import pytest
from test_engine_processes import rank_of_all

from jemtrack.errors import InputError, ParameterError
from jemtrack.shared.hardware import Hardware
from jemtrack.train import nodes
from jemtrack.train.launch import launch

TWO_NODES = Hardware(device="cpu", processes=2, nodes=2, threads=1)


@pytest.mark.parametrize(
    ("count", "said"), [(None, "this is no Slurm job"), ("1", "this Slurm job has 1")]
)
def test_nodes_are_those_of_a_slurm_job(monkeypatch, count, said):
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    if count:
        monkeypatch.setenv("SLURM_JOB_NUM_NODES", count)

    with pytest.raises(ParameterError, match=f"^nodes must be 1, got 2, and {said}$"):
        launch(TWO_NODES, rank_of_all)


def test_nodes_divide_the_processes():
    with pytest.raises(ValueError, match="must divide the 3 processes, got 2"):
        Hardware(processes=3, nodes=2)


def test_processes_that_wait_for_nodes_that_do_not_start_end(tmp_path: Path, monkeypatch):
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\nexit 3\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setattr(nodes, "_WAIT_SECONDS", 0.1)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "0")  # which it sets

    with pytest.raises(InputError, match=r"^the processes on the other nodes ended with status 3"):
        launch(TWO_NODES, rank_of_all)
