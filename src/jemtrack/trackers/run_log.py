"""Where a run's lines go: the screen, and a file if one is asked for."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def run_log(file: Path | None, *, on_screen: bool) -> Iterator[None]:
    """Send the lines logged in the block to standard error, `on_screen`, and to `file`."""
    handlers: list[logging.Handler] = []
    if on_screen:
        handlers.append(logging.StreamHandler(sys.stderr))
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file))
    logger = logging.getLogger("jemtrack")
    level = logger.level
    logger.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[{asctime}] {message}", "%H:%M:%S", style="{"))
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
