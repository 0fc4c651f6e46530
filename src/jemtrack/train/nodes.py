"""Start a training on the other nodes of a Slurm job, too: each runs this module, by `srun`."""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil  # type: ignore[import-untyped]
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from jemtrack.errors import InputError, Interrupted, ParameterError, exit_status
from jemtrack.shared.hardware import Hardware
from jemtrack.train.launch import launch_here

# What ends the processes of one node reaches those of the others within that time, unless these
# wait for processes that were never started.
_WAIT_SECONDS = 10.0


def check_nodes(hardware: Hardware) -> None:
    """Check that this is a Slurm job of as many nodes as are asked for.

    Raises:
        ParameterError: with both numbers, if it is not.
    """
    count = int(os.environ.get("SLURM_JOB_NUM_NODES", "0"))
    if count < hardware.nodes:
        where = f"this Slurm job has {count}" if count else "this is no Slurm job"
        raise ParameterError(f"nodes must be 1, got {hardware.nodes}, and {where}")


@contextlib.contextmanager
def other_nodes(hardware: Hardware, train: Callable[..., Any], arguments: Any) -> Iterator[None]:
    """Launch the training on the other nodes, to be joined by what the block launches on this one.

    Raises:
        InputError: if the processes on the other nodes fail to start, or are killed.
    """
    # Where the others find rank zero. The variable is for machines whose own name misleads them.
    address = os.environ.get("MASTER_ADDR") or socket.gethostname()
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(find_free_network_port())}
    count = hardware.nodes - 1
    step = [f"--nodes={count}", f"--ntasks={count}", "--relative=1"]
    # A step has the cores of the job, and not one for each task.
    command = ["srun", *step, "--overlap", "--cpu-bind=none", sys.executable, "-m", __name__]
    # In a session of its own: a signal to this one ends all processes of the training after their
    # batch, but `srun` would kill its own at once.
    others = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert others.stdin
    done = threading.Event()
    threading.Thread(target=_end_with, args=[others, done], daemon=True).start()
    try:
        with contextlib.suppress(BrokenPipeError), others.stdin:
            pickle.dump((hardware, train, arguments), others.stdin)
        yield
    except (InputError, Interrupted):
        raise
    except Exception as error:
        if others.poll():
            text = f"the processes on the other nodes ended with status {others.returncode}"
            raise InputError(f"{text}: {' '.join(command)}") from error
        raise
    finally:
        done.set()
        with contextlib.suppress(subprocess.TimeoutExpired):
            others.wait(_WAIT_SECONDS)
        others.terminate()
        others.wait()


def _end_with(others: "subprocess.Popen[bytes]", done: threading.Event) -> None:
    """Kill the processes of this node if those of the others have failed."""
    if others.wait() and not done.wait(_WAIT_SECONDS):
        for child in psutil.Process().children():
            child.kill()


def main() -> int:
    """Launch on this node what the first one asks for; return the exit status."""
    os.environ["NODE_RANK"] = str(int(os.environ["SLURM_PROCID"]) + 1)
    hardware, train, arguments = pickle.load(sys.stdin.buffer)
    try:
        launch_here(hardware, train, *arguments)
    except Interrupted as interrupt:
        return exit_status(interrupt)
    except InputError:  # rank zero tells it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
