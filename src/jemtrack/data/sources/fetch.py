"""Bring the files of a data set to `data_root/<name>`, each checked before it is moved in place."""

import http.client
import importlib.util
import logging
import os
import shutil
import sysconfig
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from jemtrack.data.sources.captioned import has_captions, read_captioned, write_npz
from jemtrack.data.sources.drawn import DRAWN
from jemtrack.data.sources.own import (
    IMAGES_NAME,
    SUMS_NAME,
    check_name,
    find_source,
    npz_in,
    own_source,
    read_npz,
    write_checksum,
)
from jemtrack.data.sources.registry import SOURCES, Form, Source, read_source
from jemtrack.errors import InputError

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 30
_UNREADABLE = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, http.client.HTTPException)
_SCRATCH = "fetch_"
_LEFTOVER_S = 24 * 3600  # a scratch folder of that age was left by a kill

# Where a file may be: on the disk, in a wheel, or at an address.
Candidate = Path | zipfile.Path | str


def fetch(name: str, data_root: Path, given: Path | None = None, side: int = 32) -> list[Path]:
    """Put the files of the data set `name` under `data_root/<name>`, and return their paths.

    They are taken from the first of these that has them: what is there already, `given` (a
    file, a wheel, or a folder that holds either), an installed package, the distribution's
    folder, the publisher's address. `letters` and `emoji` are drawn. A name that jemtrack does not
    know is a data set of the user's, and `given` its `.npz` file or the folder of it, or a folder
    of images with captions, which are cut and scaled to `side` pixels.

    Raises:
        InputError: if a file is not found, does not have its checksum or cannot be written.
    """
    if given is not None and not given.exists():
        raise InputError(f"{given}: there is no such file or folder to take {name} from")
    if name in SOURCES:
        return fetch_source(SOURCES[name], data_root, given)
    check_name(name)
    _check_case(name, data_root)
    folder = data_root / name
    if given is not None or (name in DRAWN and not (folder / SUMS_NAME).is_file()):
        with _scratch(data_root) as scratch:
            _bring_own(name, given, scratch / IMAGES_NAME, side)
            write_checksum(scratch)
            _move(scratch, folder)
    source = own_source(name, folder)
    read_source(source, folder)
    return source.forms[0].paths(folder)


def _bring_own(name: str, given: Path | None, target: Path, side: int) -> None:
    """Write a data set that is drawn, or a user's own, to the one file that it is kept in."""
    if given is None:
        write_npz(target, DRAWN[name]())
    elif has_captions(given):
        write_npz(target, read_captioned(given, side))
    else:
        path = npz_in(given, name)
        read_npz([path])
        shutil.copyfile(path, target)


def contents(name: str, data_root: Path) -> str:
    """Say in a line how many images of which size a data set has, and how many classes.

    Raises:
        InputError: if its files are missing or altered.
    """
    found = read_source(find_source(name, data_root), data_root / name)
    n_images, channels, height, width = found.train.images_NCHW.shape
    parts = (found.train, found.test) if found.test else (found.train,)
    n_classes = 1 + max(int(part.labels_N.max()) for part in parts)
    kinds = f"{len(found.captions)} captions" if found.captions else f"{n_classes} classes"
    test = f" and {len(found.test)} to test on" if found.test else ""
    size = f"{height}x{width}" + (f" in {channels} channels" if channels > 1 else "")
    return f"{name}: {n_images} images{test}, {size}, {kinds}"


def _check_case(name: str, data_root: Path) -> None:
    """Refuse a name that differs from that of another data set in case alone."""
    present = [path.name for path in data_root.iterdir()] if data_root.is_dir() else []
    for other in present:
        if other != name and other.lower() == name.lower():
            raise InputError(
                f"a data set cannot be called {name}: {data_root / other} is there, and on some "
                "systems both names are one folder"
            )


def fetch_source(source: Source, data_root: Path, given: Path | None = None) -> list[Path]:
    """Do what `fetch` does, for a source that need not be in the registry."""
    search = _Search(data_root / source.name)
    for form in source.forms:
        if not form.problems(search.folder):
            return form.paths(search.folder)
    for where in (None,) if given is None else (given, None):
        for form in source.forms:
            if search.brings(form, where):
                return form.paths(search.folder)
        if where and search.wrong:  # the user named it, so no other copy can be meant
            break
    looked_at = "\n".join(f"  {line}" for line in search.wrong + search.absent)
    advice = "\n".join(f"  {form.how_to_bring}" for form in source.forms)
    raise InputError(
        f"{source.name} was not found. Looked at:\n{looked_at}\nBring it with:\n{advice}"
    )


def candidates(form: Form, name: str, given: Path | None = None) -> Iterator[Candidate]:
    """Yield where the file `name` of `form` may be, in the order in which to look.

    That is in `given`: the file itself, a wheel, or a folder that holds either, searched two
    levels deep, so that torchvision's (`MNIST/raw/`) and the one around it both serve. Without
    `given` it is where `form` says. What is yielded need not exist.
    """
    if given is not None:
        yield from _candidates_in(given, name, is_only=len(form.files) == 1)
        return
    if form.package:
        package, _, folder = form.package.partition("/")
        spec = importlib.util.find_spec(package)  # does not import it
        would_be = [f"{sysconfig.get_path('purelib')}/{package}"]
        for root in (spec and spec.submodule_search_locations) or would_be:
            yield Path(root, folder, name)
    if form.system_folder:
        yield form.system_folder / name
    if form.url:
        yield f"{form.url.rstrip('/')}/{name}"


def _candidates_in(given: Path, name: str, *, is_only: bool) -> Iterator[Candidate]:
    if given.is_dir():
        paths = [path for depth in ("", "*/", "*/*/") for path in given.glob(depth + name)]
        wheels = [path for depth in ("", "*/") for path in given.glob(depth + "*.whl")]
    elif given.suffix == ".whl":
        paths, wheels = [], [given]
    else:
        # A browser may have renamed the only file that there is; its checksum identifies it.
        paths, wheels = [given] if given.name == name or is_only else [], []
    members = (member for wheel in wheels for member in _members(wheel, name))
    yield from (*paths, *members) or (given / name,)


def _members(wheel: Path, name: str) -> list[Candidate]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [member for member in archive.namelist() if Path(member).name == name]
    except zipfile.BadZipFile:
        return [wheel / name]  # cannot be opened, which the message then says
    return [zipfile.Path(wheel, member) for member in found]


class _Search:
    """A search for the files of one data set, and what it has looked at in vain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wrong: list[str] = []  # files of the right name with another content
        self.absent: list[str] = []

    def brings(self, form: Form, given: Path | None) -> bool:
        """Bring the files of `form` that the folder lacks, all or none; return whether it could."""
        with _scratch(self.folder.parent) as scratch:
            for name in form.files:
                is_whole = form.problem(name, self.folder / name) is None
                if not is_whole and not self._brings_file(form, name, given, scratch / name):
                    return False
            _move(scratch, self.folder)
        return True

    def _brings_file(self, form: Form, name: str, given: Path | None, target: Path) -> bool:
        for place in candidates(form, name, given):
            try:
                with closing(_opened(place)) as content, target.open("wb") as copy:
                    shutil.copyfileobj(content, copy)
            except _UNREADABLE as error:
                self.absent.append(f"{place}: {getattr(error, 'strerror', None) or error}")
                continue
            if (problem := form.problem(name, target)) is None:
                _LOG.info("%s: taken from %s", name, place)
                return True
            self.wrong.append(problem.replace(str(target), str(place)))
        return False


def _opened(place: Candidate) -> IO[bytes]:
    if isinstance(place, str):
        request = urllib.request.Request(place, headers={"User-Agent": "jemtrack"})
        response: IO[bytes] = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        return response
    return place.open("rb")


@contextmanager
def _scratch(data_root: Path) -> Iterator[Path]:
    """Make a folder for the time being, from which a rename reaches `data_root` if possible.

    It is not in `data_root`: DVC would pin what a kill leaves there.

    Raises:
        InputError: if a file cannot be written.
    """
    if data_root.exists() and not data_root.is_dir():
        raise InputError(f"{data_root} must be a folder to put data sets in, but it is a file")
    beside = data_root.parent / ".jemtrack"
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            beside.mkdir(exist_ok=True)
        for left in beside.glob(f"{_SCRATCH}*"):
            if left.stat().st_mtime < time.time() - _LEFTOVER_S:
                shutil.rmtree(left, ignore_errors=True)
        # Otherwise among the system's temporary files.
        root = beside if beside.is_dir() and os.access(beside, os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=root, prefix=_SCRATCH) as scratch:
            yield Path(scratch)
    except OSError as error:
        place = error.filename or data_root
        raise InputError(f"{place}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.rmdir()  # unless something else is in it


def _move(scratch: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in sorted(scratch.iterdir()):
        shutil.move(path, folder / path.name)
