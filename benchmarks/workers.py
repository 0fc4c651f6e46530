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
    started = time.perf_counter()
    in_environment(folder, "jemtrack", "run", "--workers", str(workers))
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


TRAINERS = ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2")
COMMANDS = {"dvc repro": ["dvc", "repro"], "2 workers": ["jemtrack", "run", "--workers", "2"]}


def write_clone(folder: Path, epochs: int | None) -> None:
    """Clone this checkout's last commit, with one thread a stage and nothing in its cache."""
    root = Path(__file__).parents[1]
    subprocess.run(["git", "clone", "--quiet", str(root), str(folder)], check=True)
    parameters = yaml.safe_load((folder / "params.yaml").read_text())
    for stage, values in parameters.items():
        chosen = values.get("params", {})
        if "threads" in chosen:
            chosen["threads"] = 1
        if stage in TRAINERS and epochs:
            chosen["n_epochs"] = epochs
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    in_environment(folder, "dvc", "config", "--local", "cache.dir", str(folder / ".dvc" / "cache"))
    in_environment(folder, "jemtrack", "data", "digits")


def in_environment(folder: Path, program: str, *arguments: str) -> None:
    """Run a program of this environment in a folder, quietly."""
    command = [Path(sys.executable).with_name(program), *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def model_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each trainer's model, as dvc.lock has it."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {
        out["path"]: out["md5"]
        for trainer in TRAINERS
        for out in stages[trainer]["outs"]
        if out["path"].endswith(".safetensors")
    }


def compare_on_trainers(rounds: int, epochs: int | None) -> None:
    """Print the seconds of the default graph one stage after the other and on 2 workers."""
    print(f"default graph, one thread a stage, {epochs or 'all'} epochs, {available_cpus()} CPUs")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    digests = []
    for number in range(rounds):
        for name in [*COMMANDS][:: 1 if number % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as parent:
                folder = Path(parent, "project")
                write_clone(folder, epochs)
                started = time.perf_counter()
                in_environment(folder, *COMMANDS[name])
                seconds[name].append(time.perf_counter() - started)
                digests.append(model_digests(folder))
            print(f"{name:10} {seconds[name][-1]:7.1f} s", flush=True)
    alone, together = map(statistics.median, seconds.values())
    equal = "equal" if all(each == digests[0] for each in digests) else "NOT equal"
    print(f"{alone / together:.2f}x faster on 2 workers; the models are {equal}")


def main() -> None:
    """Print a row for each number of workers, or the comparison on the trainers."""
    parser = argparse.ArgumentParser(description="What `jemtrack run` adds to the stages.")
    parser.add_argument("--stages", type=int, default=8, help="independent stages (8)")
    parser.add_argument("--seconds", type=float, default=10, help="that each sleeps (10)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4], help="(2 4)")
    parser.add_argument("--trainers", action="store_true", help="run the default graph instead")
    parser.add_argument("--rounds", type=int, default=3, help="of --trainers (3)")
    parser.add_argument("--epochs", type=int, help="of each training of --trainers (all)")
    options = parser.parse_args()
    if options.trainers:
        compare_on_trainers(options.rounds, options.epochs)
        return
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
