"""What a stage that is not a training says while it works: a bar on a terminal, or a line."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(doing: str) -> None:
    """Print what is being done to standard error, where it does not mix with results."""
    print(doing, file=sys.stderr, flush=True)


def track(items: Iterable[T], doing: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while a bar on a terminal counts them; elsewhere, print one line at first.

    `total` is their number, for an iterable that has no length.
    """
    if sys.stderr.isatty():
        # Imported here: every stage imports this module, and most run without a terminal.
        from rich import progress
        from rich.console import Console

        yield from progress.track(items, doing, total, console=Console(stderr=True))
        return
    say(doing)
    yield from items
