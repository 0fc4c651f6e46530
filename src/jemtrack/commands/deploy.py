"""Export a model into a bundle and other formats, and print them in one table."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor

from jemtrack.commands.tables import table_console
from jemtrack.data.images import DataSplits, load_outliers
from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.bundle import Exported, Material, write_bundle
from jemtrack.deploy.comparison import Row, compare_formats
from jemtrack.deploy.formats import NAMES, Source
from jemtrack.errors import InputError
from jemtrack.parameters import build
from jemtrack.shared.hardware import cpu_threads
from jemtrack.shared.progress import say

DATA = Path("nodes/PrepareData/images.safetensors")
OUTLIERS = Path("nodes/PrepareOutliers/outliers.safetensors")
_FIGURES = ("accuracy", "nll", "auroc", "refused")


def deploy(
    model: Path,
    out: Path,
    *,
    data: Path | None = None,
    outliers: Path | None = None,
    formats: Sequence[str] = (),
    threads: int = 1,
) -> int:
    """Write the bundle and the formats (all, if none is named) into `out`; print the table.

    Returns:
        1 if a format failed or was refused, or one that was named is not available; else 0.

    Raises:
        InputError: if the model, the images or an argument cannot be used.
    """
    if unknown := [name for name in formats if name not in NAMES]:
        raise InputError(f"--formats must be of {', '.join(NAMES)}, got {', '.join(unknown)}")
    others: dict[str, Tensor] = {}
    if outliers or OUTLIERS.exists():
        others = load_outliers(outliers or OUTLIERS)
    args = build(DeployArgs, {"threads": threads}, "deploy")
    material = Material(model, DataSplits.load(data or DATA), others, args)
    with cpu_threads(threads):
        say(f"Exporting {model}")
        exported = Exported.of(material)
        description = write_bundle(exported, material, out / "bundle")
        source = Source(out / "bundle", description, exported)
        rows = compare_formats(source, material, formats or [*NAMES], out)
    _print(rows, threads)
    print(f"{out / 'bundle'}: try `jemtrack serve {out / 'bundle'}`")
    return int(any(row.refused or (row.problem and formats) for row in rows))


def _print(rows: Sequence[Row], threads: int) -> None:
    table = Table(box=SIMPLE)
    names = ("", "size", "ms", "images/s", "largest Δp", "accuracy", "NLL", "AUROC", "refused")
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        if not row.problem:
            table.add_row(row.name, *_cells(row))
    console = table_console()
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(row.problem, markup=False, highlight=False)
    print(f"ms: one image; images/s: in batches of 64; {threads} thread(s), medians by turns")


def _cells(row: Row) -> list[str]:
    figures, apart = row.figures, row.differences.get("probabilities")
    return [
        f"{row.size / 1e6:.2f} MB",
        f"{row.ms:.2f}",
        f"{row.per_second:.0f}",
        "" if apart is None else f"{apart:.1e}",
        *(f"{figures[name]:.4f}" if name in figures else "" for name in _FIGURES),
    ]
