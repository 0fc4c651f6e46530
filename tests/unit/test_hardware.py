import os
import subprocess
import sys

import pytest
import torch

from jemtrack.shared import hardware
from jemtrack.shared.hardware import available_cpus
from jemtrack.stages import stage
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_args import TrainArgs


@pytest.mark.parametrize(
    ("limit", "cpus"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), (None, 8)]
)
def test_a_container_s_limit_counts(tmp_path, monkeypatch, limit, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(8)})
    monkeypatch.setattr(hardware, "_CGROUP_CPU", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")

    assert available_cpus() == cpus


class Idle(Stage):
    params: TrainArgs

    def compute(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("threads", "processes", "said"),
    [
        (2, 1, ""),
        (3, 1, "Idle: 3 threads on 2 CPUs; a smaller params.threads may be faster\n"),
        (2, 2, "Idle: 4 threads on 2 CPUs; a smaller params.threads may be faster\n"),
    ],
)
def test_more_threads_than_cpus_are_told(tmp_path, monkeypatch, capsys, threads, processes, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "available_cpus", lambda: 2)
    node = Idle(params=TrainArgs(threads=threads, processes=processes))
    node.nwd.mkdir(parents=True)

    node._measured_compute()

    assert capsys.readouterr().err == said


class Counting(Idle):
    def compute(self) -> None:
        """Note the threads."""
        self.__dict__["found"] = torch.get_num_threads()


def test_a_stage_computes_with_the_threads_of_its_parameters(tmp_path, monkeypatch):
    """Whatever the environment says: sums over more threads are rounded otherwise."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    node = Counting(params=TrainArgs(threads=before + 1))
    node.nwd.mkdir(parents=True)

    node._measured_compute()

    assert node.__dict__["found"] == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_a_stage_lets_waiting_threads_sleep_unless_the_user_chose(chosen, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    others = {name: os.environ[name] for name in os.environ if name not in names}
    # What a stage's process loads first: OpenMP reads the variables before torch is imported.
    code = (
        "import os, sys, jemtrack.stages; assert 'torch' not in sys.modules; "
        f"print(*(f'{{name}}={{os.environ.get(name)}}' for name in {names}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=others | chosen,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert said.split() == [f"{name}={expected.get(name)}" for name in names]
