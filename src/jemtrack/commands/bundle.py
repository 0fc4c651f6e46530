"""Serve a bundle over HTTP, or print how fast it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from jemtrack.commands.tables import table_console
from jemtrack.deploy.predictor import opened
from jemtrack.errors import InputError
from jemtrack.shared.hardware import available_cpus

if TYPE_CHECKING:
    from jemtrack.deploy.batcher import Limits

_MOST_WORKERS = 8  # unless more are asked for: each takes some 60 MB
_DRAIN = 30  # seconds for the requests that are in work when the server is told to end


def serve(
    bundle: Path,
    *,
    model: str,
    host: str,
    port: int,
    threads: int,
    workers: int | None,
    limits: "Limits",
) -> None:
    """Serve the bundle's model; requests in work are answered before the server ends.

    Raises:
        InputError: if the bundle cannot be used, or a number is out of its bounds.
    """
    import uvicorn  # of the extra `serve`, which profiling does without

    from jemtrack.deploy.server import make_app
    from jemtrack.deploy.worker import Worker

    if workers is None:
        workers = max(1, min(_MOST_WORKERS, available_cpus() // max(threads, 1)))
    if not 0 <= port < 2**16:
        raise InputError(f"--port must be 0 to 65535, got {port}")
    if min(*limits, workers) < 1 or threads < 0:
        raise InputError(
            f"limits and --workers must be >= 1 and --threads >= 0, got {[*limits]}, {workers} "
            f"and {threads}"
        )
    description = opened(bundle, model, threads=threads).description
    running = [Worker(bundle.resolve(), model, threads) for _ in range(workers)]
    app = make_app(description, running, limits, model)
    uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=_DRAIN)


def profile(
    bundle: Path, *, model: str, batch_sizes: Sequence[int], iterations: int, threads: int
) -> None:
    """Profile the model, and print a row a batch size.

    Raises:
        InputError: if the bundle cannot be used, or a number is not positive.
    """
    from jemtrack.deploy.profiler import PerformanceProfiler  # serving needs no pandas

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
