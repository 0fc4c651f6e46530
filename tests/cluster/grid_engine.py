"""A Grid Engine on this machine, from Debian's packages."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from slurm import told, wait_for

NAME = "sge"
OPTIONS = {"job_extra_directives": ["-pe smp 2", "-r y"]}
LIMIT = {"walltime": "00:00:45"}
PROGRAMS = ("sge_qmaster", "sge_execd", "qsub", "qconf")
ROOT, CELL = Path("/var/lib/gridengine"), "default"
COMMON, RUN = ROOT / CELL / "common", Path("/var/run/gridengine")
# As root, and with answers within a second. A job that is requeued runs on until the next report of
# its host's load, which comes every 40 seconds by default; a fast training is done by then.
GLOBAL = {"min_uid": "0", "min_gid": "0", "load_report_time": "0:0:1"}
SCHEDULER = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
PARALLEL = """\
pe_name            smp
slots              99
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    $pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""
QUEUE = {
    "qname": "all.q",
    "hostlist": "localhost",
    "slots": "8",
    "load_thresholds": "NONE",  # or a busy machine would get no job
    "rerun": "TRUE",
    "pe_list": "smp",
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start the daemons; end them with the block."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    assert not missing, f"{', '.join(missing)}: not installed; `make cluster-test` installs them"
    os.environ |= {"SGE_ROOT": str(ROOT), "SGE_CELL": CELL}
    # The order counts: the names first, then who may run jobs, then the daemon that runs them.
    (COMMON / "host_aliases").write_text(f"localhost {socket.gethostname()}\n")
    (COMMON / "act_qmaster").write_text("localhost\n")
    subprocess.run(["install", "-d", "-o", "sgeadmin", str(RUN)], check=True)
    with contextlib.ExitStack() as stack:
        subprocess.run(["sge_qmaster"], check=True)
        stack.callback(end, "sge_qmaster", "-km")
        wait_for(lambda: answers("qconf", "-sconf", "global"))
        answers("qconf", "-as", "localhost")
        answers("qconf", "-ah", "localhost")
        change(folder / "global", "-Mconf", told("qconf", "-sconf", "global"), GLOBAL)
        change(folder / "scheduler", "-Msconf", told("qconf", "-ssconf"), SCHEDULER)
        if not answers("qconf", "-sp", "smp"):
            change(folder / "smp", "-Ap", PARALLEL, {})
        subprocess.run(["sge_execd"], check=True)
        stack.callback(end, "sge_execd", "-kej", "localhost")
        wait_for(lambda: answers("qconf", "-sel"))
        option = "-Mq" if answers("qconf", "-sq", "all.q") else "-Aq"
        change(folder / "all.q", option, told("qconf", "-sq"), QUEUE)
        wait_for(lambda: re.search(r"lx-\S+\s*$", told("qstat", "-f")))  # it has no fault
        yield
        answers("qdel", "-f", "-u", "root")


def end(daemon: str, *options: str) -> None:
    """End a daemon, and wait for it: another one may need its port."""
    answers("qconf", *options)
    wait_for(lambda: daemon not in (each.info["name"] for each in psutil.process_iter(["name"])))


def answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def change(file: Path, option: str, text: str, values: dict[str, str]) -> None:
    """Hand Grid Engine a file of settings, with some `values` put in."""
    for name, value in values.items():
        text = re.sub(rf"^{name}( +).*$", rf"{name}\g<1>{value}", text, flags=re.M)
    file.write_text(text + "\n")
    told("qconf", option, str(file))


def jobs() -> list[str]:
    """List the ids of all jobs."""
    return [line.split()[0] for line in told("qstat", "-u", "*").splitlines()[2:]]


def cancel(job: str) -> None:
    told("qdel", job)


def requeue(job: str) -> None:
    told("qmod", "-rj", job)


def submit(script: Path, *arguments: str, folder: Path) -> Callable[[], str]:
    """Submit a job; return what reads its output."""
    told("qsub", str(script), *arguments, cwd=folder)
    return lambda: "".join(path.read_text() for path in folder.glob("jemtrack.o*"))
