"""Latency, throughput and memory of a bundle's model, by batch size."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jemtrack.deploy.predict import MODEL
from jemtrack.deploy.predictor import opened
from jemtrack.errors import InputError
from jemtrack.shared.progress import track

_LEVEL = 0.95


class PerformanceProfiler:
    """Profiles a model of a bundle, each batch size in a process of its own.

    Args:
        bundle: the folder, or one of its models.
        model: which of its models, if it is the folder.
        threads: of the CPU.

    Raises:
        InputError: if the bundle cannot be used.
    """

    def __init__(self, bundle: str | Path, *, model: str = MODEL, threads: int = 1) -> None:
        bundle = Path(bundle)
        if bundle.is_file():
            bundle, model = bundle.parent, bundle.name
        opened(bundle, model)
        self._bundle, self._model, self._threads = bundle, model, threads

    def profile(
        self,
        batch_sizes: Sequence[int] = (1, 8, 64),
        num_iterations: int = 100,
        warm_up: int = 10,
    ) -> pd.DataFrame:
        """Time `num_iterations` passes of each batch size, after `warm_up` that do not count.

        Returns:
            A row a batch size: `p50_ms` and `p95_ms` of a pass, each with the `_low` and `_high` of
            its 95% interval; images `per_second` at the median; `peak_mib` of the process.

        Raises:
            InputError: if a number is not positive.
        """
        if min(*batch_sizes, num_iterations, warm_up + 1) < 1:
            raise InputError(
                f"batch sizes and iterations must be >= 1, got {[*batch_sizes]}, {num_iterations}"
            )
        rows = []
        for size in track([*batch_sizes], "Profiling"):
            found = self._timed(size, num_iterations, warm_up)
            ms = 1e3 * np.array(found["seconds"])
            row = {
                "batch_size": size,
                **percentile(ms, 0.5, "p50_ms"),
                **percentile(ms, 0.95, "p95_ms"),
            }
            rows.append(
                {**row, "per_second": 1e3 * size / row["p50_ms"], "peak_mib": found["peak_mib"]}
            )
        return pd.DataFrame(rows)

    def _timed(self, *numbers: int) -> dict[str, list[float]]:
        command = [sys.executable, "-m", "jemtrack.deploy.timing", str(self._bundle), self._model]
        command += map(str, (self._threads, *numbers))
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise InputError(f"the profiled process failed: {ran.stderr.strip()[-500:]}")
        found: dict[str, list[float]] = json.loads(ran.stdout)
        return found


def percentile(values_N: np.ndarray, share: float, name: str) -> dict[str, float]:
    """Compute a percentile and the bounds of its 95% interval, from the order of the values.

    The number of values below the true percentile is binomial, whatever their distribution is
    (Hahn and Meeker, "Statistical Intervals" (1991), section 5.2). A bound for which there are too
    few values is infinite.
    """
    from scipy.stats import binom  # takes a while to import

    bounded_N = np.concatenate([[-np.inf], np.sort(values_N), [np.inf]])
    low, high = binom.ppf([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], len(values_N), share).astype(int)
    return {
        name: float(np.quantile(values_N, share)),
        f"{name}_low": float(bounded_N[low]),
        f"{name}_high": float(bounded_N[high + 1]),
    }
