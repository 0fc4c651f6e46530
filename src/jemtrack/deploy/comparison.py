"""One table of all formats: what each weighs, how fast it is, and what it answers.

Letters: N images.
"""

import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jemtrack.deploy.bundle import FP32_BOUNDS, INT8, Material
from jemtrack.deploy.figures import (
    Run,
    answers,
    largest_differences,
    measured,
    reference,
    refuse_beyond,
)
from jemtrack.deploy.formats import FORMATS, Source, UnavailableError, torch_run, written
from jemtrack.deploy.predict import MODEL
from jemtrack.errors import InputError
from jemtrack.shared.progress import say

PYTORCH = "pytorch"  # the row that all others are compared with
_LARGE = 64


@dataclass
class Row:
    """A format's row.

    Attributes:
        name: of the format.
        problem: why it is not available or refused; "" if neither.
        refused: whether it missed its tolerance.
        path: its file.
        size: bytes.
        figures: on the test images, as `figures` has them.
        differences: the largest ones to PyTorch.
        ms: median milliseconds for one image.
        per_second: images a second, in batches of 64.
    """

    name: str
    problem: str = ""
    refused: bool = False
    path: Path | None = None
    size: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    differences: Mapping[str, float] = field(default_factory=dict)
    ms: float = float("nan")
    per_second: float = float("nan")


def compare_formats(
    source: Source, material: Material, names: Iterable[str], folder: Path, turns: int = 30
) -> list[Row]:
    """Write each format into `folder`, check it against PyTorch, and time all of them by turns.

    A format that misses its tolerance is removed again. `folder` is not that of the bundle.
    """
    assert source.made is not None
    about = source.description["models"][MODEL]
    rows, runs = [], {PYTORCH: torch_run(source.module())}
    expected = reference(source.made.module.network, source.made.mahalanobis, about["temperature"])
    expected_test = answers(expected, material.data.test.images_NCHW)
    _, figures = measured(
        runs[PYTORCH], material.data.test, material.outliers, about["temperature"]
    )
    size = material.path.stat().st_size
    rows.append(Row(PYTORCH, path=material.path, size=size, figures=figures))
    for name in names:
        say(f"Making {name}")
        row = Row(name)
        try:
            row.path = written(name, source, folder)
            row.size = _size(row.path)
            run = FORMATS[name].open(row.path, material.args.threads, FORMATS[name].precisions[0])
            _check(row, run, material, expected_test, source.description)
            runs[name] = run
        except UnavailableError as error:
            row.problem = str(error)
        except InputError as error:
            row.problem, row.refused = str(error), True
            if row.path:
                row.path.unlink()
        rows.append(row)
    _time(rows, runs, material.data.test.images_NCHW.numpy(), turns)
    return rows


def _check(
    row: Row,
    run: Run,
    material: Material,
    expected: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
) -> None:
    """Measure a format, and raise InputError if it is out of its tolerance."""
    about = description["models"][INT8 if row.name == "int8" else MODEL]
    found, row.figures = measured(run, material.data.test, material.outliers, about["temperature"])
    row.differences = largest_differences(found, expected)
    if row.name == "int8":
        plain = description["models"][MODEL]["figures"]
        refuse_beyond(row.name, row.figures, plain, material.args.int8_bounds)
    else:
        refuse_beyond(row.name, row.differences, dict.fromkeys(FP32_BOUNDS, 0.0), FP32_BOUNDS)


def _time(rows: list[Row], runs: Mapping[str, Run], images_NCHW: np.ndarray, turns: int) -> None:
    """Time all by turns, so that other work of the machine affects them alike; medians."""
    one, many = images_NCHW[:1], np.resize(images_NCHW, (_LARGE, *images_NCHW.shape[1:]))
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(turns + 1):
        for name, run in runs.items():
            for batch in (one, many):
                started = time.perf_counter()
                run(batch)
                if turn:  # the first warms up
                    spent = time.perf_counter() - started
                    seconds.setdefault((name, len(batch)), []).append(spent)
    for row in rows:
        if row.name in runs:
            row.ms = 1e3 * statistics.median(seconds[row.name, 1])
            row.per_second = _LARGE / statistics.median(seconds[row.name, _LARGE])


def _size(path: Path) -> int:
    """Count the bytes of a file, and of the weights that OpenVINO puts beside it."""
    return sum(each.stat().st_size for each in (path, path.with_suffix(".bin")) if each.exists())
