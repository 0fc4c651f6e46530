"""Packages that only some trackers need; they come with an extra of this project."""

import importlib
from types import ModuleType

from jemtrack.errors import InputError


def load_extra(extra: str, module: str) -> ModuleType:
    """Import `module`, which the extra `extra` brings.

    Raises:
        InputError: saying how to install it, where it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the tracker {extra!r} needs a package that is missing ({error}): "
            f"pip install 'jemtrack[{extra}]'"
        ) from error
