"""A graph of stages that sleep, then write what they read: quick to run, and to be killed."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
import yaml
from project import Project

STAGE = """
import os
import sys
import time
from pathlib import Path

name, seconds, *deps = sys.argv[1:]
here = Path(os.environ["DVC_ROOT"])  # of the project itself, whatever copy of it this runs in
if (here / "fail").exists() and (here / "fail").read_text() == name:
    sys.exit(f"{name} was told to fail")
with (here / "starts").open("a") as starts:
    starts.write(f"{name} {Path.cwd().name} {time.time()}\\n")
time.sleep(float(seconds))
Path(f"{name}.out").write_text("\\n".join([name, *(Path(dep).read_text() for dep in deps)]))
with (here / "ends").open("a") as ends:
    ends.write(f"{name} {Path.cwd().name} {time.time()}\\n")
"""
JOINT = "joint"


def stage(name: str, seconds: float, deps: Iterable[str] = ()) -> dict[str, object]:
    outs = [f"{dep}.out" for dep in deps]
    return {
        "cmd": " ".join(["python stage.py", name, f"{seconds:g}", *outs]),
        "deps": ["stage.py", *outs],
        "outs": [f"{name}.out"],
    }


def sleeping_project(path: Path, stages: Mapping[str, object]) -> Project:
    """Make a git and DVC repository with these stages, committed."""
    path.mkdir(parents=True)
    # What is killed cannot have started warm.
    project = Project(path, warm=False)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.run("git", "config", "user.email", "nobody@example.org")
    project.run("git", "config", "user.name", "Nobody")
    project.run("dvc", "init", "--quiet")
    (path / "stage.py").write_text(STAGE)
    (path / ".dvcignore").write_text(".jemtrack\n")
    (path / ".gitignore").write_text("/.jemtrack\n/starts\n/ends\n/fail\n*.out\n")
    (path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {**stages}}, sort_keys=False))
    project.commit("a graph that sleeps")
    return project


def independent(count: int, seconds: float) -> dict[str, object]:
    """Declare so many independent stages, and one that reads them all."""
    names = [f"s{number}" for number in range(count)]
    return {name: stage(name, seconds) for name in names} | {JOINT: stage(JOINT, 0, names)}


def ran(project: Project) -> list[str]:
    """Name the stages that were started, as often as they were."""
    starts = project.path / "starts"
    return [line.split()[0] for line in starts.read_text().splitlines()] if starts.exists() else []


def times(project: Project, file: str) -> dict[str, float]:
    lines = (line.split() for line in (project.path / file).read_text().splitlines())
    return {name: float(time) for name, _, time in lines}


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """List those that run; nobody may have asked yet how a dead one has ended."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def alive_after(seconds: float, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """List those that still run after so long; return at once when none does."""
    deadline = time.monotonic() + seconds
    while (left := alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
