"""`jemtrack run` on the whole graph, and on many stages while processes are killed at random."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psutil
from killing import killed, start
from project import Project
from sleeping import JOINT, alive, independent, sleeping_project
from test_run import digests

N_STAGES, N_WORKERS, N_KILLS = 23, 4, 20  # and the joint one
ORPHAN_SECONDS, HANG_SECONDS = 3, 600


def below(coordinator: psutil.Process) -> list[psutil.Process]:
    """List the processes of the stages that run; git, which prepares a clone, is none of them."""
    found = []
    for leader in coordinator.children():
        with contextlib.suppress(psutil.Error):  # it may end meanwhile
            if "jemtrack.project.workers.stage_process" in leader.cmdline():
                found += [leader, *leader.children(recursive=True)]
    return found


def ended_in_time(processes: list[psutil.Process]) -> bool:
    deadline = time.monotonic() + ORPHAN_SECONDS
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(processes)


def test_random_kills_cost_time_alone(tmp_path: Path):
    stream, n_kills, n_starts = random.Random(7), 0, 0
    project = sleeping_project(tmp_path / "project", independent(N_STAGES, seconds=1.5))
    deadline = time.monotonic() + HANG_SECONDS
    status = None
    while status != 0:
        n_starts += 1
        with killed(start(project, "jemtrack", "run", "--workers", str(N_WORKERS))) as process:
            coordinator = psutil.Process(process.pid)
            while process.poll() is None:
                assert time.monotonic() < deadline, "it hangs"
                time.sleep(stream.uniform(0.2, 1.0))
                victims = below(coordinator) if process.poll() is None else []
                if not victims or n_kills == N_KILLS:
                    continue
                victim = coordinator if n_kills % 7 == 6 else stream.choice(victims)
                with contextlib.suppress(psutil.NoSuchProcess):
                    started = [victim, *victim.children(recursive=True)]
                    victim.kill()
                    n_kills += 1
                    assert ended_in_time(started), f"orphans of {victim}"
            status = process.returncode
            assert status in {0, -signal.SIGKILL}, process.communicate()[0]

    assert n_kills == N_KILLS
    assert n_starts == 3
    names = [f"s{number}" for number in range(N_STAGES)]
    for name in names:
        assert (project.path / f"{name}.out").read_text() == name
    assert (project.path / f"{JOINT}.out").read_text() == "\n".join([JOINT, *names])
    assert project.repro() == []
    assert not [each for each in psutil.process_iter(["cwd"]) if _is_within(each, project.path)]


def _is_within(process: psutil.Process, folder: Path) -> bool:
    cwd = process.info["cwd"]
    return bool(cwd) and Path(os.path.realpath(cwd)).is_relative_to(folder.resolve())


def test_workers_make_what_dvc_repro_makes(whole_reproduced: Project, tmp_path: Path):
    project = Project(tmp_path / "workers")
    whole_reproduced.run("git", "clone", "--quiet", ".", str(project.path))
    project.run("git", "checkout", "--quiet", "HEAD~1")  # without results
    project.run("jemtrack", "data", "digits")

    output = project.run("jemtrack", "run", "--workers", "2")

    assert "restored 9 stages, ran none in the project itself" in output
    assert digests(project) == digests(whole_reproduced)
    assert project.repro() == []
