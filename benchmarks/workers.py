"""Measure what `jemtrack run` adds to the stages themselves: stages that sleep, and a joint one.

    python benchmarks/workers.py

runs independent stages and one that reads them all, on 2 and on 4 workers, in a project of its own.
The critical path is what so many workers would need if a stage took nothing but its sleep. The
overhead of a stage is the time between the end of one stage on a worker and the start of the next
one there: noting the end, the next clone, DVC, and the shell.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import yaml

from jemtrack.shared.hardware import available_cpus

NOTE = 'echo "$PWD $(date +%s.%N) {what}" >> $DVC_ROOT/moments'
COMMAND = (
    f"{NOTE.format(what=1)}; sleep {{seconds}}; cat {{deps}} > {{name}}; {NOTE.format(what=0)}"
)


def write_project(folder: Path, count: int, seconds: float) -> None:
    """Write and commit a graph of `count` independent stages and a joint one."""
    names = [f"s{number}" for number in range(count)]
    deps = {name: ["code"] for name in names} | {"joint": names}
    stages = {
        name: {
            "cmd": COMMAND.format(
                name=name, seconds=seconds if name in names else 0, deps=" ".join(deps[name])
            ),
            "deps": deps[name],
            "outs": [name],
        }
        for name in deps
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "code").write_text("code\n")
    (folder / ".dvcignore").write_text(".jemtrack\n")
    (folder / ".gitignore").write_text("/.jemtrack\n/moments\n")
    by = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", *by, "commit", "--quiet", "--message", "graph"],
    ):
        subprocess.run(command, cwd=folder, check=True)


def seconds_of(folder: Path, workers: int) -> float:
    """Time `jemtrack run`."""
    command = Path(sys.executable).with_name("jemtrack")
    started = time.perf_counter()
    subprocess.run(
        [command, "run", "--workers", str(workers)],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def gaps(folder: Path) -> list[float]:
    """List the seconds between a stage's end on a worker and the next one's start there."""
    moments: dict[str, list[tuple[float, str]]] = {}
    for line in (folder / "moments").read_text().splitlines():
        clone, at, starts = line.split()
        moments.setdefault(clone, []).append((float(at), starts))
    return [
        start - end
        for times in moments.values()
        for (end, _), (start, starts) in pairwise(sorted(times))
        if starts == "1"
    ]


def main() -> None:
    """Print a row for each number of workers."""
    parser = argparse.ArgumentParser(description="What `jemtrack run` adds to the stages.")
    parser.add_argument("--stages", type=int, default=8, help="independent stages (8)")
    parser.add_argument("--seconds", type=float, default=10, help="that each sleeps (10)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4], help="(2 4)")
    options = parser.parse_args()
    print(
        f"{options.stages} stages of {options.seconds:g} s and a joint one, {available_cpus()} CPUs"
    )
    print("workers  critical path  took    bar     overhead of a stage: median, highest")
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_project(folder, options.stages, options.seconds)
            took = seconds_of(folder, workers)
            path = math.ceil(options.stages / workers) * options.seconds
            between = gaps(folder)
        print(
            f"{workers:7}  {path:11.1f} s  {took:5.1f} s  {1.2 * path + 5:5.1f} s  "
            f"{statistics.median(between):.2f} s, {max(between):.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
