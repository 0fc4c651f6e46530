"""Start a training on the chosen hardware: in this process, or in several by Lightning Fabric."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psutil  # type: ignore[import-untyped]
import torch

from jemtrack.errors import InputError, Interrupted, ParameterError, TrainingDivergedError
from jemtrack.shared.hardware import (
    Hardware,
    check_memory,
    chosen_device,
    cpu_threads,
    keep_freed_memory,
    use_device,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

_EXPECTED = (InputError, Interrupted, TrainingDivergedError)
_PROCESS_BYTES = 2**27  # of one that has imported torch, at least
_PRECISIONS = {"fp32": "32-true", "bf16-mixed": "bf16-mixed"}


@dataclass(frozen=True)
class Runtime:
    """The device of a process, and `autocast`, which makes the context to apply models in."""

    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext


class PickleByFactory(Generic[T]):
    """A value that other processes rebuild by `make(*arguments)` instead of unpickling it."""

    def __init__(self, value: T, make: Callable[..., T], *arguments: Any) -> None:
        self.value = value
        self._made_by = make, arguments

    def __reduce__(self) -> Any:
        """Pickle the factory and its arguments alone."""
        return _rebuilt, self._made_by


def _rebuilt(make: Callable[..., T], arguments: tuple[Any, ...]) -> PickleByFactory[T]:
    return PickleByFactory(make(*arguments), make, *arguments)


def check_hardware(hardware: Hardware) -> None:
    """Check that the machine has the chosen hardware.

    Raises:
        ParameterError: if there is no such device, or torchrun started another number of processes.
    """
    on_gpus = chosen_device(hardware.device).type == "cuda"
    here = _processes_here(hardware)
    if on_gpus and here > torch.cuda.device_count():
        raise ParameterError(
            f"processes must be at most {torch.cuda.device_count()}, one a GPU, got {here}"
        )
    check_memory("processes", here, here * _PROCESS_BYTES)
    started = _started_by_others()
    if started and started != hardware.processes:
        raise ParameterError(
            f"processes must be {started}, as many as were started, got {hardware.processes}"
        )


def launch(hardware: Hardware, train: Callable[..., T], *arguments: Any) -> T:
    """Call `train(runtime, *arguments)` in each process; return what rank zero returned.

    Processes that torchrun or `fabric run` has started are used as they are. Otherwise they are
    started here, and with several `nodes` on the others of the Slurm job: `train` and `arguments`
    must then be picklable, and importing the program's main module must have no side effect.

    Raises:
        ParameterError: if the machine has no such device, torchrun started another number, or this
            is no Slurm job of so many nodes.
        InputError: if the GPU's memory is full, or an operation gives other bits each time.
        Interrupted: if a signal asked the processes to end.
        TrainingDivergedError: if `train` raises it.
    """
    check_hardware(hardware)
    if hardware.nodes == 1 or _started_by_others():
        return launch_here(hardware, train, *arguments)
    from jemtrack.train.nodes import check_nodes, other_nodes

    check_nodes(hardware)
    with other_nodes(hardware, train, arguments):
        return launch_here(hardware, train, *arguments)


def launch_here(hardware: Hardware, train: Callable[..., T], *arguments: Any) -> T:
    """Launch this node's processes; return what the first of them returned."""
    device = chosen_device(hardware.device)
    started = _started_by_others()
    alone = hardware.processes == 1
    if alone and hardware.precision == "fp32" and not started:
        # Fabric would change nothing, and its import takes seconds.
        with _prepared(device, hardware.threads):
            return train(Runtime(device), *arguments)
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    strategy = "auto" if alone and not started else "ddp" if started else "ddp_spawn"
    fabric = Fabric(
        accelerator=device.type,
        devices=_processes_here(hardware),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", hardware.nodes)),
        strategy=strategy,
        precision=_PRECISIONS[hardware.precision],  # type: ignore[arg-type]
        # In a job of Slurm, Fabric would take the job's tasks for the processes of the training.
        plugins=None if started else LightningEnvironment(),
    )
    if "LT_CLI_USED" in os.environ:
        with _prepared(fabric.device, hardware.threads):
            return train(Runtime(fabric.device, fabric.autocast), *arguments)
    with _signals_pass_to_children() if strategy == "ddp_spawn" else nullcontext():
        result = fabric.launch(_run_in_process, hardware.threads, train, arguments)
    if isinstance(result, _EXPECTED):
        raise result
    trained: T = result
    return trained


def _run_in_process(fabric: "Fabric", *work: Any) -> Any:
    n_threads, train, arguments = work
    try:
        with _prepared(fabric.device, n_threads):
            return train(Runtime(fabric.device, fabric.autocast), *arguments)
    except _EXPECTED as error:
        # An error would reach the parent process as text, and an interrupt not at all.
        return error


@contextmanager
def _prepared(device: torch.device, n_threads: int) -> Iterator[None]:
    """Prepare this process, which Fabric may have started, for a training in the block."""
    keep_freed_memory()
    with cpu_threads(n_threads), use_device(device):
        yield


def _started_by_others() -> int:
    """Return the number of processes that torchrun or `fabric run` has started, else 0."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _processes_here(hardware: Hardware) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", hardware.processes // hardware.nodes))


@contextmanager
def _signals_pass_to_children() -> Iterator[None]:
    """Pass signals on to the child processes, which finish their batch, and wait for them."""

    def pass_on(number: int, frame: Any) -> None:
        for child in psutil.Process().children():
            if os.getsid(child.pid) == os.getsid(0):  # not `srun`: see `other_nodes`
                child.send_signal(number)

    # Ctrl-C in a terminal reaches the children without our help.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
