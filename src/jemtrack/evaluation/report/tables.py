"""The tables of a page: cells with intervals, and each table as CSV and LaTeX."""

import csv
import io
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"≥": r"$\geq$", "<": "$<$", ">": "$>$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
)


class Cell(NamedTuple):
    """A table's cell: its text, the interval beside it, and whether it is to stand out."""

    text: str
    interval: str = ""
    best: bool = False


class Table(NamedTuple):
    """The names of the columns, and the cells of each row; the first one names the row."""

    header: list[str]
    rows: list[list[Cell]]

    def csv(self) -> str:
        """Write the table as CSV; a column with intervals is followed by one of them."""
        with_interval = [
            any(row[at].interval for row in self.rows) for at in range(len(self.header))
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = list(zip(self.header, with_interval, strict=True))
        writer.writerow(
            [each for n, own in columns for each in ([n, f"{n} interval"] if own else [n])]
        )
        for row in self.rows:
            cells = zip(row, with_interval, strict=True)
            writer.writerow(
                [each for c, own in cells for each in ([c.text, c.interval] if own else [c.text])]
            )
        return text.getvalue()

    def latex(self) -> str:
        """Write the table for the LaTeX package booktabs; what stands out is bold."""
        lines = [" & ".join(name.translate(_LATEX) for name in self.header)]
        lines += [" & ".join(map(_latex_cell, row)) for row in self.rows]
        head, *body = [line + r" \\" for line in lines]
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}"
        end = [r"\bottomrule", r"\end{tabular}", ""]
        return "\n".join([begin, r"\toprule", head, r"\midrule", *body, *end])

    def downloads(self, name: str) -> list[tuple[str, str, str]]:
        """List both forms: what they are called, the name of the file, and a data URI."""
        forms = (("CSV", "csv", self.csv()), ("LaTeX", "tex", self.latex()))
        return [
            (
                form,
                f"{name}.{ending}",
                f"data:text/plain;base64,{b64encode(text.encode()).decode()}",
            )
            for form, ending, text in forms
        ]


def side_by_side(
    columns: Mapping[str, Mapping[str, Any]],
    form: Callable[[Any], str] = str,
    corner: str = "",
    labels: Mapping[str, str] | None = None,
) -> Table:
    """Make a table with a column for each key, and a row for each name in any of them.

    Values are cells, or made to text by `form`; `labels` are what rows are called.
    """
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = []
    for name in names:
        values = [column.get(name, Cell("")) for column in columns.values()]
        cells = [each if isinstance(each, Cell) else Cell(form(each)) for each in values]
        rows.append([Cell((labels or {}).get(name, name)), *cells])
    return Table([corner, *columns], rows)


def words(header: list[str], values: Mapping[str, str]) -> Table:
    """Make a table of two columns."""
    return Table(header, [[Cell(name), Cell(value)] for name, value in values.items()])


def with_interval(row: Mapping[Any, Any], name: str = "value", best: bool = False) -> Cell:
    """Show a figure with its bounds: `low` and `high`, or those that bear its name."""
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    form = number if name == "value" else "{:.3f}".format
    return Cell(form(row[name]), f"{form(row[low])} to {form(row[high])}", best)


def number(value: float) -> str:
    """Write a number with four digits behind the point."""
    return f"{value:.4f}"


def p_value(value: float) -> str:
    """Write a p-value with three digits behind the point, or that it is below .001."""
    return f"{value:.3f}" if value >= 0.001 else "< .001"


def _latex_cell(cell: Cell) -> str:
    text = cell.text.translate(_LATEX)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return f"{text} ({cell.interval.translate(_LATEX)})" if cell.interval else text
