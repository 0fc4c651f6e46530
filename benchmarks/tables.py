"""Format the measurements as tables in Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.rows import Row
from benchmarks.turns import Turns

_TIMES = (
    "row", "precision", "reference", "jemtrack", "per", "ratio", "quartiles", "target",
)  # fmt: skip
_ARITHMETIC = (
    "row", "precision", "GFLOP", "matrix GFLOP/s", "reached", "floor", "ratio at the floor",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The measurements of a row in one precision.

    `arithmetic` is that of jemtrack's step and `products` that of the yardstick, matrix products,
    in FLOP. If nothing was measured, `none` is the reason.
    """

    name: str
    row: Row
    precision: str = ""
    turns: Turns | None = None
    arithmetic: int | None = None
    products: int | None = None
    note: str = ""
    none: str = ""


def table_lines(results: Sequence[Result]) -> Iterator[str]:
    """Yield the table of times, a description of each row, and the table of arithmetic."""
    yield ""
    yield from markdown(_TIMES, [_times(result) for result in results])
    yield ""
    for name, row in {result.name: result.row for result in results}.items():
        yield f"- {name}: {row.what}"
    for result in results:
        if result.note:
            yield f"- {result.name}, {result.precision}, result: {result.note}"
    if counted := [result for result in results if result.arithmetic]:
        yield ""
        yield from markdown(_ARITHMETIC, [_arithmetic(result) for result in counted])


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, with columns as wide as their cells."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    for number, cells in enumerate([head, *body]):
        if number == 1:
            yield "|".join(["", *("-" * (width + 2) for width in widths), ""])
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield f"| {' | '.join(padded)} |"


def duration(seconds: float) -> str:
    """Format seconds as s or ms."""
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1000:.2f} ms"


def _times(result: Result) -> list[str]:
    turns, bar = result.turns, f"{result.row.bar:g}"
    if turns is None:
        return [result.name, result.precision, result.none, "", "", "", "", bar]
    quartiles = " to ".join(f"{value:.2f}" for value in turns.quartiles or ()) or "one pair"
    return [
        result.name,
        result.precision,
        duration(turns.reference),
        duration(turns.ours),
        result.row.unit,
        f"{turns.ratio:.2f}",
        quartiles,
        bar,
    ]


def _arithmetic(result: Result) -> list[str]:
    turns, arithmetic, products = result.turns, result.arithmetic, result.products
    assert turns
    assert arithmetic
    assert products
    share = arithmetic / products  # of the yardstick's time, at the rate of the yardstick
    return [
        result.name,
        result.precision,
        f"{arithmetic / 1e9:.1f}",
        f"{products / turns.yardstick / 1e9:.0f}",
        f"{share / turns.yardsticks('ours'):.0%}",
        duration(share * turns.yardstick),
        f"{turns.yardsticks('reference') / share:.2f}",
    ]
