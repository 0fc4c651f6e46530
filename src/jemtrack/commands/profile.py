"""Print latency, throughput and memory of a bundle's model, by batch size."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from jemtrack.commands.tables import table_console
from jemtrack.deploy.profiler import PerformanceProfiler


def profile(
    bundle: Path, *, model: str, batch_sizes: Sequence[int], iterations: int, threads: int
) -> None:
    """Profile the model, and print a row a batch size.

    Raises:
        InputError: if the bundle cannot be used, or a number is not positive.
    """
    profiler = PerformanceProfiler(bundle, model=model, threads=threads)
    found = profiler.profile(batch_sizes, iterations)
    table = Table(box=SIMPLE)
    for name in ("batch", "p50 ms", "95% interval", "p95 ms", "95% interval", "images/s", "MiB"):
        table.add_column(name, justify="right")
    for row in found.to_dict("records"):
        cells = []
        for name in ("p50_ms", "p95_ms"):
            cells.append(f"{row[name]:.2f}")
            cells.append(f"{row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f}")
        last = (f"{row['per_second']:.0f}", f"{row['peak_mib']:.0f}")
        table.add_row(str(row["batch_size"]), *cells, *last)
    table_console().print(table)
