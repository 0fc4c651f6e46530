"""What a training runs on, as parameters; free of torch until a device is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jemtrack.errors import ParameterError
from jemtrack.parameters import AtLeastOne, parameters

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16-mixed"]
Strategy = Literal["auto", "ddp"]


@parameters
class Hardware:
    """Where a training runs, in which precision and in how many processes.

    Attributes:
        device: auto is a GPU where there is one, else the CPU.
        precision: fp32, or bf16-mixed: weights in fp32, what autocast chooses in bfloat16.
        processes: that share each batch; on GPUs, each has one of its own.
        strategy: auto is one process, or ddp where there are several: each has the whole model,
            and their gradients are averaged (gloo on CPUs, NCCL on GPUs).
    """

    device: DeviceName = "auto"
    precision: Precision = "fp32"
    processes: AtLeastOne = 1
    strategy: Strategy = "auto"


def chosen_device(name: DeviceName) -> torch.device:
    """Return the device that a parameter names.

    Raises:
        ParameterError: when it is a GPU and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device must be cpu or auto, got 'cuda': PyTorch finds no GPU here")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
