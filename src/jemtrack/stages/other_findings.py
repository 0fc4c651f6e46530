"""What other stages found out about the models, read for the evaluation's page."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from jemtrack.evaluation.findings import OtherFindings


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
