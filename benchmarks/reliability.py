"""Break a project at random, again and again, and count what is lost.

    python benchmarks/reliability.py --kills 200

makes a project of all stages on the digits, with trainings that write a checkpoint after every
batch. One stage after another is run, and broken several times at random moments: its processes are
killed, all of them or one, it is told to end by Ctrl-C or SIGTERM, it can write no more bytes, a
second person types a command in the folder, the database of its tracker is locked, or, once it is
killed, a checkpoint is damaged or all get times that are years off. Then the stage is run once more
and left alone: its results must be, bit for bit, those of a project that was never broken. After
the last stage the first becomes stale, and all begins anew. Then the property tests give `jemtrack
check`, `jemtrack validate` and the readers of models and data broken files. The exit status is 1 if
a result is lost, a process hangs or prints a traceback, or a property fails.
"""

import argparse
import os
import random
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from project import STAGES, TRAINERS, Project, new_project  # noqa: E402

PROPERTIES = "tests/unit/test_hostile_mutations.py"
SEEDS = (1, 2)  # of the data's split: each makes all stages stale
HANGS_S = 120
FAULTS_A_VISIT = (2, 4)  # of one stage, at least and at most
MOST_PASSES = 100  # through all stages
# What differs in every run: times, ids, and the page that shows them.
VOLATILE = {"node-meta.json", "resources.json", "record", "report.html"}
# One that begins while ZnTrack's command itself is imported never reaches our code.
TRACEBACK = re.compile(r"(Traceback|╭)(.|\n)*src/jemtrack")
# DVC does not write these in one step: after a kill it may find half of one, and start no stage. It
# says so, and this is the way out; its run cache has the results.
LEFT_BY_DVC = {
    "'./dvc.lock' is invalid": "git checkout -- dvc.lock",
    "'./dvc.lock' validation failed": "git checkout -- dvc.lock",
    "RWLock-file '.dvc/tmp/rwlock'": "rm .dvc/tmp/rwlock",
    "join() argument must be str": "find .dvc/cache/runs -type d -empty -delete",
}
STATISTICS = re.compile(r"::test_(\w+):\n.*?(\d+) passing\D*, (\d+) failing", re.S)
TRACKERS = "trackers: [{type: sql, url: 'sqlite:///runs.db'}]\n"

Run = subprocess.Popen[str]
Digests = dict[str, dict[str, str]]  # by stage and path


@dataclass
class Count:
    """What was done to the project, by name and by stage, and what came of it."""

    tried: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    remedies: Counter[str] = field(default_factory=Counter)
    hangs: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def __add__(self, other: "Count") -> "Count":
        """Count both together."""
        return Count(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


@dataclass
class Soak:
    """One project that is broken, and what is known of it.

    `expected` has the results of a project that was never broken by seed of the split, `cpu` the
    CPU seconds of each of its stages, and of `imports` where they do not start warm.
    """

    project: Project
    expected: dict[int, Digests]
    cpu: dict[str, float]
    chosen: random.Random
    count: Count = field(default_factory=Count)

    def start(self, *command: str, warm: bool = True) -> Run:
        """Start a command of the project in a session of its own."""
        variables = replace(self.project, warm=warm).environment
        return subprocess.Popen(
            command,
            cwd=self.project.path,
            env={**variables, "JEMTRACK_CHECKPOINT_SECONDS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def output_of(self, run: Run, name: str) -> str:
        """Wait for the end of a run, orphans included; note a hang or a traceback."""
        try:
            output = run.communicate(timeout=HANGS_S)[0]
        except subprocess.TimeoutExpired:
            self.count.hangs.append(name)
            kill_all(run)
            output = run.communicate()[0]
        if TRACEBACK.search(output):
            self.count.tracebacks.append(f"{name}:\n{output}")
        for message, remedy in LEFT_BY_DVC.items():
            if message in output:
                self.count.remedies[remedy] += 1
                self.project.run(*remedy.split())
        return output

    def wait_at_random(self, run: Run, stage: str, *, warm: bool = True) -> None:
        """Wait for a random moment of a run, whatever else the machine does meanwhile."""
        clock = CpuClock(self.project.path)
        most = self.cpu[stage] + (0 if warm else self.cpu["imports"])
        until = self.chosen.uniform(began := clock(), max(began, most))
        while run.poll() is None and clock() < until:
            time.sleep(0.03)


class CpuClock:
    """Sums up the CPU seconds of all processes that work in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ticks: dict[int, int] = {}  # of those that have ended, too

    def __call__(self) -> float:
        """Return the sum so far; psutil would take longer."""
        for number in psutil.pids():
            process = Path("/proc", f"{number}")
            with suppress(OSError):
                if (process / "cwd").readlink() == self._folder:
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    self._ticks[number] = sum(map(int, fields[11:15]))
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")


Act = Callable[[Soak, str], bool]  # returns whether it met the stage


def of_session(run: Run) -> Iterator[psutil.Process]:
    """Yield the processes of a run; one that starts warm has others in sessions of their own."""
    for number in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(number) == run.pid:
                yield psutil.Process(number)


def within(folder: Path) -> list[psutil.Process]:
    """List the processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found


class Running(NamedTuple):
    """A stage that DVC runs: DVC's process, the command that it typed, and what computes."""

    dvc: psutil.Process
    typed: psutil.Process
    stage: psutil.Process


def running(project: Project) -> Running | None:
    """Find the stage that runs; if it started warm, the server has forked both DVC and the stage.

    The program that was typed lives and dies with the stage: see warm_start.py.
    """
    processes = within(project.path)
    for typed in processes:
        with suppress(psutil.Error):
            command = typed.cmdline()
            if "run" not in command or not any(each.endswith("/zntrack") for each in command):
                continue
            dvc = [each for each in typed.parents() if each in processes][-1]
            forked = [each for each in processes if each.ppid() == dvc.ppid() and each != dvc]
            return Running(dvc, typed, (forked or [typed])[0])
    return None


def kill_all(run: Run) -> None:
    """Kill DVC, the stage and all that they have started."""
    for process in of_session(run):
        with suppress(psutil.Error):
            process.kill()


def kill_dvc(run: Run, found: Running) -> None:
    """Kill DVC; the stage, an orphan, runs on."""
    found.dvc.kill()


def kill_stage(run: Run, found: Running) -> None:
    """Kill the stage; DVC says that it failed."""
    found.typed.kill()


def press_ctrl_c(run: Run, found: Running) -> None:
    """Interrupt all processes, as a terminal does."""
    os.killpg(run.pid, signal.SIGINT)


def terminate(run: Run, found: Running) -> None:
    """End all processes, as a cluster does."""
    os.killpg(run.pid, signal.SIGTERM)


def forbid_writing(run: Run, found: Running) -> None:
    """Let the stage write no more bytes: as on a full disk, each write is an error."""
    resource.prlimit(found.stage.pid, resource.RLIMIT_FSIZE, (0, 0))


def broken(act: Callable[[Run, Running], None], *, warm: bool = True) -> Act:
    """Make a fault that acts on a stage that DVC runs, at a random moment."""

    def fault(soak: Soak, stage: str) -> bool:
        run = soak.start("dvc", "repro", stage, warm=warm)
        while run.poll() is None and running(soak.project) is None:
            time.sleep(0.05)
        soak.wait_at_random(run, stage, warm=warm)
        found, acted = running(soak.project), False
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # it has ended at this moment
            if found and run.poll() is None:
                act(run, found)
                acted = True
        soak.output_of(run, act.__name__)
        return acted and run.returncode != 0  # it may have had nothing to write any more

    return fault


def kill(soak: Soak, stage: str) -> bool:
    """Kill all of `dvc repro` at a random moment, be it before or after the stage."""
    run = soak.start("dvc", "repro", stage)
    soak.wait_at_random(run, stage)
    if acted := run.poll() is None:
        kill_all(run)
    output = soak.output_of(run, "killed")
    return acted and f"Stage '{stage}' didn't change" not in output


def without_dvc(soak: Soak, stage: str) -> bool:
    """Kill a stage whose command was typed by hand."""
    command = soak.project.read("dvc.yaml")["stages"][stage]["cmd"]
    run = soak.start(*shlex.split(command))
    soak.wait_at_random(run, stage)
    if acted := run.poll() is None:
        kill_all(run)
    soak.output_of(run, "without DVC")
    return acted


def second_person(soak: Soak, stage: str) -> bool:
    """Type another command in the folder while a stage runs; then kill all of the first."""
    run = soak.start("dvc", "repro", stage)
    soak.wait_at_random(run, stage)
    acted = run.poll() is None
    commands = (f"dvc repro {stage}", "jemtrack check", "jemtrack graph", "jemtrack scratch")
    command = soak.chosen.choice(commands)
    soak.output_of(soak.start(*command.split()), command)
    kill_all(run)
    soak.output_of(run, "second person")
    return acted


def lock_database(soak: Soak, stage: str) -> bool:
    """Run a trainer whose tracker's database another process holds locked: it ends all the same."""
    settings = soak.project.path / "jemtrack.yaml"
    settings.write_text(TRACKERS)
    with locked(soak.project.path / "runs.db"):
        run = soak.start("dvc", "repro", stage)
        output = soak.output_of(run, "locked database")
    settings.unlink()
    if run.returncode:
        soak.count.losses.append(f"a training ended by its tracker's database:\n{output}")
    return "jemtrack replay" in output


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold a database of SQLite locked against all others."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.close()


def damaged(change: Callable[[list[Path], random.Random], None]) -> Act:
    """Make a fault that kills a run and changes files of its unfinished training."""

    def fault(soak: Soak, stage: str) -> bool:
        if not kill(soak, stage):
            return False
        files = [*(soak.project.path / ".jemtrack").rglob("*.checkpoint")]
        change(files, soak.chosen)
        return bool(files)

    return fault


def cut_one(files: list[Path], chosen: random.Random) -> None:
    """Cut a file short."""
    for path in chosen.sample(files, min(1, len(files))):
        path.write_bytes(path.read_bytes()[: chosen.randrange(path.stat().st_size)])


def change_a_byte(files: list[Path], chosen: random.Random) -> None:
    """Change a byte of a file."""
    for path in chosen.sample(files, min(1, len(files))):
        content = bytearray(path.read_bytes())
        content[chosen.randrange(len(content))] ^= 0xFF
        path.write_bytes(content)


def change_the_clock(files: list[Path], chosen: random.Random) -> None:
    """Give all files times that are years ago or ahead."""
    then = time.time() + chosen.choice([-1, 1]) * 3 * 365 * 24 * 3600
    for path in files:
        os.utime(path, (then, then))


class Fault(NamedTuple):
    """What can be done to a stage: `act` returns whether it met the stage, and counts only then.

    Of a hundred, so many are a `share`.
    """

    share: int
    act: Act
    only: Sequence[str] = STAGES


# All start warm but those that signals reach: see warm_start.py.
FAULTS = {
    "all processes killed": Fault(35, kill),
    "a stage without DVC killed": Fault(16, without_dvc),
    "two people in one folder, the first killed": Fault(10, second_person),
    "DVC alone killed": Fault(6, broken(kill_dvc)),
    "the stage alone killed": Fault(6, broken(kill_stage)),
    "Ctrl-C": Fault(6, broken(press_ctrl_c, warm=False)),
    "SIGTERM": Fault(6, broken(terminate, warm=False)),
    "no more bytes can be written": Fault(6, broken(forbid_writing)),
    "killed, and a checkpoint cut short": Fault(3, damaged(cut_one), TRAINERS),
    "killed, and a byte of a checkpoint changed": Fault(2, damaged(change_a_byte), TRAINERS),
    "killed, and the clock changed by years": Fault(2, damaged(change_the_clock), TRAINERS),
    "the tracker's database locked": Fault(2, lock_database, TRAINERS),
}


def results(project: Project) -> Digests:
    """Return the digests of all results, by stage and path, from dvc.lock."""
    found = project.read("dvc.lock")["stages"]
    return {
        stage: {
            out["path"]: out["md5"]
            for out in found[stage].get("outs", ())  # none, if DVC was killed while it wrote them
            if Path(out["path"]).name not in VOLATILE
        }
        for stage in STAGES
        if stage in found
    }


def make_stale(project: Project, seed: int) -> None:
    """Choose another split, and let DVC and jemtrack forget that they have had it before."""
    project.set("PrepareData.params.seed", seed)
    for folder in (".dvc/cache/runs", ".jemtrack"):
        shutil.rmtree(project.path / folder, ignore_errors=True)


def lengthen(project: Project) -> None:
    """Let the trainers take some seconds, so that most kills meet one."""
    for trainer in TRAINERS:
        project.set(f"{trainer}.params.n_epochs", 2)
        project.set(f"{trainer}.params.batch_size", 64)


def cpu_of_stages(base: Soak) -> dict[str, float]:
    """Run the stages one by one; return the CPU seconds of each, and those of cold imports."""

    def spent(*command: str, warm: bool = True) -> float:
        clock, run = CpuClock(base.project.path), base.start(*command, warm=warm)
        while run.poll() is None:
            clock()
            time.sleep(0.03)
        return clock()

    found = {stage: spent("dvc", "repro", stage) for stage in STAGES}
    cold = spent("dvc", "repro", "--force", STAGES[0], warm=False)
    return {**found, "imports": max(0.0, cold - found[STAGES[0]])}


def soak_copy(base: Soak, n_faults: int, seed: int, until: float) -> Count:
    """Break a copy of the project so many times, or until that time."""
    folder = base.project.path.with_name(f"copy-{seed}")
    shutil.copytree(base.project.path, folder, symlinks=True)
    soak = Soak(Project(folder), base.expected, base.cpu, random.Random(seed))
    wanted = shares(n_faults, soak.chosen)
    for split in islice(cycle(SEEDS), MOST_PASSES):
        make_stale(soak.project, split)
        for stage in STAGES:
            tried = break_stage(soak, stage, wanted)
            if not ends_well(soak, stage, split):
                soak.count.lost += Counter(tried)
                return soak.count  # what follows would differ, too
            if not wanted or time.time() > until:
                return soak.count
    soak.count.losses.append(f"met no stage: {', '.join(wanted)}")
    return soak.count


def shares(n_faults: int, chosen: random.Random) -> list[str]:
    """Return the names of so many faults, by their shares, in a random order."""
    names = [name for name, fault in FAULTS.items() for _ in range(fault.share)]
    wanted = [names[number * len(names) // n_faults % len(names)] for number in range(n_faults)]
    chosen.shuffle(wanted)
    return wanted


def break_stage(soak: Soak, stage: str, wanted: list[str]) -> list[str]:
    """Break runs of a stage by some of the faults that are `wanted` still; return their names."""
    fitting = [name for name in wanted if stage in FAULTS[name].only]
    tried = []
    for name in fitting[: soak.chosen.randint(*FAULTS_A_VISIT)]:
        wanted.remove(name)
        if not FAULTS[name].act(soak, stage):
            wanted.append(name)
            break  # the stage has ended
        tried.append(name)
    soak.count.tried += Counter(tried)
    soak.count.stages[stage] += len(tried)
    print(f"{stage}: {', '.join(tried)}; {len(wanted)} left", file=sys.stderr, flush=True)
    return tried


def ends_well(soak: Soak, stage: str, seed: int) -> bool:
    """Run the stage and leave it alone; say whether its results are those that are expected."""
    while True:
        remedies = soak.count.remedies.total()
        run = soak.start("dvc", "repro", stage)
        output = soak.output_of(run, "left alone")
        if remedies == soak.count.remedies.total():
            break
    if run.returncode:
        soak.count.losses.append(f"{stage} could not be ended:\n{output}")
        return False
    found, expected = results(soak.project)[stage], soak.expected[seed][stage]
    differing = [path for path in expected if found.get(path) != expected[path]]
    soak.count.losses += [f"{path} differs" for path in differing]
    return not differing


def break_project(folder: Path, n_faults: int, n_workers: int, seed: int, until: float) -> Count:
    """Make the project, and break copies of it at once."""
    base = Soak(new_project(folder / "base"), {}, {}, random.Random(seed))
    lengthen(base.project)
    for split in SEEDS:
        make_stale(base.project, split)
        base.cpu = cpu_of_stages(base)
        base.expected[split] = results(base.project)
    base.project.commit("results")
    sizes = [len(range(number, n_faults, n_workers)) for number in range(n_workers)]
    with ProcessPoolExecutor(n_workers) as workers:
        jobs = [workers.submit(soak_copy, base, n, seed + i, until) for i, n in enumerate(sizes)]
        return sum((job.result() for job in jobs), Count())


def break_inputs() -> tuple[list[str], str]:
    """Try the properties of broken files; return a line for each, and all that a failure said."""
    command = [sys.executable, "-m", "pytest", "-q", PROPERTIES, "--hypothesis-profile", "thorough"]
    done = subprocess.run(
        [*command, "--hypothesis-show-statistics"], cwd=ROOT, capture_output=True, text=True
    )
    rows = [
        f"| {name.replace('_', ' ')} | {passed} | {failed} |"
        for name, passed, failed in STATISTICS.findall(done.stdout)
    ]
    return rows, done.stdout + done.stderr if done.returncode else ""


def table(count: Count) -> Iterator[str]:
    """Yield what was done and what came of it, in Markdown."""
    yield "| what was done | tried | survived | lost |"
    yield "|---|---:|---:|---:|"
    for name in FAULTS:
        tried, lost = count.tried[name], count.lost[name]
        yield f"| {name} | {tried} | {tried - lost} | {lost} |"
    tried, lost = count.tried.total(), count.lost.total()
    yield f"| **together** | **{tried}** | **{tried - lost}** | **{lost}** |"
    yield ""
    yield "By stage: " + ", ".join(f"{stage} {count.stages[stage]}" for stage in STAGES) + "."
    yield (
        f"{len(count.losses)} results lost, {len(count.hangs)} hangs, "
        f"{len(count.tracebacks)} tracebacks."
    )
    for remedy, n in count.remedies.items():
        yield f"DVC needed `{remedy}` {n} times."


def main() -> int:
    """Print what was done and what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="how many times (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (1)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="projects at once (2)")
    parser.add_argument(
        "--inputs", action=argparse.BooleanOptionalAction, default=True, help="broken files, too"
    )
    parser.add_argument("--minutes", type=float, default=60, help="for the kills, at most (60)")
    options = parser.parse_args()
    began, until = time.monotonic(), time.time() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        count = break_project(Path(folder), options.kills, options.workers, options.seed, until)
    print(*table(count), sep="\n", flush=True)
    rows, failed = break_inputs() if options.inputs else ([], "")
    if rows:
        print("", "| broken files | passed | failed |", "|---|---:|---:|", *rows, sep="\n")
    minutes = (time.monotonic() - began) / 60
    print(f"\n{datetime.now(UTC):%d %B %Y}, seed {options.seed}, {minutes:.0f} minutes.")
    problems = [*count.losses, *count.hangs, *count.tracebacks, *filter(None, [failed])]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
