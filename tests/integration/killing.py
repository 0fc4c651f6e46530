"""Trainings under DVC that are killed, and what they leave."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
from project import Project

Process = subprocess.Popen[str]


def start(project: Project, *command: str, seconds: float = 0) -> Process:
    """Start a command in a process group of its own; its trainings save after every `seconds`."""
    return subprocess.Popen(
        command,
        cwd=project.path,
        env={**project.environment, "JEMTRACK_CHECKPOINT_SECONDS": f"{seconds}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def killed(process: Process) -> Iterator[Process]:
    """Kill all of the command's processes in the end."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout and not process.stdout.closed:
            process.communicate()


def training_of(project: Project) -> psutil.Process:
    """Find the process that trains in the project's scratch folder, of which there is one."""
    (lock,) = (project.path / ".jemtrack").glob("*/lock")
    return psutil.Process(int(lock.read_text()))


def steps_saved(project: Project) -> int:
    """Give the optimization steps of the newest checkpoint; 0 without one."""
    found = (project.path / ".jemtrack").glob("*/*.checkpoint")
    return max((int(path.name.split("-")[1].removeprefix("step")) for path in found), default=0)


def wait_for_steps(project: Project, goal: int, process: Process | None = None) -> None:
    """Wait until that many steps are saved, as long as the command, if there is one, runs."""
    deadline = time.monotonic() + 120
    while steps_saved(project) < goal:
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
