"""The listeners that every training has."""

import sys
from pathlib import Path

from jemtrack.engine.listeners import Listener
from jemtrack.trackers.console import Lines, ProgressBar
from jemtrack.trackers.history import HistoryCsv


def usual_listeners(history: Path, print_every: int) -> list[Listener]:
    """Write the history file and lines for the log; draw a bar where there is a terminal."""
    lines = Lines(print_every=print_every)
    bar = [ProgressBar()] if sys.stderr.isatty() else []
    return [HistoryCsv(path=str(history)), lines, *bar]
