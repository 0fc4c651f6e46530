"""Measure the start-up of each stage against importing the libraries that it needs.

    python benchmarks/start_up.py

starts each stage of the default graph on the digits as `dvc repro` does, with `zntrack run ...`,
and ends it where its work begins: where PrepareData reads its files, a trainer draws its first
batch, and the measuring stages load a model. Between two such processes, a process runs
`import torch, zntrack` (for a trainer in bf16 also `lightning_fabric`). A ratio compares the time
of a stage with the mean of the imports before and after it. It is printed for wall-clock time and
for CPU time, which other work of the machine affects less. If MLflow is installed, ZnTrack's
command imports it before any line of the stage. By default, this import is prevented; `--mlflow`
includes it. The last line is the time of `jemtrack --help`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CLOCKS = ("wall", "processor")
SAY = "import time; print('\\n', time.monotonic(), time.process_time(), flush=True)"
BASE = f"import torch, zntrack\n{SAY}"
FABRIC = f"import torch, zntrack, lightning_fabric\n{SAY}"
HELP = f"""
from jemtrack.commands.main import main
try:
    main(["--help"])
finally:
    {SAY}
"""
STAGE = f"""
import sys
if {{mlflow}}:
    sys.modules["mlflow"] = None
from zntrack.cli import app

def reached(*_, **__):
    {SAY}
    import os
    os._exit(0)

import jemtrack.stages  # the first import of a stage's command
import {{module}} as begins
begins.{{name}} = reached
sys.argv = ["zntrack", *"{{command}}".split()]
app()
"""
SMALL = {"width": 1, "n_epochs": 1, "n_steps": 0}


@dataclass(frozen=True)
class Start:
    """A stage, and the function whose first call marks the start of its work."""

    stage: str
    module: str
    name: str
    base: str = BASE
    changed: Mapping[str, object] = field(default_factory=dict)


_FIRST_BATCH = ("jemtrack.jem.training.batches", "TrainingBatches.epoch")
_TRAINERS = ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2")
_OF_MODELS = ("MeasureRobustness", "DrawSamples", "EvaluateX")
STARTS = {
    "PrepareData": Start("PrepareData", "jemtrack.stages.prepare_data", "prepare"),
    **{name: Start(name, *_FIRST_BATCH) for name in _TRAINERS},
    "XEntropyAugmented, bf16": Start(
        "XEntropyAugmented", *_FIRST_BATCH, FABRIC, {"precision": "bf16-mixed"}
    ),
    "PrepareOutliers": Start(
        "PrepareOutliers", "jemtrack.stages.prepare_outliers", "make_outliers"
    ),
    "MeasureRobustness": Start(
        "MeasureRobustness", "jemtrack.stages.measure_robustness", "load_model"
    ),
    "DrawSamples": Start("DrawSamples", "jemtrack.stages.draw_samples", "load_model"),
    "EvaluateX": Start("EvaluateX", "jemtrack.stages.evaluate_x", "run_models"),
}


class Project:
    """A folder with the graph, in which processes are started and timed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # An installed jemtrack may belong to another checkout.
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        for name in ("src", "pyproject.toml"):
            (path / name).symlink_to(ROOT / name)
        self.python("-m", "dvc", "init", "--no-scm", "--quiet")
        self.python(
            "-c",
            "from jemtrack.commands.main import main; main(['data', 'digits']); main(['graph'])",
        )
        self.stages = yaml.safe_load((path / "dvc.yaml").read_text())["stages"]

    def python(self, *arguments: str) -> str:
        """Run Python in the folder; return its output."""
        command = [sys.executable, *arguments]
        ended = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True
        )
        if ended.returncode:
            sys.exit(f"{arguments} failed:\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def seconds(self, program: str) -> dict[str, float]:
        """Run a program that prints the time at its end; return its seconds by each clock."""
        started = time.monotonic()
        ended, processor = map(float, self.python("-c", program).split()[-2:])
        return dict(zip(CLOCKS, (ended - started, processor), strict=True))

    def change(self, stage: str, changed: Mapping[str, object]) -> None:
        """Set parameters of a stage."""
        path = self.path / "params.yaml"
        content = yaml.safe_load(path.read_text())
        content[stage]["params"] |= changed
        path.write_text(yaml.safe_dump(content))

    def command(self, stage: str) -> str:
        """Return the arguments of `zntrack` in the stage's command."""
        return self.stages[stage]["cmd"].removeprefix("zntrack ")

    def run(self, *stages: str) -> None:
        """Run stages to their end."""
        for stage in stages:
            program = f"import sys; sys.argv = ['zntrack', *{self.command(stage).split()}]; "
            self.python("-c", f"{program}from zntrack.cli.cli import app; app()")


def measured(
    project: Project, start: Start, n_processes: int, mlflow: bool
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Alternate the imports and the stage; return the seconds of both, one import more."""
    program = STAGE.format(
        mlflow=not mlflow,
        module=start.module,
        name=start.name,
        command=project.command(start.stage),
    )
    before = yaml.safe_load((project.path / "params.yaml").read_text())[start.stage]["params"]
    project.change(start.stage, start.changed)
    imports = [project.seconds(start.base)]
    stages = []
    for _ in range(n_processes):
        stages.append(project.seconds(program))
        imports.append(project.seconds(start.base))
    project.change(start.stage, before)
    return stages, imports


def lines(
    name: str, stages: list[dict[str, float]], imports: list[dict[str, float]]
) -> Iterator[str]:
    """Format a stage's ratios with their quartiles, and the seconds."""
    for clock in CLOCKS:
        around = [(a[clock] + b[clock]) / 2 for a, b in pairwise(imports)]
        ratios = [stage[clock] / base for stage, base in zip(stages, around, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        mine = statistics.median(stage[clock] for stage in stages)
        yield (
            f"{name:24}{clock:>10}  {middle:.3f}  {low:.3f} to {high:.3f}  "
            f"{mine:.2f} / {statistics.median(around):.2f}"
        )


def main() -> None:
    """Measure the start-up of each stage and `jemtrack --help`; print a table."""
    parser = argparse.ArgumentParser(description="What a stage costs before its work begins.")
    parser.add_argument("--stage", choices=STARTS, action="append", help="one of them (all)")
    parser.add_argument("--processes", type=int, default=9, help="starts of each (9)")
    parser.add_argument("--mlflow", action="store_true", help="count ZnTrack's import of MLflow")
    options = parser.parse_args()
    if options.processes < 2:
        parser.error(f"--processes must be >= 2, got {options.processes}")
    chosen = options.stage or [*STARTS]
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        for trainer in _TRAINERS:
            project.change(trainer, SMALL)
        if chosen != ["PrepareData"]:
            project.run("PrepareData")
        if not {*chosen}.isdisjoint(_OF_MODELS):
            project.run(*_TRAINERS, "PrepareOutliers")
        print(f"{'start / imports':24}{'clock':>10}  ratio  {'quartiles':14}  seconds", flush=True)
        for name in chosen:
            found = measured(project, STARTS[name], options.processes, options.mlflow)
            print(*lines(name, *found), sep="\n", flush=True)
        helped = [project.seconds(HELP)["wall"] for _ in range(options.processes)]
    low, middle, high = statistics.quantiles(helped, n=4)
    print(f"jemtrack --help: {middle:.3f} s, quartiles {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
