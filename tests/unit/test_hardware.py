import os

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
