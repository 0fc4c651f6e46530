import os

import pytest
import torch

from jemtrack.errors import InputError
from jemtrack.shared import hardware
from jemtrack.shared.hardware import Hardware, available_cpus, reproducible, use_device
from jemtrack.stages import stage
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.launch import launch


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


GPU = torch.device("cuda")
FULL = (
    "CUDA out of memory. Tried to allocate 5.00 GiB. GPU 0 has a total capacity of 79.18 GiB of "
    "which 1.00 GiB is free. Including non-PyTorch memory, this process has 78.00 GiB in use."
)


def test_results_are_the_same_each_time_on_a_gpu_and_what_was_set_comes_back():
    memory = torch.utils.deterministic
    memory.fill_uninitialized_memory = True

    with reproducible(GPU):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not memory.fill_uninitialized_memory

    assert torch.get_deterministic_debug_mode() == 0
    assert memory.fill_uninitialized_memory
    with reproducible(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_that_gives_other_bits_each_time_is_refused_by_name():
    named = "put_ does not have a deterministic implementation; docs"
    with pytest.raises(InputError, match=named), use_device(GPU):
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))


def test_a_users_own_code_may_allow_it():
    with use_device(GPU):
        torch.use_deterministic_algorithms(False)
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))


def test_a_product_before_jemtrack_was_imported_is_explained():
    told = (  # by PyTorch 2.11 to 2.13
        "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` "
        "or `at::Context::setDeterministicAlgorithms(true)`, but this operation is not "
        "deterministic because it uses CuBLAS and you have CUDA >= 10.2. To enable deterministic "
        "behavior in this case, you must set an environment variable before running your PyTorch "
        "application: CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG=:16:8."
    )
    how = "import jemtrack before the GPU is used, or set CUBLAS"
    with pytest.raises(InputError, match=how), use_device(GPU):
        raise RuntimeError(told)


def test_other_errors_stay_what_they_are():
    class OwnError(RuntimeError):
        pass

    for error in (RuntimeError("mat1 and mat2"), OwnError("not deterministic")):
        with pytest.raises(RuntimeError) as raised, use_device(GPU):
            raise error
        assert raised.value is error


def test_a_full_gpu_is_said_in_one_line():
    def train(runtime):
        raise torch.OutOfMemoryError(FULL)

    with pytest.raises(InputError) as raised:
        launch(Hardware(device="cpu"), train)

    assert str(raised.value) == (
        "the GPU's memory is full: take a smaller batch_size, network or buffer (CUDA out of "
        "memory. Tried to allocate 5.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which "
        "1.00 GiB is free.)"
    )
