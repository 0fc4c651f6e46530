"""A program that starts warm is, to whoever runs it, the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from project import WITHOUT_MLFLOW, Project

# Imported by `zntrack run`, which finds no stage in it.
PROBE = """
import json, os, random, sys
import numpy, torch

print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "own": os.environ.get("OWN"),
    "path": sys.path[0], "jemtrack": "jemtrack" in sys.modules,
    "random": [random.random(), numpy.random.random(), torch.rand(1).item()],
}), flush=True)
"""
RUN = ("zntrack", "run", "probe.Probe", "--name", "mine")


@pytest.fixture
def folder(tmp_path: Path) -> Project:
    (tmp_path / "probe.py").write_text(PROBE)
    return Project(tmp_path)


def told(project: Project, **environment: str) -> dict:
    return json.loads(project.run(*RUN, fails=True, env=environment).splitlines()[0])


def started(project: Project, then: str) -> tuple[subprocess.Popen, int]:
    """Start a program that says its number and goes on with `then`; return it and the number."""
    (project.path / "probe.py").write_text(
        f"import os, signal, sys, time\nprint(os.getpid(), flush=True)\n{then}\n"
    )
    process = subprocess.Popen(
        RUN, cwd=project.path, env=project.environment, stdout=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


def test_it_has_the_caller_s_arguments_folder_and_environment(folder: Project):
    warm = told(folder, OWN="a value")

    assert warm["arguments"] == [*RUN[1:]]
    assert warm["folder"] == str(folder.path)
    assert (warm["own"], told(folder)["own"]) == ("a value", None)
    assert not warm["jemtrack"]
    cold = told(Project(folder.path, warm=False), OWN="a value")
    assert {**warm, "random": ()} == {**cold, "random": ()}


def test_no_two_begin_alike_where_real_ones_would_not(folder: Project):
    first, second = (told(folder)["random"] for _ in range(2))

    assert not {*first} & {*second}


def test_where_other_packages_are_to_be_found_the_real_program_runs(folder: Project):
    ask = "import sys\nprint('started', len(sys.modules) > 0, sys.modules.get('sklearn'))\n"
    (folder.path / "probe.py").write_text(ask)

    assert "started True None" not in folder.run(*RUN, fails=True)
    own = {"PYTHONPATH": WITHOUT_MLFLOW["PYTHONPATH"] + os.pathsep + str(folder.path)}
    assert "started True None" in folder.run(*RUN, fails=True, env=own)


@pytest.mark.parametrize("end", ["sys.exit(7)", "os._exit(7)"])
def test_its_exit_status_is_passed_on(folder: Project, end: str):
    process, _ = started(folder, end)

    assert process.wait() == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_signal_that_ended_it_is_passed_on(folder: Project, number: signal.Signals):
    process, pid = started(folder, "time.sleep(60)")

    os.kill(pid, number)

    assert process.wait() == -number


def test_it_ends_with_the_program_that_asked_for_it(folder: Project):
    sleep = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', "
    process, pid = started(folder, f"{sleep}'import time; time.sleep(60)'])")
    while not (children := psutil.Process(pid).children()):
        time.sleep(0.01)

    process.kill()

    psutil.wait_procs([psutil.Process(pid), *children], timeout=30)
    assert not psutil.pid_exists(pid)
    assert not [child for child in children if child.is_running()]
