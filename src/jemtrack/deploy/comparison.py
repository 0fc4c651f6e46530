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

from jemtrack.deploy.bundle import INT8, Material
from jemtrack.deploy.figures import Measuring, Run, refuse_fp32, refuse_worse
from jemtrack.deploy.formats import (
    FORMATS,
    Source,
    UnavailableError,
    available,
    torch_run,
    written,
)
from jemtrack.deploy.predict import MODEL
from jemtrack.errors import InputError
from jemtrack.shared.progress import say

PYTORCH = "pytorch"  # the row that all others are compared with
_LARGE = 64
_LONGEST_PROBLEM = 300


@dataclass
class Row:
    """A format's row.

    Attributes:
        name: of the format.
        problem: why it is not available, failed or is refused; "" if none of these.
        refused: whether it failed or missed its tolerance.
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

    A format that is not available, fails or misses its tolerance leaves no file in `folder`, nor
    does an earlier call's. `folder` is not that of the bundle.
    """
    assert source.pytorch_export is not None
    rows, runs = [], {PYTORCH: torch_run(source.module())}
    measuring = source.pytorch_export.measuring(material)
    figures, _ = measuring(runs[PYTORCH], source.description["models"][MODEL]["temperature"])
    size = material.path.stat().st_size
    rows.append(Row(PYTORCH, path=material.path, size=size, figures=figures))
    for name in names:
        say(f"Making {name}")
        rows.append(row := Row(name))
        try:
            runs[name] = _checked_run(row, source, material, measuring, folder)
        except UnavailableError as error:
            row.problem = str(error)
        except InputError as error:
            row.problem, row.refused = str(error), True
        except Exception as error:  # those of compilers and runtimes have no base class but this
            what = " ".join(str(error).split())[:_LONGEST_PROBLEM] or type(error).__name__
            row.problem, row.refused = f"{name} failed: {what}", True
        if row.problem and name in FORMATS:
            for path in FORMATS[name].paths(folder):
                path.unlink(missing_ok=True)
    _time(rows, runs, material.data.test.images_NCHW.numpy(), turns)
    return rows


def _checked_run(
    row: Row, source: Source, material: Material, measuring: Measuring, folder: Path
) -> Run:
    """Write, open and check a format; fill its row, and return what runs it."""
    found = available(row.name)
    row.path = written(row.name, source, folder)
    row.size = sum(path.stat().st_size for path in found.paths(folder))
    run = found.open(row.path, material.args.threads)
    _check(row, run, material, measuring, source.description)
    return run


def _check(
    row: Row, run: Run, material: Material, measuring: Measuring, description: Mapping[str, Any]
) -> None:
    """Measure a format, and raise InputError if it is out of its tolerance."""
    models = description["models"]
    about = models[INT8 if row.name == "int8" else MODEL]
    measured = measuring(run, about["temperature"])
    row.figures, row.differences = measured
    if row.name == "int8":
        plain = models[MODEL]["figures"]
        refuse_worse(row.name, measured.figures, plain, material.args.int8_bounds)
    else:
        refuse_fp32(row.name, measured)


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
