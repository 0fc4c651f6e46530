"""Trainings under DVC that are killed, and what they leave."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
from project import Project

from jemtrack.project import scratch
from jemtrack.train.checkpoint import newest_first

Process = subprocess.Popen[str]

STAGE = "MaxEntropyL2"
REPRO = ("dvc", "repro", "--force", "--single-item", STAGE)  # done or not
OUTS = [f"nodes/{STAGE}/{name}" for name in ("model.safetensors", "history.csv", "metrics.json")]

_ADAM = {"optimizers": {"network": {"type": "Adam", "lr": 0.001}}}
_WARM_UP = {"name": "warm_up", "n_epochs": 3, "max_steps": 20, "optimization": _ADAM}
_JOINT = {"name": "joint", "n_epochs": 4, "max_steps": 30, "optimization": _ADAM}
N_STEPS = 3 * 20 + 4 * 30

NO_WORKER = "Worker status: 0 active, 0 idle"
N_IDLE = 10  # looks that see no worker, which takes some seconds to begin


def train_longer(project: Project, times: int = 1) -> None:
    """Give the stage two phases and all that draws random numbers or has a state of its own.

    Each phase has so many `times` its epochs.
    """
    for name, value in {"batch_size": 32, "dropout_rate": 0.2, "norm": "batch"}.items():
        project.set(f"{STAGE}.params.{name}", value)
    steps = [_WARM_UP, {**_JOINT, "freeze": ["network.energy_head"]}]
    steps = [{**step, "n_epochs": step["n_epochs"] * times} for step in steps]
    project.set(f"{STAGE}.recipe", {"steps": steps})
    project.run("jemtrack", "graph")
    project.commit("a longer training")


def start(project: Project, *command: str, seconds: float = 0) -> Process:
    """Start a command in a session of its own; its trainings save after every `seconds`."""
    return subprocess.Popen(
        command,
        cwd=project.path,
        env={
            **replace(project, warm=False).environment,
            "JEMTRACK_CHECKPOINT_SECONDS": f"{seconds}",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def killed(process: Process) -> Iterator[Process]:
    """Kill all of the command's processes in the end, a queue's worker included."""
    try:
        yield process
    finally:
        for each in psutil.pids():
            # A worker has a group of its own, in the session of the command that started it.
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(each) == process.pid:
                    os.kill(each, signal.SIGKILL)
        if process.stdout and not process.stdout.closed:
            process.communicate()


def trainings(project: Project) -> list[Path]:
    """Find the folders of trainings that are not done."""
    folders = scratch.trainings(project.path / ".jemtrack")
    # A finished one is kept until the next stage finds that DVC has recorded it.
    return [folder for folder in folders if not (folder / "finished.json").exists()]


def training_of(project: Project) -> psutil.Process:
    """Find the process of the one training that is not done."""
    (folder,) = trainings(project)
    return psutil.Process(int((folder / "lock").read_text()))


def is_training(project: Project) -> bool:
    """Tell whether a process trains."""
    holders = []
    for folder in trainings(project):
        with contextlib.suppress(FileNotFoundError):
            holders.append(int((folder / "lock").read_text() or 0))
    return any(map(psutil.pid_exists, holders))


def reached(folder: Path) -> int:
    """Give the optimization steps of the training's newest checkpoint; 0 without one."""
    return max((file.step for file in newest_first(folder)[:1]), default=0)


def steps_saved(project: Project) -> int:
    """Give the most optimization steps of a training that is not done."""
    return max(map(reached, trainings(project)), default=0)


def wait_until(said: Callable[[], object], process: Process | None = None) -> None:
    """Wait for what is said to be so, while the command, if there is one, runs."""
    deadline = time.monotonic() + 300
    while not said():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def run_queue(project: Project, until: Callable[[], object]) -> None:
    """Let workers run what is queued until it is so; then kill them with all that they started.

    On a busy machine DVC's worker takes a late answer for an empty queue, and ends.
    """
    with contextlib.ExitStack() as workers:
        idle = N_IDLE
        while not until():
            if is_training(project):
                time.sleep(0.002)
                continue
            is_idle = NO_WORKER in project.run("dvc", "queue", "status")
            idle = idle + 1 if is_idle else 0
            if idle > N_IDLE:
                workers.enter_context(killed(start(project, "dvc", "queue", "start")))
                idle = 0


def wait_for_steps(project: Project, goal: int, process: Process | None = None) -> None:
    """Wait until `goal` steps are saved."""
    wait_until(lambda: steps_saved(project) >= goal, process)
