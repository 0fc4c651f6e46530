"""A Slurm of two nodes on this machine, from Debian's packages."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

NAME = "slurm"
OPTIONS: dict[str, Any] = {"job_extra_directives": ["--requeue"]}
# The least that Slurm takes; it looks twice a minute at which jobs are over theirs.
LIMIT: dict[str, Any] = {"walltime": "00:01:00"}
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PORTS = {"ctld": 16817, "n1": 16818, "n2": 16819}
CONFIG = """
ClusterName=loop
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=30
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs=4 RealMemory=8000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs=4 RealMemory=8000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start the daemons, with their files in `folder`; end them with the block."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    assert not missing, f"{', '.join(missing)}: not installed; `make cluster-test` installs them"
    for name in ("state", "spool/n1", "spool/n2"):
        (folder / name).mkdir(parents=True)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, **PORTS))
    os.environ["SLURM_CONF"] = str(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_munge())
        for command in (["slurmctld"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
            subprocess.run(command, check=True)
            name = "-".join([command[0], *command[2:]])
            stack.callback(end, folder / f"{name}.pid")
        wait_for(lambda: told("sinfo", "-h", "-t", "idle", "-o", "%D") == "2")
        yield
        told("scancel", "--user", "root")
    del os.environ["SLURM_CONF"]


@contextlib.contextmanager
def _munge() -> Iterator[None]:
    """Start the daemon that signs Slurm's messages, unless it runs."""
    check = ["sh", "-c", "munge -n | unmunge"]
    if subprocess.run(check, capture_output=True, check=False).returncode == 0:
        yield
        return
    subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"], check=True)
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
    wait_for(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0)
    try:
        yield
    finally:
        end(Path("/run/munge/munged.pid"))


def told(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def jobs() -> list[str]:
    """List the ids of the jobs that have not ended, those that run first."""
    return told("squeue", "-h", "-S", "-T", "-t", "pending,running,completing", "-o", "%A").split()


def cancel(job: str) -> None:
    told("scancel", job)


def requeue(job: str) -> None:
    told("scontrol", "requeue", job)


def submit(script: Path, *arguments: str, folder: Path) -> Callable[[], str]:
    """Submit a job; return what reads its output."""
    told("sbatch", str(script), *arguments, cwd=folder)
    return lambda: "".join(path.read_text() for path in folder.glob("slurm-*.out"))


def end(pid_file: Path) -> None:
    """End a daemon, and wait for it: another one may need its port."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        daemon = psutil.Process(int(pid_file.read_text()))
        daemon.terminate()
        daemon.wait(60)


def wait_for(said: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.1)
