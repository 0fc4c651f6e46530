"""Tables in Markdown."""

from collections.abc import Iterator, Sequence


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, with columns as wide as their cells."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    for number, cells in enumerate([head, *body]):
        if number == 1:
            yield "|".join(["", *("-" * (width + 2) for width in widths), ""])
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
