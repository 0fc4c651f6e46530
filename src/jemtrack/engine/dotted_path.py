"""What a file names by its dotted path, imported."""

import importlib
from typing import Any

from jemtrack.errors import InputError


def imported(path: str) -> Any:
    """Import what `path`, such as `mine.StopAfter`, names; None where its module has no such name.

    Raises:
        InputError: with what the module's import raised, whatever it is: the module is the user's.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path!r} cannot be imported: {reason}") from error
