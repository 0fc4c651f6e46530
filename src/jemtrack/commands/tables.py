"""The console that commands print tables on."""

import sys

from rich.console import Console

_WITHOUT_TERMINAL = 120


def table_console() -> Console:
    """Return a console as wide as the terminal, or 120 columns if there is no terminal.

    rich takes a notebook for a terminal, because Jupyter sets `FORCE_COLOR`; `isatty` does not.
    """
    return Console(width=None if sys.stdout.isatty() else _WITHOUT_TERMINAL)
