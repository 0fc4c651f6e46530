"""The stage Report."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import zntrack

from jemtrack.evaluation.models.results import FOLDERS, EvaluationResults, read_tables
from jemtrack.project.params import PARAMS, read_mapping
from jemtrack.stages.stage import Stage


class Report(Stage):
    """Writes the results of an evaluation as one HTML page.

    Attributes:
        metrics, facts, tables, calibration, energies, risk_coverage, roc: those of EvaluateX.
        robustness: folders of curves, by MeasureRobustness.
        samples: folders of image grids, by DrawSamples.
        sample_metrics: files of what was measured on them.
        parameters: the file of all stages' parameters.
        report: the page; it needs no network and no file beside it.
    """

    metrics: Path = zntrack.deps_path()
    facts: Path = zntrack.deps_path()
    tables: Path = zntrack.deps_path()
    calibration: Path = zntrack.deps_path()
    energies: Path = zntrack.deps_path()
    risk_coverage: Path = zntrack.deps_path()
    roc: Path = zntrack.deps_path()
    robustness: list[Path] = zntrack.deps_path(default_factory=list)
    samples: list[Path] = zntrack.deps_path(default_factory=list)
    sample_metrics: list[Path] = zntrack.deps_path(default_factory=list)
    parameters: Path = zntrack.deps_path(PARAMS)
    report: Path = zntrack.outs_path(zntrack.nwd / "report.html")

    def compute(self) -> None:
        """Read all results, and write the page."""
        # What draws takes a second to import.
        from jemtrack.evaluation.report.page import PageContent, render

        facts = json.loads(self.facts.read_text())
        metrics = json.loads(self.metrics.read_text())
        tables = {name: read_tables(getattr(self, name), order=[*metrics]) for name in FOLDERS}
        results = EvaluationResults(metrics, **tables)
        code, changed_files = code_version()
        content = PageContent(
            title=f"{self.metrics.parent.name}: {len(results.models)} models on {facts['dataset']}",
            facts=facts,
            results=results,
            robustness=self._curves(),
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
            code=code,
            changed_files=changed_files,
            parameters={
                stage: dict(_dotted(values))
                for stage, values in read_mapping(self.parameters).items()
            },
        )
        self.report.write_text(render(content))

    def _curves(self) -> pd.DataFrame:
        """Read the curves of all models, with a column `model`."""
        curves = [
            table.assign(model=model)
            for folder in self.robustness
            for model, table in read_tables(folder).items()
        ]
        return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


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
