"""A file is known by the SHA-256 of what it holds, however it was packed."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class DataFile:
    """A file's name and its digest.

    `sha256` is the digest of the content, unpacked where it is gzip: a packer's header holds a
    date and a name, so that equal data come in unequal files. `as_packed` is for a publisher who
    gives the packed file's digest alone.
    """

    name: str
    sha256: str
    as_packed: bool = False


def open_content(path: Path) -> BufferedIOBase:
    """Open the content of `path`, unpacking it where it is gzip."""
    with path.open("rb") as file:
        is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def digest(path: Path, *, as_packed: bool = False) -> str:
    """Hash the content of `path`, or the file as it lies.

    Raises:
        OSError, EOFError, zlib.error: when the file cannot be read or unpacked.
    """
    with path.open("rb") if as_packed else open_content(path) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def flaw(path: Path, file: DataFile) -> str | None:
    """Say what is wrong with the copy of `file` at `path`, or None where nothing is."""
    if not path.is_file():
        return f"{path} is missing"
    try:
        found = digest(path, as_packed=file.as_packed)
    except (OSError, EOFError, zlib.error) as error:
        return f"{path} is damaged ({error}); expected sha256 {file.sha256}"
    if found != file.sha256:
        return f"{path} has the wrong checksum: expected sha256 {file.sha256}, found {found}"
    return None
