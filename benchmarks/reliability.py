"""Break a project at random, again and again, and count what is lost.

    python benchmarks/reliability.py --kills 200

makes a project of all stages on the digits, with trainings of some seconds that write a checkpoint
after every batch, and types `dvc repro` in it. Each run is ended at a random moment: all of its
processes, DVC alone, or the stage alone are killed, it is told to end by Ctrl-C or SIGTERM, or its
disk is full from then on. Between two runs a file of `.jemtrack/` may be damaged, the times of all
of them may be years ago or ahead, and while one runs, a second person may type a command in the
same folder. When the graph has ended in spite of it all, its results must be, bit for bit, those
of a graph that was left alone; then it is made stale and begun anew. The exit status is 1 if a
result is lost, a process hangs or prints a traceback.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from project import STAGES, TRAINERS, Project, new_project  # noqa: E402

SEEDS = (1, 2)  # of the data's split: each makes all stages stale
N_WORKERS = 2
HANGS_S = 120
# What differs in every run: times, ids, and the page that shows them.
VOLATILE = {"node-meta.json", "resources.json", "record", "report.html"}
# One that begins while ZnTrack's command itself is imported never reaches our code.
TRACEBACK = re.compile(r"(Traceback|╭)(.|\n)*src/jemtrack")
# DVC does not write its lock file whole: a kill may leave half of it, and DVC then starts no stage.
# `git checkout dvc.lock` is the way out, for DVC's run cache has the results.
CUT_LOCK = "'./dvc.lock' is invalid"


@dataclass
class Count:
    """What was done to the project, by name, and what came of it."""

    tried: Counter[str] = field(default_factory=Counter)
    graphs: int = 0
    lost: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def __add__(self, other: "Count") -> "Count":
        """Count both together."""
        return Count(
            self.tried + other.tried,
            self.graphs + other.graphs,
            self.lost + other.lost,
            self.hangs + other.hangs,
            self.tracebacks + other.tracebacks,
        )


Run = subprocess.Popen[str]
Fault = Callable[[Project, Run], None]


def of_session(run: Run) -> Iterator[psutil.Process]:
    """Yield the processes of a run."""
    for number in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(number) == run.pid:
                yield psutil.Process(number)


def stages(run: Run) -> list[psutil.Process]:
    """Find the stage that runs, if one does."""
    found = []
    for process in of_session(run):
        with suppress(psutil.Error):
            if "zntrack" in " ".join(process.cmdline()) and "run" in process.cmdline():
                found.append(process)
    return found


def kill_all(project: Project, run: Run) -> None:
    """Kill DVC, the stage and all that they have started."""
    for process in of_session(run):
        with suppress(psutil.Error):
            process.kill()


def kill_dvc(project: Project, run: Run) -> None:
    """Kill DVC; the stage, an orphan, runs on."""
    run.kill()


def kill_stage(project: Project, run: Run) -> None:
    """Kill the stage; DVC says that it failed."""
    for process in stages(run):
        with suppress(psutil.Error):
            process.kill()


def press_ctrl_c(project: Project, run: Run) -> None:
    """Interrupt all processes, as a terminal does."""
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGINT)


def terminate(project: Project, run: Run) -> None:
    """End all processes, as a cluster does."""
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGTERM)


def fill_the_disk(project: Project, run: Run) -> None:
    """Let the stage write no more bytes."""
    for process in stages(run):
        with suppress(psutil.Error, ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))


def second_person(project: Project, run: Run) -> None:
    """Type another command in the folder; then kill all of the first."""
    command = random.choice([("dvc", "repro"), ("jemtrack", "check"), ("jemtrack", "scratch")])
    output = subprocess.run(
        command, cwd=project.path, env=project.environment, capture_output=True, text=True
    )
    assert not TRACEBACK.search(output.stdout + output.stderr), output.stdout + output.stderr
    kill_all(project, run)


# Of so many in a hundred. Runs that are killed as a whole start warm: see warm_start.py.
WARM: dict[str, tuple[int, Fault]] = {
    "all processes killed": (60, kill_all),
    "two people in one folder": (10, second_person),
}
FAULTS: dict[str, tuple[int, Fault]] = {
    **WARM,
    "DVC alone killed": (6, kill_dvc),
    "the stage alone killed": (6, kill_stage),
    "Ctrl-C": (6, press_ctrl_c),
    "SIGTERM": (6, terminate),
    "the disk full": (6, fill_the_disk),
}


def damage(project: Project, chosen: random.Random) -> str:
    """Damage a file of an unfinished training, or move the times of all; say what was done."""
    files = [path for path in (project.path / ".jemtrack").rglob("*") if path.is_file()]
    files = [path for path in files if path.name not in {"lock", "waiting"}]
    if not files:
        return ""
    if chosen.random() < 1 / 3:
        then = time.time() + chosen.choice([-1, 1]) * 3 * 365 * 24 * 3600
        for path in files:
            os.utime(path, (then, then))
        return "the clock changed by years"
    path = chosen.choice([each for each in files if each.suffix == ".checkpoint"] or files)
    content = bytearray(path.read_bytes())
    if chosen.random() < 1 / 2 or not content:
        path.write_bytes(content[: len(content) // 2])
        return "a file cut short"
    content[chosen.randrange(len(content))] ^= 0xFF
    path.write_bytes(content)
    return "a byte changed"


def start(project: Project, *, warm: bool = True) -> Run:
    """Type `dvc repro`, in a session of its own."""
    return subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.path,
        env={**replace(project, warm=warm).environment, "JEMTRACK_CHECKPOINT_SECONDS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output_of(run: Run, count: Count, name: str) -> str:
    """Wait for the end of a run, orphans included; note a hang or a traceback."""
    try:
        output = run.communicate(timeout=HANGS_S)[0]
    except subprocess.TimeoutExpired:
        count.hangs.append(name)
        kill_all(None, run)
        output = run.communicate()[0]
    if TRACEBACK.search(output):
        count.tracebacks.append(f"{name}:\n{output}")
    return output


def results(project: Project) -> dict[str, str]:
    """Return the digests of all results, by path, from dvc.lock."""
    found = project.read("dvc.lock")["stages"]
    outs = [out for stage in STAGES for out in found[stage]["outs"]]
    return {out["path"]: out["md5"] for out in outs if Path(out["path"]).name not in VOLATILE}


def make_stale(project: Project, seed: int) -> None:
    """Choose another split, and let DVC forget that it has had it before."""
    project.set("PrepareData.params.seed", seed)
    shutil.rmtree(project.path / ".dvc/cache/runs", ignore_errors=True)


def lengthen(project: Project) -> None:
    """Let the trainers take some seconds, so that most kills meet one."""
    for trainer in TRAINERS:
        project.set(f"{trainer}.params.n_epochs", 2)
        project.set(f"{trainer}.params.batch_size", 64)


def soak(base: Path, folder: Path, n_faults: int, seed: int) -> Count:
    """Break a copy of the project in `base` so many times."""
    chosen, count = random.Random(seed), Count()
    random.seed(seed)
    shutil.copytree(base, folder, symlinks=True)
    project = Project(folder)
    expected = {}
    for split in SEEDS:
        make_stale(project, split)
        began = time.monotonic()
        project.run("dvc", "repro")
        seconds = time.monotonic() - began
        expected[split] = results(project)
    project.commit("results")
    split = 0
    while sum(count.tried.values()) < n_faults:
        split = (split + 1) % len(SEEDS)
        make_stale(project, SEEDS[split])
        for _ in range(chosen.randint(4, 12)):
            (name,) = chosen.choices([*FAULTS], [share for share, _ in FAULTS.values()])
            run = start(project, warm=name in WARM)
            # A stage that does not start warm imports for some seconds before it begins.
            time.sleep(chosen.uniform(0, seconds / 2) + (0 if name in WARM else 3))
            if run.poll() is None:
                FAULTS[name][1](project, run)
                count.tried[name] += 1
            output_of(run, count, name)
            if run.returncode == 0:
                break
            if chosen.random() < 1 / 4 and (done := damage(project, chosen)):
                count.tried[done] += 1
        run = start(project)
        output = output_of(run, count, "left alone")
        if CUT_LOCK in output:
            count.tried["dvc.lock cut short by DVC, restored by git"] += 1
            project.run("git", "checkout", "--", "dvc.lock")
            run = start(project)
            output = output_of(run, count, "left alone")
        count.graphs += 1
        if run.returncode:
            count.lost.append(f"a graph that could not be ended:\n{output}")
            return count
        found = results(project)
        count.lost += [path for path in found if found[path] != expected[SEEDS[split]][path]]
    return count


def table(count: Count) -> Iterator[str]:
    """Yield the lines of the result, in Markdown."""
    yield "| what was done | times |"
    yield "|---|---:|"
    for name, n in sorted(count.tried.items()):
        yield f"| {name} | {n} |"
    yield f"| **together** | **{sum(count.tried.values())}** |"
    yield ""
    yield (
        f"{count.graphs} graphs ended in spite of it: {len(count.lost)} results lost, "
        f"{len(count.hangs)} hangs, {len(count.tracebacks)} tracebacks."
    )


def main() -> int:
    """Print what was done and what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="how many times (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(N_WORKERS) as workers:
        base = Path(folder, "base")
        lengthen(new_project(base))
        each = -(-options.kills // N_WORKERS)
        runs = [
            workers.submit(soak, base, Path(folder, f"{n}"), each, options.seed + n)
            for n in range(N_WORKERS)
        ]
        count = sum((run.result() for run in runs), Count())
    print(*table(count), sep="\n")
    for name in (*count.lost, *count.hangs, *count.tracebacks):
        print(name, file=sys.stderr)
    return 1 if count.lost or count.hangs or count.tracebacks else 0


if __name__ == "__main__":
    sys.exit(main())
