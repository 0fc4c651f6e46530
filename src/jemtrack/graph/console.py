"""Where tables are printed."""

import sys

from rich.console import Console

_WITHOUT_TERMINAL = 120


def table_console() -> Console:
    """Give a console as wide as the terminal; where there is none, as wide as most tables need.

    A notebook asks for colours as a terminal would (`FORCE_COLOR`), and is none.
    """
    return Console(width=None if sys.stdout.isatty() else _WITHOUT_TERMINAL)
