"""The stage Report."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import zntrack

from jemtrack.data.images import DataSplits
from jemtrack.evaluation.models.model_outputs import load_outputs
from jemtrack.evaluation.models.results import FOLDERS, EvaluationResults, metrics_of, read_tables
from jemtrack.evaluation.report.content import PageContent, Robustness
from jemtrack.project.params import PARAMS, read_mapping
from jemtrack.shared.progress import say
from jemtrack.stages import report_inputs as inputs
from jemtrack.stages.stage import Stage


class Report(Stage):
    """Write the results of an evaluation as one HTML page.

    Attributes:
        facts, tables, calibration, energies, risk_coverage, roc, outputs: those of EvaluateX.
        data: the file of prepared images.
        models: the trainers' model files; a trainer's folder is the model's name.
        histories: the trainers' metrics of each epoch.
        outliers: files of images that the models have never seen, by PrepareOutliers.
        robustness: folders of curves, by MeasureRobustness.
        robustness_tables: folders of tables, by MeasureRobustness.
        samples: folders of image grids, by DrawSamples.
        sample_metrics: files of what was measured on them.
        parameters: the file of all stages' parameters.
        report: the page; it needs no network and no file beside it.
    """

    facts: Path = zntrack.deps_path()
    tables: Path = zntrack.deps_path()
    calibration: Path = zntrack.deps_path()
    energies: Path = zntrack.deps_path()
    risk_coverage: Path = zntrack.deps_path()
    roc: Path = zntrack.deps_path()
    outputs: Path = zntrack.deps_path()
    data: Path = zntrack.deps_path()
    models: list[Path] = zntrack.deps_path()
    histories: list[Path] = zntrack.deps_path(default_factory=list)
    outliers: list[Path] = zntrack.deps_path(default_factory=list)
    robustness: list[Path] = zntrack.deps_path(default_factory=list)
    robustness_tables: list[Path] = zntrack.deps_path(default_factory=list)
    samples: list[Path] = zntrack.deps_path(default_factory=list)
    sample_metrics: list[Path] = zntrack.deps_path(default_factory=list)
    parameters: Path = zntrack.deps_path(PARAMS)
    report: Path = zntrack.outs_path(zntrack.nwd / "report.html")

    def compute(self) -> None:
        """Read all results, and write the page."""
        # What draws takes a second to import.
        from jemtrack.evaluation.report.page import render

        say("Drawing the figures of the report")
        self.report.write_text(render(self._content()))
        print(f"Report: {self.report}")

    def _content(self) -> PageContent:
        facts = json.loads(self.facts.read_text())
        results, data = self._results(), DataSplits.load(self.data)
        robustness = self._robustness()
        histories = {path.parent.name: pd.read_csv(path) for path in self.histories}
        stored = load_outputs(self.outputs.read_bytes(), str(self.outputs))
        kinds = robustness.curves["kind"].unique() if len(robustness.curves) else ()
        code, changed_files = code_version()
        return PageContent(
            title=f"{self.tables.parent.name}: {len(results.models)} models on {facts['dataset']}",
            facts=facts,
            results=results,
            code=code,
            changed_files=changed_files,
            robustness=robustness,
            grids={
                path.stem: path.read_bytes()
                for folder in self.samples
                for path in sorted(folder.glob("*.png"))
            },
            samples={
                model: values
                for path in self.sample_metrics
                for model, values in json.loads(path.read_text()).items()
            },
            examples=inputs.examples(data, facts["split"], self.outliers, kinds, stored),
            histories=histories,
            training={
                path.parent.name: inputs.training_costs(path, histories.get(path.parent.name))
                for path in self.models
            },
            data=inputs.data_facts(data, self.data),
            counts=inputs.class_counts(data),
            environment=inputs.environment(self.models),
            parameters={
                stage: dict(_dotted(values))
                for stage, values in read_mapping(self.parameters).items()
            },
        )

    def _results(self) -> EvaluationResults:
        metrics = metrics_of(read_tables(self.tables)["measures"])
        tables = {name: read_tables(getattr(self, name), order=[*metrics]) for name in FOLDERS}
        return EvaluationResults(metrics, **tables)

    def _robustness(self) -> Robustness:
        """Read the curves of all models, with a column `model`, and the tables."""
        curves = [
            table.assign(model=model)
            for folder in self.robustness
            for model, table in read_tables(folder).items()
        ]
        tables = [read_tables(folder) for folder in self.robustness_tables]
        return Robustness(
            *(
                pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
                for parts in (curves, [t["figures"] for t in tables], [t["tests"] for t in tables])
            )
        )


def code_version() -> tuple[str, list[str]]:
    """Name the commit, and the source files that differ from it.

    DVC has rerun what depends on a file that changed, so this is the code of all results.
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return "unknown: there is no git repository here", []
    # A graph in a folder of its own shares the project's code.
    where = ["--untracked-files=all", "--", "src", ":(top)src"]
    status = _git("status", "--porcelain", *where) or ""
    return f"commit {commit}", [line[3:] for line in status.splitlines()]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip()


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)
