"""The state that PyTorch, NumPy and Python share among all code of a process."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Take back what the block changes: random streams, default dtype, autograd, threads, ...

    It is for code of others that runs before a training, in its thread.
    """
    if "torch" not in sys.modules:  # nothing is in use that the block could change
        yield
        return
    from jemtrack.shared.random_streams import random_state, restore_random_state

    streams, settings = random_state(), _settings()
    values = [get() for get, _ in settings]
    try:
        yield
    finally:
        restore_random_state(streams)
        for (get, put), value in zip(settings, values, strict=True):
            if get() != value:
                put(value)


def _settings() -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    import torch
    from torch.backends import cudnn

    return [
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, torch.set_default_device),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (lambda: cudnn.benchmark, lambda value: setattr(cudnn, "benchmark", value)),
        (lambda: cudnn.deterministic, lambda value: setattr(cudnn, "deterministic", value)),
    ]
