"""Files that are never seen half written, digests of files, names that every file system has."""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

SOURCE = "src"  # the folder of a project's own packages
UNFINISHED = "*.unfinished*"  # what a kill in `atomic_write` leaves


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, then rename it to `path`.

    Missing folders are made.

    Raises:
        OSError: naming `path`, if the disk is full; what was at `path` is then untouched.
    """
    atomic_write_all({path: write})


def atomic_write_texts(texts: Mapping[Path, str]) -> None:
    """Write the texts to files, all of them or none."""
    writers = {path: _writer(text) for path, text in texts.items()}
    atomic_write_all(writers)


def atomic_write_all(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files as `atomic_write` does; all are on the disk before one is renamed."""
    targets = {link: link.resolve() for link in writers}
    unfinished = {link: path.with_stem(f"{path.stem}.unfinished") for link, path in targets.items()}
    try:
        for link, write in writers.items():
            targets[link].parent.mkdir(parents=True, exist_ok=True)
            write(unfinished[link])
            _flush(unfinished[link])
        for link, path in targets.items():
            unfinished[link].replace(path)
            _flush(path.parent)  # a power cut could undo the rename
    except OSError as error:
        for each in unfinished.values():
            with suppress(OSError):  # what was raised is the one to tell
                each.unlink(missing_ok=True)
        error.filename = str(link)  # the error of a full disk names no file
        raise


def _writer(text: str) -> Callable[[Path], object]:
    return lambda unfinished: unfinished.write_text(text, encoding="utf-8")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Compute the digest of a file's content, by the name that hashlib has for the algorithm."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST_PATH, _LONGEST_PART = 4096, 255  # bytes, of Linux


def name_problem(name: str, *, dots: bool = True) -> str:
    """Explain why no file or folder should be called `name`; return "" if every system can.

    Two names that differ in case alone are one on some systems: compare them in lower case.
    """
    signs = "'_', '-' and '.'" if dots else "'_' and '-'"
    if not _NAME.fullmatch(name) or ("." in name and not dots) or name.endswith("."):
        return (
            f"must be at most 100 letters (a to z), digits, {signs}, and begin with a letter or "
            f"digit, got {name[:100]!r}"
        )
    if _OF_WINDOWS.fullmatch(name):
        return f"must be another name, got {name!r}: Windows has no file that is called so"
    return ""


def path_problem(path: str) -> str:
    """Explain why `path` can be the path of no file; return "" if it can."""
    if not path:
        return "must not be empty"
    if "\0" in path:
        return f"must not contain the character NUL, got {path[:100]!r}"
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > _LONGEST_PART or len(os.fsencode(path)) > _LONGEST_PATH:
        return f"must be shorter, got {path[:100]!r}...: no file has a name of {longest} bytes"
    return ""


def find_root(here: Path) -> Path:
    """Return the folder of the graph that `here` is in: the nearest with a dvc.yaml or a `.dvc`.

    It is `here` itself outside of any project.
    """
    folders = (here, *here.parents)
    is_root = ((each / "dvc.yaml").is_file() or (each / ".dvc").is_dir() for each in folders)
    return next((each for each, found in zip(folders, is_root, strict=True) if found), here)


def find_source(here: Path) -> Path | None:
    """Return `src/` of the DVC project that `here` is in; None outside of any, or without it."""
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder / SOURCE if (folder / SOURCE).is_dir() else None
    return None


def has_library(source: Path) -> bool:
    """Return whether jemtrack itself is in the folder `source`, as in its own repository."""
    return (source / "jemtrack").is_dir()


def search_source(source: Path) -> None:
    """Let this process import the packages in a project's `source`.

    They come before installed ones: an editable install of a package of one's own leads to the
    checkout, even from a copy that DVC has made of the project. jemtrack itself never does so.
    """
    path = str(source.absolute())
    if path not in sys.path and not has_library(source):
        sys.path.insert(0, path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
