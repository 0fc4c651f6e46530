"""What a GPU is asked for, and what a user is told of it; no GPU is needed."""

import pytest
import torch

from jemtrack.errors import InputError
from jemtrack.shared.hardware import Hardware, reproducible, use_device
from jemtrack.train.launch import launch

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
