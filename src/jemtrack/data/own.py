"""A data set of the user's own: one `.npz` file beside its checksum, under a name of its own."""

import difflib
import re
from pathlib import Path

from jemtrack.data.checksums import DataFile, digest
from jemtrack.data.npz import read_npz
from jemtrack.data.sources import SOURCES, Form, Source
from jemtrack.errors import InputError, ParameterError

IMAGES_NAME = "images.npz"
SUMS_NAME = "SHA256SUMS"


def find_source(name: str, data_root: Path) -> Source:
    """Find the data set of that name: one that jemtrack knows, or one that the user brought.

    Raises:
        ParameterError: when it is neither.
    """
    if name in SOURCES:
        return SOURCES[name]
    if not (data_root / name / SUMS_NAME).is_file():
        raise ParameterError(f"dataset: {_unknown(name)}")
    return own_source(name, data_root / name)


def own_source(name: str, folder: Path) -> Source:
    """Describe the user's own data in `folder` by the checksum that was written beside them.

    Raises:
        InputError: when there are none, or the checksum is missing or unreadable.
    """
    check_name(name)
    if not (folder / SUMS_NAME).is_file():
        raise InputError(f"{folder / SUMS_NAME} is not there; {_unknown(name)}")
    sums = (folder / SUMS_NAME).read_text(encoding="utf-8", errors="replace")
    line = re.fullmatch(rf"([0-9a-f]{{64}}) [ *]{re.escape(IMAGES_NAME)}\s*", sums)
    if line is None:
        raise InputError(
            f"{folder / SUMS_NAME}: must be one line, the sha256 and {IMAGES_NAME}; "
            f"bring the data again with {_how_to_bring(name)}"
        )
    return _source(name, line[1])


def write_checksum(folder: Path) -> None:
    """Write the checksum of the images in `folder` beside them, as `sha256sum` would."""
    line = f"{digest(folder / IMAGES_NAME)}  {IMAGES_NAME}\n"
    (folder / SUMS_NAME).write_text(line, encoding="utf-8", newline="\n")


def check_name(name: str) -> None:
    """Refuse a name that could not be a folder's everywhere.

    Raises:
        InputError: when it has other characters than letters, digits, dash and underscore.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(
            f"the name of a data set must be letters, digits, dashes and underscores, got {name!r}"
        )


def npz_in(given: Path, name: str) -> Path:
    """Find the one `.npz` file that `given` is or holds; `images.npz` goes before others.

    Raises:
        InputError: when there is none, or more than one.
    """
    if given.is_file():
        return given
    found = sorted(given.glob("*.npz"))
    if not found:
        raise InputError(f"{given} has no .npz file in it; {_unknown(name)}")
    chosen = [path for path in found if path.name == IMAGES_NAME] or found
    if len(chosen) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{given}: expected one .npz file, found {names}; name the file itself")
    return chosen[0]


def _source(name: str, sha256: str) -> Source:
    mend = _how_to_bring(name)
    form = Form(files=(DataFile(IMAGES_NAME, sha256),), read=read_npz, how_to_bring=mend)
    return Source(name, n_classes=None, flip=False, forms=(form,), mend=mend)


def _how_to_bring(name: str) -> str:
    return f"`jemtrack data {name} --from {name}.npz`"


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), SOURCES, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return (
        f"{name} is none of the known data sets ({', '.join(SOURCES)}){hint}; bring your own with "
        f"{_how_to_bring(name)}, a NumPy file with the arrays images and labels"
    )
