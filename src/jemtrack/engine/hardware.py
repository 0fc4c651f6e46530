"""What a training runs on, as parameters; free of torch."""

from typing import Annotated, Literal

from pydantic import Field

from jemtrack.parameters import parameters

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
    processes: Annotated[int, Field(ge=1)] = 1
    strategy: Strategy = "auto"
