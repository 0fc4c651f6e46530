"""Which code, parameters and results of other stages a report is made of."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from jemtrack.evaluation.results import OtherFindings
from jemtrack.project.params import PARAMS


def provenance() -> dict[str, str]:
    """Name the commit that the code is from, and say whether it was changed since."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return {"commit": "not known: there is no git repository here"}
    # A graph in a folder of its own has its parameters there, and shares the project's code.
    where = ["src", ":(top)src", str(PARAMS)]
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *where)
    return {"commit": f"{commit}, with changes" if changed else commit}


def stage_parameters(stages: list[str]) -> dict[str, dict[str, str]]:
    """Give the parameters of each of the stages that has some, by their dotted names."""
    values = yaml.safe_load(Path(PARAMS).read_text()) if Path(PARAMS).exists() else {}
    chosen = {stage: values[stage] for stage in dict.fromkeys(stages) if stage in values}
    return {stage: dict(_flat(section)) for stage, section in chosen.items()}


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", "none" if value is None else str(value)))
    return found


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def read_others(
    robustness: Iterable[Path], grids: Iterable[Path], sample_metrics: Iterable[Path]
) -> OtherFindings:
    """Read the folders of MeasureRobustness and DrawSamples, and the latter's metrics."""
    tables = [
        pd.read_csv(path, keep_default_na=False).assign(model=path.stem)
        for path in _files(robustness, "*.csv")
    ]
    samples: dict[str, dict[str, float]] = {}
    for path in sample_metrics:
        samples |= json.loads(path.read_text())
    return OtherFindings(
        robustness=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
        grids={path.stem: path.read_bytes() for path in _files(grids, "*.png")},
        samples=samples,
    )


def _files(folders: Iterable[Path], pattern: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.glob(pattern))
