"""Make the tables of docs/results.md: the four trainers on a data set, over seeds.

    python -m benchmarks.results fashion-mnist --seeds 3

runs the graph of `workflows/<data set>`, which git must track (`jemtrack graph --workflow
fashion-mnist`, `git add workflows`, `git commit`), as DVC experiments: two per seed, in one of
which the entropy penalties are summed. Finished experiments are not run again, and one that was
killed is resumed. Then it prints a table: mean and standard deviation over the seeds. A seed
determines the split, the initialisation and all noise.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dvc.api
import yaml

from jemtrack.project.graph import FOLDER
from jemtrack.project.revisions import Revision
from jemtrack.workflows.four_trainers import DATASETS

REDUCTIONS = ("mean", "sum")
PENALTIES = ("MaxEntropyL1", "MaxEntropyL2")
MEASURES = ("accuracy", "nll", "ece")


class Experiment(NamedTuple):
    """One run of a data set's graph."""

    dataset: str
    seed: int
    reduction: str

    @property
    def name(self) -> str:
        """The name of the experiment in DVC."""
        return f"{self.dataset}-seed{self.seed}-{self.reduction}"

    @property
    def folder(self) -> Path:
        """The folder of the graph."""
        return FOLDER / self.dataset

    def run(self) -> None:
        """Run the experiment in a temporary copy of the project."""
        changes = [f"PrepareData.params.seed={self.seed}"]
        changes += [f"{each}.objective.entropy_reduction={self.reduction}" for each in PENALTIES]
        sets = [part for change in changes for part in ("--set-param", change)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", self.name, *sets]
        subprocess.run(command, cwd=self.folder, check=True)

    def read(self, path: str) -> Any:
        """Read a JSON file of its results."""
        return json.loads(dvc.api.read(str(self.folder / path), rev=self.name))

    def rows(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the name and figures of each trainer; for `sum`, only of those with a penalty."""
        metrics = Revision(self.name, str(self.folder)).metrics()
        values = yaml.safe_load(dvc.api.read(str(self.folder / "params.yaml"), rev=self.name))
        n_images = 60_000 - values["PrepareData"]["params"]["n_valid"]
        for trainer in PENALTIES if self.reduction == "sum" else metrics:
            seconds = self.read(f"nodes/{trainer}/resources.json")["seconds"]
            seen = n_images * values[trainer]["params"]["n_epochs"]
            costs = {"seconds": seconds, "images/s": seen / seconds}
            label = f"{trainer}, {self.reduction}" if trainer in PENALTIES else trainer
            yield label, {**{name: metrics[trainer][name] for name in MEASURES}, **costs}


def finished(folder: Path) -> set[str]:
    """List the names of the finished experiments."""
    command = [sys.executable, "-m", "dvc", "exp", "list", "--all", "--name-only"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return {*done.stdout.split()}


def table(experiments: list[Experiment]) -> list[str]:
    """Format the mean and standard deviation of each trainer's figures as Markdown."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for experiment in experiments:
        for label, figures in experiment.rows():
            found[label].append(figures)
    columns = [*MEASURES, "seconds", "images/s"]
    lines = [f"| | {' | '.join(columns)} | seeds |", "|---" * (len(columns) + 2) + "|"]
    for label, rows in found.items():
        cells = [_cell(name, [row[name] for row in rows]) for name in columns]
        lines.append(f"| {label} | {' | '.join(cells)} | {len(rows)} |")
    return lines


def _cell(name: str, values: list[float]) -> str:
    digits = 4 if name in MEASURES else 0
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def main() -> None:
    """Run the missing experiments; print the table."""
    parser = argparse.ArgumentParser(description="The four trainers on a data set, over seeds.")
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--only-print", action="store_true", help="run nothing that is missing")
    options = parser.parse_args()
    chosen = [
        Experiment(options.dataset, seed, reduction)
        for reduction in REDUCTIONS
        for seed in range(1, options.seeds + 1)
    ]
    there = finished(FOLDER / options.dataset)
    for experiment in chosen:
        if experiment.name not in there and not options.only_print:
            experiment.run()
    there = finished(FOLDER / options.dataset)
    print(*table([each for each in chosen if each.name in there]), sep="\n")


if __name__ == "__main__":
    main()
